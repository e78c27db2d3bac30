"""The pods of this node, and the interface behind which each of them is.

The agent sends every change through here: local pods get the addresses that CNI gave them, whatever
the API server still says, and interfaces become changes of their own. A pod's interface comes from
its attachment (the latest of the same UID), else the node's routes, else the runtime's record of
its sandbox, never from what the pod itself could write; else from its annotation, which only
manifests have: an API server's is not read, because anyone who may write pods could set it. An
attachment of a pod that is not known yet is an arrival, which the start mode decides about; the
interface of an attachment is its pod's, whoever had it before; and an annotation gives way to all
others.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from enforcer.agent import sandboxes
from enforcer.datapath.links import Link, is_of_pod, locate, looks_like_pod, netlink
from enforcer.policy.changes import (
    INTERFACE_ANNOTATION,
    ArrivalChange,
    Attachment,
    InputChange,
    InterfaceChange,
    PodChange,
    is_local,
)
from generators.objects import Pod

UNKNOWN = (
    "no interface known: no CNI call named it, no route of the node leads to it, and the "
    "container runtime has no record of its sandbox; restart the pod"
)


@dataclass(frozen=True, slots=True)
class Links:
    """The interfaces of the agent's network namespace."""

    by_name: Mapping[str, int]
    numbers: frozenset[int]
    locate: Callable[[Iterable[str]], int | None] = lambda _: None
    """The interface behind which a pod with these addresses is."""
    recorded: Callable[[Pod], int | None] = lambda _: None
    """The interface behind which a pod is by the records of the container runtime."""
    strangers: Callable[[Sequence[str]], frozenset[int]] = lambda _: frozenset()
    """All that can be pods', of those with names like these."""
    leads_away: Callable[[int], bool] = lambda _: True
    """Whether a pod can be behind an interface: a veth into another network namespace."""
    mac_behind: Callable[[int], str] = lambda _: ""
    """The MAC of the other end of a veth; empty if unknown."""


def links(records: Path = sandboxes.CACHE) -> Links:
    """All of them; what is behind them is looked up on first use."""
    by_name = {name: number for number, name in socket.if_nameindex()}

    @cache
    def behind() -> list[Link]:
        with netlink() as asked:
            return asked.links()

    def leads_away(ifindex: int) -> bool:
        return any(link.ifindex == ifindex and is_of_pod(link) for link in behind())

    def mac_behind(ifindex: int) -> str:
        with netlink() as asked:
            return next((asked.mac_behind(k) for k in behind() if k.ifindex == ifindex), "")

    def recorded(pod: Pod) -> int | None:
        return sandboxes.locate(records, pod.key, pod.uid, frozenset(pod.ips), behind())

    def strangers(patterns: Sequence[str]) -> frozenset[int]:
        return frozenset(link.ifindex for link in behind() if looks_like_pod(link, patterns))

    return Links(
        by_name,
        frozenset(by_name.values()),
        locate=lambda ips: locate(ips, behind()),
        recorded=recorded,
        strangers=strangers,
        leads_away=leads_away,
        mac_behind=mac_behind,
    )


