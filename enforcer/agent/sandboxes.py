"""The record that the runtime's CNI library keeps of its sandboxes.

libcni, which containerd and CRI-O use, keeps a file for each network of a sandbox: whose it is,
where its network namespace is, and what the plugins answered. Only the node's administrator writes
there. It locates pods that no CNI call of ours named, on a bridge for instance, where no route
leads to a pod. Invalid files are ignored.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.datapath.links import Link, is_of_pod, netlink

CACHE = Path("/var/lib/cni/results")
"""Where libcni keeps them by default."""
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Recorded:
    """One network of one sandbox."""

    key: str
    """`namespace/pod`."""
    uid: str
    """Empty where the runtime does not tell it."""
    netns: str
    interface: str
    """Inside the pod."""
    names: frozenset[str]
    """Interfaces of the node that the plugins named."""
    ips: frozenset[str]

    def is_of(self, key: str, uid: str, ips: frozenset[str]) -> bool:
        """Whether it is the network of just this pod by which it has its addresses."""
        same = not self.uid or not uid or self.uid == uid
        return self.key == key and same and bool(self.ips & ips)


def parse(text: str) -> Recorded | None:
    """The record of a file; None: not one of a pod."""
    try:
        held = json.loads(text)
        arguments = {str(name): str(value) for name, value in held["cniArgs"]}
        result = held["result"]
        names = {i["name"] for i in result.get("interfaces", ()) if not i.get("sandbox")}
        ips = {str(ipaddress.ip_interface(ip["address"]).ip) for ip in result["ips"]}
        return Recorded(
            f"{arguments['K8S_POD_NAMESPACE']}/{arguments['K8S_POD_NAME']}",
            arguments.get("K8S_POD_UID", ""),
            str(held.get("netns", "")),
            str(held["ifName"]),
            frozenset(map(str, names)),
            frozenset(ips),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read(folder: Path) -> Iterator[Recorded]:
    """All records of a node; none where the folder cannot be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        try:
            with path.open("rb") as file:
                text = file.read(LARGEST).decode(errors="replace")
        except OSError:  # gone, or a folder
            continue
        found = parse(text)
        if found is not None:
            yield found


def interface_of(recorded: Recorded, links: Mapping[str, Link]) -> int | None:
    """The interface of the node that a sandbox hangs on: by its network namespace where that can
    be seen from here, else by the name that the plugins gave.
    """
    try:
        descriptor = os.open(recorded.netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        named = [links[name] for name in recorded.names if name in links]
        found = [link.ifindex for link in named if is_of_pod(link)]
        return found[0] if len(found) == 1 else None
    try:
        with netlink() as asked:
            link = asked.host_side(descriptor, recorded.interface)
    except OSError:  # a file that is no network namespace
        return None
    finally:
        os.close(descriptor)
    return link.ifindex if link is not None else None


def locate(folder: Path, key: str, uid: str, ips: frozenset[str], links: list[Link]) -> int | None:
    """The interface of a pod by the records; None where they do not name just one."""
    named = {link.name: link for link in links}
    own = [recorded for recorded in read(folder) if recorded.is_of(key, uid, ips)]
    found = {interface_of(recorded, named) for recorded in own} - {None}
    return found.pop() if len(found) == 1 else None
