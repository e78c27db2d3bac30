"""Policies with long lists of blocks wait until nothing else does.

The agent's loop passes all changes through. Compiling such a policy takes as long as hundreds of
other changes, and whoever writes one after the other would have all pods of the node wait for each.
What may surprise: those that wait are taken in one at a time, of one tenant after the other, and
after each of them as long a time as it took belongs to everybody else; but a pod of this node takes
those of its namespace along at once, so that none ever starts without its policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enforcer.policy.changes import (
    ArrivalChange,
    InputChange,
    InterfaceChange,
    PodChange,
    PolicyChange,
)
from enforcer.policy.endpoints import is_local
from enforcer.writes.budgets import prefixes_of
from generators.objects import Direction, NetworkPolicy

LONG = 500
"""Prefixes of a policy that is worth waiting with."""
LATEST_SECONDS = 2.0
"""Whoever is first has to wait no longer than that for a turn."""


class Backlog:
    """The policies that wait; `now` is a monotonic clock in seconds, `tenant_of` asks whose a
    namespace is.
    """

    def __init__(self, node: str, tenant_of: Callable[[str], str]) -> None:
        self._node = node
        self._tenant_of = tenant_of
        self._waiting: dict[str, PolicyChange] = {}
        self._turns: dict[str, int] = {}
        """Tenant -> its latest turn, of those since somebody began to wait."""
        self._since = 0.0
        self._not_before = 0.0

    def admit(self, changes: Iterable[InputChange], now: float) -> tuple[InputChange, ...]:
        """What is to be taken in now."""
        admitted: list[InputChange] = []
        for change in changes:
            if isinstance(change, PolicyChange):
                self._waiting.pop(change.key, None)
                if change.policy is not None and _is_long(change.policy):
                    self._since = self._since if self._waiting else now
                    self._waiting[change.key] = change
                    continue
            else:
                admitted += self._of(self._starting(change))
            admitted.append(change)
        rested = not admitted and now >= self._not_before
        if self._waiting and (rested or now >= self._since + LATEST_SECONDS):
            admitted.append(self._next())
            self._since = now
        return tuple(admitted)

    def took(self, changes: Iterable[InputChange], began: float, now: float) -> None:
        """These have been taken in and written since `began`."""
        if any(isinstance(c, PolicyChange) and c.policy and _is_long(c.policy) for c in changes):
            self._not_before = now + min(now - began, LATEST_SECONDS)

    def due(self, now: float, latest: float) -> float:
        """Seconds until somebody who waits has a turn; `latest` at most."""
        if not self._waiting:
            return latest
        return max(0.0, min(self._not_before - now, self._since + LATEST_SECONDS - now, latest))

    def _next(self) -> PolicyChange:
        """The oldest one of whoever has waited longest for a turn."""
        key = min(self._waiting, key=lambda key: self._turns.get(self._owner(key), 0))
        self._turns[self._owner(key)] = max(self._turns.values(), default=0) + 1
        found = self._waiting.pop(key)
        if not self._waiting:
            self._turns.clear()
        return found

    def _owner(self, policy: str) -> str:
        return self._tenant_of(policy.partition("/")[0])

    def _starting(self, change: InputChange) -> str:
        """The namespace of a pod of this node that a change is about."""
        match change:
            case InterfaceChange(key, _) | ArrivalChange(key, _):
                return key.partition("/")[0]
            case PodChange(_, pod) if pod is not None and is_local(pod, self._node):
                return pod.namespace
        return ""

    def _of(self, namespace: str) -> list[PolicyChange]:
        found = [c for k, c in self._waiting.items() if k.partition("/")[0] == namespace]
        for change in found:
            del self._waiting[change.key]
        return found


def _is_long(policy: NetworkPolicy) -> bool:
    return sum(len(prefixes_of(policy, direction)) for direction in Direction) > LONG
