"""ClusterIPs on a hollow node: a kube-proxy of one nftables table in the node's network namespace.

The kubelet runs it beside its pods. A new connection to a Service goes to one of its backends at
random, as the EndpointSlices name them: looked up in sets and maps, so that the kernel checks a few
rules however many Services there are. The programs on the client's veth have seen the ClusterIP,
those on the backend's veth see the backend: both judge. A pod whose Service picks that very pod
gets no answer, as nothing is masqueraded here.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from generators.addresses import Family, family
from generators.documents.json import Document, Key
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.reflector import Reflector
from generators.kube.resources import ENDPOINT_SLICES, SERVICES
from generators.manifests import parse_object
from generators.objects import EndpointSlice, Origin, Service
from generators.process.logs import event
from generators.reachability.services import Backend, ServiceKey, service_map
from lab import netns

log = logging.getLogger("ringfence.lab.services")

TABLE = "ringfence-lab-services"
PRIORITY = -100
"""`dstnat`, whose name nft knows for one of the two hooks only."""
COLLECT_SECONDS = 0.02
RETRY_SECONDS = 1.0
_ORIGIN = Origin("api-server", 1)


class ProxyFailed(RingfenceError):
    """nftables does not take the rules."""

    exit_code = 1


def ruleset(services: Mapping[ServiceKey, Sequence[Backend]]) -> str:
    """The whole table, replaced in one transaction; its rules do not grow with the Services.

    Set `ip-of-N` has the Services with N backends, map `ip-backend-I` backend I of each Service.
    """
    parts = [part for of in _Nft for part in of.parts(services)]
    jumps = "".join(f"\t\tjump {of}-services\n" for of in _Nft)
    hooks = [
        _block(
            f"chain {hook}",
            f"\t\ttype nat hook {hook} priority {PRIORITY}; policy accept;\n{jumps}",
        )
        for hook in ("prerouting", "output")
    ]
    body = "".join([*parts, *hooks])
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{body}}}\n"


class _Nft(StrEnum):
    """A family by the name that nft has for it."""

    IPV4 = "ip"
    IPV6 = "ip6"

    def parts(self, services: Mapping[ServiceKey, Sequence[Backend]]) -> Iterator[str]:
        """Sets, maps and chains of this family's Services."""
        address = "ipv4_addr" if self is _Nft.IPV4 else "ipv6_addr"
        key_type = f"{address} . inet_proto . inet_service"
        called = f"{self} daddr . meta l4proto . th dport"
        by_count: dict[int, list[str]] = {}
        by_place: dict[int, list[str]] = {}
        for key, backends in services.items():
            if (family(key.address) is Family.IPV4) is (self is _Nft.IPV4):
                name = f"{key.address} . {key.protocol.lower()} . {key.port}"
                by_count.setdefault(len(backends), []).append(name)
                for place, backend in enumerate(backends):
                    target = f"{name} : {backend.address} . {backend.port}"
                    by_place.setdefault(place, []).append(target)
        for place, targets in sorted(by_place.items()):
            kind = f"\t\ttype {key_type} : {address} . inet_service\n"
            yield _block(f"map {self}-backend-{place}", kind + _elements(targets))
            rule = f"\t\tdnat {self} to {called} map @{self}-backend-{place}\n"
            yield _block(f"chain {self}-pick-{place}", rule)
        rules = ""
        for count, names in sorted(by_count.items()):
            yield _block(f"set {self}-of-{count}", f"\t\ttype {key_type}\n{_elements(names)}")
            picks = ", ".join(f"{place} : goto {self}-pick-{place}" for place in range(count))
            rules += (
                f"\t\t{called} @{self}-of-{count} numgen random mod {count} vmap {{ {picks} }}\n"
            )
        yield _block(f"chain {self}-services", rules)


def _block(head: str, body: str) -> str:
    return f"\t{head} {{\n{body}\t}}\n"


def _elements(names: Sequence[str]) -> str:
    return f"\t\telements = {{ {', '.join(names)} }}\n"


class Proxy:
    """Follows Services and EndpointSlices; `run` in a thread until `stop`."""

    def __init__(self, client: Client, node_netns: str) -> None:
        self._netns = node_netns
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._written = ""
        self._services = Reflector(client, SERVICES, _service, self._wake)
        self._slices = Reflector(client, ENDPOINT_SLICES, _slice, self._wake)

    def run(self) -> None:
        """Write the rules after each change until stopped."""
        for reflector in (self._services, self._slices):
            reflector.start()
        while not self._stopping.is_set():
            self._changed.wait()
            self._stopping.wait(COLLECT_SECONDS)
            self._changed.clear()
            try:
                self._write()
            except (RingfenceError, OSError) as error:
                event(log, "services_failed", logging.ERROR, error=str(error))
                self._stopping.wait(RETRY_SECONDS)
                self._changed.set()

    def stop(self) -> None:
        """End `run`; the rules stay."""
        self._stopping.set()
        self._changed.set()
        for reflector in (self._services, self._slices):
            reflector.stop()

    def _wake(self, _: Key) -> None:
        self._changed.set()

    def _write(self) -> None:
        if self._stopping.is_set() or not (self._services.synced and self._slices.synced):
            return
        services = self._services.store.snapshot().values()
        slices = self._slices.store.snapshot().values()
        text = ruleset(service_map(services, slices, ()))
        if text != self._written:
            apply(text, self._netns)
            self._written = text


def apply(text: str, where: str) -> None:
    """Have the kernel take a ruleset, in the named network namespace."""
    program = next((p for p in ("/usr/sbin/nft", "/sbin/nft") if Path(p).exists()), "nft")
    with netns.inside(where):
        done = subprocess.run(
            [program, "-f", "-"], input=text, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise ProxyFailed(f"nft refuses the Services: {done.stderr.strip()[:200]}")


def _service(document: Document) -> Service | None:
    item = parse_object(document, _ORIGIN)
    return item if isinstance(item, Service) else None


def _slice(document: Document) -> EndpointSlice | None:
    item = parse_object(document, _ORIGIN)
    return item if isinstance(item, EndpointSlice) else None
