"""What policies have made, by the trigger that it was made for and by what it is a copy of.

Kept from the marks on live objects, by the watch threads; read by the workers.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import NewType

from generators.documents.json import Key, ObjectKey, ObjectKind
from generators.kube.resources import Resource
from webhook.background.stored import GeneratedObject

TriggerName = NewType("TriggerName", ObjectKey)
"""One trigger, whatever version it is asked in: the unit of work."""


def name_of(key: ObjectKey) -> TriggerName:
    """The name of an object as a trigger."""
    return TriggerName(key.any_version)


def object_key(resource: Resource, key: Key) -> ObjectKey:
    """The same name as rules write it."""
    return ObjectKey(
        ObjectKind(resource.group, resource.version, resource.kind), key.namespace, key.name
    )


@dataclass(frozen=True, slots=True)
class GeneratedEntry:
    """One made object and where it is."""

    resource: Resource
    key: Key
    item: GeneratedObject


_Place = tuple[Resource, Key]


class GeneratedIndex:
    """An index; `note` after every change of a made object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[_Place, GeneratedObject] = {}
        self._by_trigger: dict[TriggerName, set[_Place]] = defaultdict(set)
        self._by_source: dict[TriggerName, set[_Place]] = defaultdict(set)

    def note(self, resource: Resource, key: Key, item: GeneratedObject | None) -> set[TriggerName]:
        """Take over what an object is now; the triggers that it belongs or belonged to."""
        place = (resource, key)
        concerned: set[TriggerName] = set()
        with self._lock:
            before = self._items.pop(place, None)
            if before is not None:
                concerned.add(self._drop(place, before))
            if item is not None:
                self._items[place] = item
                trigger = name_of(item.mark.owner.trigger)
                self._by_trigger[trigger].add(place)
                concerned.add(trigger)
                if item.mark.source is not None:
                    self._by_source[name_of(item.mark.source)].add(place)
        return concerned

    def _drop(self, place: _Place, item: GeneratedObject) -> TriggerName:
        trigger = name_of(item.mark.owner.trigger)
        sources = [(self._by_trigger, trigger)]
        if item.mark.source is not None:
            sources.append((self._by_source, name_of(item.mark.source)))
        for index, name in sources:
            index[name].discard(place)
            if not index[name]:
                del index[name]
        return trigger

    def of(self, trigger: TriggerName) -> tuple[GeneratedEntry, ...]:
        """Everything that was made for a trigger, in a fixed order."""
        with self._lock:
            places = self._by_trigger.get(trigger, ())
            found = [GeneratedEntry(r, key, self._items[r, key]) for r, key in places]
        return tuple(sorted(found, key=lambda f: (str(f.resource), f.key)))

    def copies_of(self, source: TriggerName) -> set[TriggerName]:
        """The triggers for which an object was copied."""
        with self._lock:
            places = self._by_source.get(source, ())
            return {name_of(self._items[place].mark.owner.trigger) for place in places}

    def triggers(self) -> set[TriggerName]:
        """All triggers for which something was made."""
        with self._lock:
            return set(self._by_trigger)

    def keep_only(self, resources: frozenset[Resource]) -> None:
        """Other kinds are not followed any more."""
        with self._lock:
            for place in [p for p in self._items if p[0] not in resources]:
                self._drop(place, self._items.pop(place))

    def __len__(self) -> int:
        return len(self._items)
