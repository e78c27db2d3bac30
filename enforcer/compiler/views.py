"""Mappings that show what the agent's loop keeps, without a copy, to readers in other threads.

`State` is made of them. Each look at a value is as of now; walking over one takes the keys at once,
so that a change meanwhile never breaks the walk, and leaves out what is gone by then.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

from enforcer.policy.buckets import EMPTY, Bucket
from enforcer.policy.tables import PolicyKey, RangeKey
from enforcer.writes.pending import Layer, PendingTables
from generators.objects import namespace_of

K = TypeVar("K")
V = TypeVar("V")


class _Items(ItemsView[K, V]):
    """Pairs that still exist."""

    _mapping: Mapping[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        for key in self._mapping:
            try:
                value = self._mapping[key]
            except KeyError:
                continue
            yield key, value


class _Values(ValuesView[V]):
    """The same without keys."""

    _mapping: Mapping[object, V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in _Items(self._mapping))


class Shown(Mapping[K, V], Generic[K, V]):
    """What others change while it is walked over."""

    def items(self) -> ItemsView[K, V]:
        """Pairs; nothing for a key that goes meanwhile."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Values; nothing for a key that goes meanwhile."""
        return _Values(self)


class Live(Shown[K, V]):
    """A dict that another thread changes."""

    def __init__(self, values: Mapping[K, V]) -> None:
        self._values = values

    def __getitem__(self, key: K) -> V:
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[K]:
        # One call into C holds the interpreter's lock: nobody can write in between.
        return iter(list(self._values))


class Computed(Shown[K, V]):
    """Values that are made when they are asked for."""

    def __init__(self, make: Mapping[K, Callable[[], V]]) -> None:
        self._make = make

    def __getitem__(self, key: K) -> V:
        return self._make[key]()

    def __len__(self) -> int:
        return len(self._make)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._make))


class Nested(Shown[str, V]):
    """Policies by key, which are kept by namespace."""

    def __init__(self, values: Mapping[str, Mapping[str, V]]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> V:
        return self._values[namespace_of(key)][key]

    def __len__(self) -> int:
        return sum(len(near) for near in list(self._values.values()))

    def __iter__(self) -> Iterator[str]:
        for near in list(self._values.values()):
            yield from list(near)


class InForce(Shown[K, V]):
    """A map as the kernel holds it, also while a change is being written or was refused."""

    def __init__(self, layer: Layer[K, V]) -> None:
        self._layer = layer

    def __getitem__(self, key: K) -> V:
        value = self._layer.in_force(key)
        if value is None:
            raise KeyError(key)
        return value

    def __len__(self) -> int:
        return sum(1 for _ in self) if self._layer.was else len(self._layer.now)

    def __iter__(self) -> Iterator[K]:
        now, was = list(self._layer.now), dict(self._layer.was)
        if not was:
            return iter(now)
        kept = [key for key in now if key not in was]
        return iter([*kept, *(key for key, value in was.items() if value is not None)])


class _Entries(Shown[K, int]):
    """Entries of policies as the kernel holds them, out of the buckets that they are kept in."""

    def __init__(self, ledger: PendingTables) -> None:
        self._ledger = ledger
        self._buckets = InForce(ledger.buckets)


class ExactEntries(_Entries[PolicyKey]):
    """With an exact port."""

    def __getitem__(self, key: PolicyKey) -> int:
        bucket = self._buckets.get((key.group, key.peer), EMPTY)
        return bucket.policy[key.port, key.protocol, key.direction]

    def __len__(self) -> int:
        if self._ledger.buckets.was:
            return sum(len(bucket.policy) for bucket in _held(self._buckets))
        return self._ledger.exact

    def __iter__(self) -> Iterator[PolicyKey]:
        for place in self._buckets:
            for key, _ in self._buckets.get(place, EMPTY).policy_entries(*place):
                yield key


class RangeEntries(_Entries[RangeKey]):
    """With a range of ports."""

    def __getitem__(self, key: RangeKey) -> int:
        bucket = self._buckets.get((key.group, key.peer), EMPTY)
        return bucket.ranges[key.protocol, key.direction, key.port, key.length]

    def __len__(self) -> int:
        if self._ledger.buckets.was:
            return sum(len(bucket.ranges) for bucket in _held(self._buckets))
        return self._ledger.ranged

    def __iter__(self) -> Iterator[RangeKey]:
        for place in self._buckets:
            for key, _ in self._buckets.get(place, EMPTY).range_entries(*place):
                yield key


def _held(buckets: Mapping[tuple[int, int], Bucket]) -> Iterator[Bucket]:
    return (buckets.get(place, EMPTY) for place in buckets)
