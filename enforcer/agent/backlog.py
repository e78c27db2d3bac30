"""Policies with long lists of blocks wait until nothing else does, and come in small steps.

The agent's loop passes all changes through. Compiling such a policy takes as long as hundreds of
other changes, and an author of many would make all pods of the node wait for each. So its blocks
are brought into the map of prefixes first, some at a time, while no rule uses them; the policy
itself is then one short change, without a mixed moment. What it named before goes in the same way
afterwards. Those that wait are taken in one at a time, of one tenant after the other, and after
each step other changes have as much time as it took; but a pod of this node takes those of its
namespace along at once, so that none ever starts without its policies; and a policy that is gone is
out of force at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import (
    ArrivalChange,
    BlocksChange,
    InputChange,
    InterfaceChange,
    PodChange,
    PolicyChange,
    is_local,
)
from enforcer.policy.rulebook import WHOLE_CLUSTER
from enforcer.writes.budgets import NOBODY
from generators.objects import BlockList, Direction, NetworkPolicy, namespace_of

LONG = 500
"""Prefixes of a policy that is worth waiting with."""
STEP = 100
"""Blocks that come or go at once."""
LATEST_SECONDS = 2.0
"""The longest wait of the first tenant for its turn."""
STEP_SECONDS = 0.05
"""The same for the next step of a tenant that had a turn."""


class Backlog:
    """The policies that wait for the compiler; `now` is a monotonic clock in seconds."""

    def __init__(self, node: str, compiler: Compiler) -> None:
        self._node = node
        self._compiler = compiler
        self._waiting: dict[str, PolicyChange] = {}
        self._turns: dict[str, int] = {}
        """Tenant -> its latest turn since any tenant began to wait."""
        self._coming: PolicyChange | None = None
        """The waiting one whose blocks are being taken in."""
        self._lists: tuple[BlockList, ...] = ()
        """Its lists, as far as it has to wait for them."""
        self._tries = compiler.tries
        self._came = False
        self._since = 0.0
        self._not_before = 0.0

    def admit(self, changes: Iterable[InputChange], now: float) -> tuple[InputChange, ...]:
        """What is to be taken in now."""
        self._tries.lingering = True  # whoever asks goes on asking, and lets them go
        admitted: list[InputChange] = []
        for change in changes:
            if isinstance(change, PolicyChange):
                self._waiting.pop(change.key, None)
                if change.policy is not None and _is_long(change.policy):
                    self._since = self._since if self._is_busy else now
                    self._waiting[change.key] = change
                    self._came = True
                    continue
            else:
                admitted += self._of(self._starting(change))
            admitted.append(change)
        rested = not admitted and now >= self._not_before
        if self._is_busy and (rested or now >= self._since + self._patience):
            admitted += self._step()
            self._since = now
        return tuple(admitted)

    def took(self, changes: tuple[InputChange, ...], began: float, now: float) -> bool:
        """These have been taken in and written since `began`; whether a long policy was among them,
        or came since the last time.
        """
        policies = [c.policy for c in changes if isinstance(c, PolicyChange)]
        long = any(policy is not None and _is_long(policy) for policy in policies)
        if long or any(isinstance(change, BlocksChange) for change in changes):
            self._not_before = now + min(now - began, LATEST_SECONDS)
        came, self._came = self._came, False
        return long or came

    def due(self, now: float, latest: float) -> float:
        """Seconds until the next turn of a waiting tenant; `latest` at most."""
        if not self._is_busy:
            return latest
        return max(0.0, min(self._not_before - now, self._since + self._patience - now, latest))

    @property
    def _is_busy(self) -> bool:
        return bool(self._waiting or self._tries.held)

    @property
    def _patience(self) -> float:
        return STEP_SECONDS if self._tries.held else LATEST_SECONDS

    def _step(self) -> Iterable[InputChange]:
        """Some blocks more or less, or a policy whose blocks are all there."""
        if self._coming is None or self._waiting.get(self._coming.key) is not self._coming:
            self._coming = None
            if going := self._going():
                return going
            if not self._waiting:
                return ()
            self._coming = self._next()
            policy = self._coming.policy
            needed = policy is not None and self._compiler.needs_blocks(policy)
            self._lists = tuple(_lists(policy)) if policy is not None and needed else ()
        trie = self._compiler.trie_of(namespace_of(self._coming.key))
        for blocks in self._lists:
            there, whole = self._tries.count(trie, blocks), len(blocks.blocks)
            if there < whole:
                return [BlocksChange(trie, blocks, min(whole, there + STEP))]
            if self._tries.held.get((trie, blocks), whole) < whole:
                # It goes out of use just now.
                return [BlocksChange(trie, blocks, whole)]
        taken, self._coming = self._coming, None
        return [self._waiting.pop(taken.key)]

    def _going(self) -> list[BlocksChange]:
        """Release held blocks step by step; those that a policy in force names stay."""
        held = self._tries.held
        if named := [place for place in held if self._tries.is_named(*place)]:
            return [BlocksChange(*place, 0) for place in named]
        for place, count in held.items():
            return [BlocksChange(*place, max(0, count - STEP))]
        return []

    def _next(self) -> PolicyChange:
        """The oldest one of the tenant that has waited longest for a turn."""
        if len(self._waiting) == 1:
            self._turns.clear()
        key = min(self._waiting, key=lambda key: self._turns.get(self._owner(key), 0))
        self._turns[self._owner(key)] = max(self._turns.values(), default=0) + 1
        return self._waiting[key]

    def _owner(self, policy: str) -> str:
        return self._compiler.known.record.get(namespace_of(policy), NOBODY)

    def _starting(self, change: InputChange) -> str:
        """The namespace of a pod of this node that a change is about."""
        match change:
            case InterfaceChange(key, _) | ArrivalChange(key, _):
                return key.partition("/")[0]
            case PodChange(_, pod) if pod is not None and is_local(pod, self._node):
                return pod.namespace
        return ""

    def _of(self, namespace: str) -> list[PolicyChange]:
        """Those that may be about a pod that starts in a namespace."""
        homes = (namespace, WHOLE_CLUSTER) if namespace else ()
        found = [c for k, c in self._waiting.items() if namespace_of(k) in homes]
        for change in found:
            del self._waiting[change.key]
        return found


def _lists(policy: NetworkPolicy) -> Iterable[BlockList]:
    rules = (rule for direction in Direction for rule in policy.rules(direction))
    return dict.fromkeys(blocks for rule in rules for blocks in rule.block_lists)


def _is_long(policy: NetworkPolicy) -> bool:
    return sum(len(blocks.prefixes) for blocks in _lists(policy)) > LONG