class Residents:
    """See the module; everything here is called by the agent's loop alone."""

    def __init__(self, node: str, ask: Callable[[], Links] = links) -> None:
        self._node = node
        self._ask = ask
        self.pods: dict[str, Pod] = {}
        """Local pods on the pod network, as their source has them."""
        self.interfaces: dict[str, int] = {}
        self.missing: dict[str, str] = {}
        """Local pods without interface, and why; pods without a sandbox do not count."""
        self.present: frozenset[int] = frozenset()
        """The interfaces that were there at the last look."""
        self._names: Mapping[str, int] = {}
        self._attachments: dict[str, tuple[Attachment, ...]] = {}
        self._arrivals: dict[str, Attachment] = {}
        self._holder: dict[int, str] = {}
        """Interface -> the pod that has it."""
        self._found: dict[str, tuple[int, str, tuple[str, ...]]] = {}
        """Pods that were found by their addresses: interface, UID and addresses."""
        self._named: set[str] = set()
        """Pods that are where their annotation says."""

    def follow(self, changes: Iterable[InputChange]) -> Iterator[InputChange]:
        """The same changes, as they are on this node."""
        present: Links | None = None
        for change in changes:
            if not isinstance(change, PodChange) or not self._concerns(change):
                yield change
                continue
            if present is None:
                present = self._ask()
            if change.pod is not None and is_local(change.pod, self._node):
                self.pods[change.key] = change.pod
                yield PodChange(change.key, self._addressed(change.pod))
            else:
                self.pods.pop(change.key, None)
                self._found.pop(change.key, None)
                self._named.discard(change.key)
                yield change
            yield from self._settle(change.key, present)

    def attach(self, attachments: Iterable[Attachment]) -> Iterator[InputChange]:
        """All attachments as they are now."""
        found: dict[str, tuple[Attachment, ...]] = {}
        for attachment in attachments:
            found[attachment.key] = (*found.get(attachment.key, ()), attachment)
        before = self._attachments
        changed = [k for k in {**before, **found} if before.get(k) != found.get(k)]
        if not changed:
            return
        told = {key: self._addressed(self.pods[key]) for key in changed if key in self.pods}
        self._attachments = found
        present = self._ask()
        for key in changed:
            if key in told:
                pod = self._addressed(self.pods[key])
                if pod.ips != told[key].ips:
                    yield PodChange(key, pod)
            yield from self._settle(key, present)

    def look_again(self) -> Iterator[InputChange]:
        """Interfaces came and went unannounced; pods without one may have one now."""
        before, present = self._names, self._look()
        for key in list(self.pods if before != present.by_name else self.missing):
            yield from self._settle(key, present)

    def unclaimed(self, patterns: Sequence[str]) -> frozenset[int]:
        """The interfaces with such names that may belong to pods and to no known one."""
        attached = {a.ifindex for found in self._attachments.values() for a in found}
        return self._ask().strangers(patterns) - self._holder.keys() - attached

    def _look(self) -> Links:
        present = self._ask()
        self._names, self.present = present.by_name, present.numbers
        return present

    def _concerns(self, change: PodChange) -> bool:
        return change.key in self.pods or (
            change.pod is not None and is_local(change.pod, self._node)
        )

    def _attachment(self, pod: Pod) -> Attachment | None:
        """The latest that is this pod's and not that of one with the same name."""
        own = (
            found
            for found in reversed(self._attachments.get(pod.key, ()))
            if not found.uid or not pod.uid or found.uid == pod.uid
        )
        return next(own, None)

    def _addressed(self, pod: Pod) -> Pod:
        """As its network was made: a status may still have the addresses of an older sandbox."""
        attachment = self._attachment(pod)
        if attachment is None or attachment.ips in ((), pod.ips):
            return pod
        return replace(pod, ips=attachment.ips)

    def _settle(self, key: str, present: Links) -> Iterator[InputChange]:
        """What became of the interface of one pod."""
        pod = self.pods.get(key)
        index, why = (None, "") if pod is None else self._find(pod, present)
        yield from self._arrival(key, pod)
        self.missing.pop(key, None)
        if why:
            self.missing[key] = why
        before = self.interfaces.get(key)
        if before == index:
            return
        if before is not None:
            del self.interfaces[key]
            del self._holder[before]
        if index is not None:
            loser = self._holder.get(index)
            if loser is not None:
                del self.interfaces[loser]
                self._named.discard(loser)
                self.missing[loser] = f"its interface now belongs to {key}"
                yield InterfaceChange(loser, None)
            self.interfaces[key] = index
            self._holder[index] = key
        mac = present.mac_behind(index) if index is not None else ""
        yield InterfaceChange(key, index, mac)

    def _find(self, pod: Pod, present: Links) -> tuple[int | None, str]:
        self._named.discard(pod.key)
        attachment = self._attachment(pod)
        if attachment is not None:
            if attachment.ifindex in present.numbers:
                return attachment.ifindex, ""
            return None, f"its interface {attachment.ifindex} is gone"
        located = self._located(pod, present)
        if located is not None:
            return located, ""
        return self._annotated(pod, present)

    def _annotated(self, pod: Pod, present: Links) -> tuple[int | None, str]:
        name = pod.annotations.get(INTERFACE_ANNOTATION, "")
        if not name and not pod.ips:
            return None, ""  # it has no sandbox yet: there is nothing to enforce
        if not name:
            return None, UNKNOWN
        index = present.by_name.get(name)
        if index is None:
            return None, f"no interface {name} in the agent's network namespace"
        if not present.leads_away(index):
            return None, f"interface {name} is not a veth into another network namespace"
        holder = self._holder.get(index, pod.key)
        if holder != pod.key:
            return None, f"interface {name} already belongs to {holder}"
        self._named.add(pod.key)
        return index, ""

    def _located(self, pod: Pod, present: Links) -> int | None:
        """Where the pod's addresses are, unless they are another pod's too; it does not move."""
        before = self.interfaces.get(pod.key)
        if before in present.numbers and self._found.get(pod.key) == (before, pod.uid, pod.ips):
            return before
        index = present.locate(pod.ips) if pod.ips else None
        if index is None and pod.ips:
            index = present.recorded(pod)
        holder = pod.key if index is None else self._holder.get(index, pod.key)
        if index is None or (holder != pod.key and holder not in self._named):
            self._found.pop(pod.key, None)
            return None
        self._found[pod.key] = (index, pod.uid, pod.ips)
        return index

    def _arrival(self, key: str, pod: Pod | None) -> Iterator[InputChange]:
        found = self._attachments.get(key, ()) if pod is None else ()
        latest = found[-1] if found else None
        if self._arrivals.get(key) == latest:
            return
        if latest is None:
            del self._arrivals[key]
        else:
            self._arrivals[key] = latest
        yield ArrivalChange(key, latest)
