"""Identities for people: which pods share a number, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.agent.state import NodeState
from enforcer.answers.request import Json, NotHere
from enforcer.observe.names import IDENTITY_WORLD
from enforcer.observe.shape import RESERVED
from enforcer.policy.tables import (
    FIRST_POD_IDENTITY,
    IDENTITY_UNKNOWN,
    PEER_CIDR,
    PEER_PLACE,
    PEER_TENANT,
    cidr_of,
    place_of,
)
from generators.objects import Pod

ANY = "ANY"
PREFIXES_NAMED = 8
"""Of those that one rule names; there may be thousands."""


class Identities:
    """The identities in use, as of one state."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._pods: dict[int, dict[str, Pod]] = {}
        for address, entry in list(state.tables.addresses.items()):
            pod = state.owners.get(address)
            held = self._pods.setdefault(entry.identity, {})
            if pod is not None:
                held[pod.key] = pod

    def every(self) -> list[Json]:
        """All of them, reserved ones too, by number."""
        numbers = sorted({*self._pods, *RESERVED})
        return [self._document(number) for number in numbers]

    def one(self, name: str) -> Json:
        """One with its pods; NotHere if no pod has it."""
        numbers = {label: str(number) for number, label in RESERVED.items()}
        wanted = numbers.get(name.removeprefix("reserved:"), name)
        if not wanted.isdecimal() or int(wanted) not in {*self._pods, *RESERVED}:
            raise NotHere(f"no identity {name}; see `ringfence identity list`")
        pods = sorted(self._pods.get(int(wanted), {}))
        return {**self._document(int(wanted)), "members": pods}

    def labels(self, number: int) -> list[str]:
        """What all of its pods have in common."""
        if number in RESERVED:
            return [f"reserved:{RESERVED[number]}"]
        pods = list(self._pods.get(number, {}).values())
        return [*_common(pods), *self._common_homes(pods)]

    def peer(self, peer: int) -> list[str]:
        """Whom the peer of a policy entry means."""
        if peer == 0:
            return [ANY]
        tables = self._state.tables
        if peer >= PEER_CIDR:
            cidr, place = cidr_of(peer), place_of(peer)
            where = f" ({_place_text(place)})" if place is not None else ""
            named = [f"cidr:{k.prefix}{where}" for k, e in tables.cidrs.items() if e.cidr == cidr]
            more = len(named) - PREFIXES_NAMED
            return named if more <= 0 else [*named[:PREFIXES_NAMED], f"and {more} more"]
        if peer >= PEER_TENANT:
            number = peer - PEER_TENANT
            return [f"tenant:name={tables.tenants.get(number, f'unknown ({number})')}"]
        if PEER_PLACE <= peer < FIRST_POD_IDENTITY:
            return [f"reserved:{_place_text(peer - PEER_PLACE)}"]
        return self.labels(peer) or [f"identity {peer}, no longer in use"]

    def _document(self, number: int) -> Json:
        pods = self._pods.get(number, {}).values()
        tenants = {self._state.tenants.get(pod.namespace) for pod in pods}
        return {
            "id": number,
            "labels": self.labels(number),
            "tenant": next(iter(tenants)) if len(tenants) == 1 else None,
            "pods": len(pods),
        }

    def _common_homes(self, pods: Iterable[Pod]) -> list[str]:
        namespaces = {pod.namespace for pod in pods}
        found = []
        if len(namespaces) == 1:
            found += [f"k8s:io.kubernetes.pod.namespace={name}" for name in namespaces]
        tenants = {self._state.tenants.get(name) for name in namespaces}
        return found + [f"tenant:name={name}" for name in tenants if name and len(tenants) == 1]


def _common(pods: Iterable[Pod]) -> list[str]:
    shared: Mapping[str, str] | None = None
    for pod in pods:
        if shared is None:
            shared = pod.labels
        else:
            shared = {k: v for k, v in shared.items() if pod.labels.get(k) == v}
    return [f"k8s:{key}={value}" for key, value in sorted((shared or {}).items())]


def _place_text(identity: int) -> str:
    """Who is no pod, by the identity of its addresses."""
    return RESERVED[IDENTITY_WORLD if identity == IDENTITY_UNKNOWN else identity]
