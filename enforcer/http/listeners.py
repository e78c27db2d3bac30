"""At which port the proxy listens for which rule set, as values.

A listener belongs to the policies' rules that its set joins, not to what they say: when expressions
change, connections stay where they are and only routes change. One that is not wanted any more
stays for a while, with all numbers that entries had for it, because connections outlive the
entries that let them in; whether they may go on is judged in the kernel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from generators.errors import Refused
from generators.http import RuleSet
from generators.objects import namespace_of

FIRST, LAST = 1024, 19_999
"""Ports of listeners; the proxy's own connections begin at those from 20,000 on."""
NUMBERS_KEPT = 64
"""Of one listener, the latest: what its set was called in entries."""
KEPT_SECONDS = 300.0
"""For so long a listener stays that nothing wants."""
KEPT_OF_A_NAMESPACE = 64
"""So many of these stay, the latest: who renames policies all day takes no other tenant's ports."""


class NoListenerLeft(Refused):
    """More rule sets than ports; the excess is closed."""

    def __init__(self, left_out: int) -> None:
        super().__init__(
            f"HTTP rules of {left_out} rule sets find no listener, and are closed: a node has "
            f"{LAST - FIRST + 1}; join rules that differ from pod to pod, or spread the pods"
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """One rule set at its port."""

    port: int
    rule_set: RuleSet
    numbers: tuple[int, ...]
    """Of entries that lead here, the latest last."""
    unwanted_since: float | None = None
    """By a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """All of a node; immutable."""

    by_key: Mapping[str, Listener] = field(default_factory=dict)
    left_out: int = 0
    """Rule sets that found no port."""

    @property
    def rule_sets(self) -> Mapping[int, RuleSet]:
        """What is judged at each port."""
        found = sorted(self.by_key.values(), key=attrgetter("port"))
        return {listener.port: listener.rule_set for listener in found}

    @property
    def ports(self) -> Mapping[int, int]:
        """Number of a rule in entries -> port."""
        return {number: found.port for found in self.by_key.values() for number in found.numbers}

    def following(self, wanted: Mapping[int, RuleSet], now: float) -> Listeners:
        """With listeners for all these rule sets, by the numbers of entries."""
        by_key: dict[str, Listener] = {}
        free = _free(self.by_key.values())
        left_out = 0
        for number, rule_set in sorted(wanted.items(), reverse=True):
            key = key_of(rule_set)
            if key in by_key and by_key[key].rule_set != rule_set:
                key = f"{key}-{rule_set.id}"
            known = by_key.get(key) or self.by_key.get(key)
            if known is None:
                port = next(free, None)
                if port is None:
                    left_out += 1
                    continue
                known = Listener(port, rule_set, ())
            numbers = (*(n for n in known.numbers if n != number), number)[-NUMBERS_KEPT:]
            by_key[key] = Listener(known.port, rule_set, numbers)
        return Listeners({**by_key, **self._lingering(by_key, now)}, left_out)

    def _lingering(self, wanted: Container[str], now: float) -> Mapping[str, Listener]:
        """What is not wanted any more and stays for a while."""
        found: dict[str, list[tuple[float, str]]] = {}
        for key, listener in self.by_key.items():
            since = now if listener.unwanted_since is None else listener.unwanted_since
            if key not in wanted and now - since < KEPT_SECONDS:
                home = namespace_of(listener.rule_set.rule) if listener.rule_set.rules else key
                found.setdefault(home, []).append((since, key))
        latest = (
            each for of_home in found.values() for each in sorted(of_home)[-KEPT_OF_A_NAMESPACE:]
        )
        return {key: replace(self.by_key[key], unwanted_since=since) for since, key in latest}

    def to_json(self) -> bytes:
        """What the next agent is to know: which port is whose."""
        kept = {key: listener.port for key, listener in self.by_key.items()}
        return json.dumps(kept, sort_keys=True).encode()


def ports_of(text: bytes) -> Mapping[str, int]:
    """Keys and ports as an agent kept them; nothing of what cannot be read."""
    try:
        read = json.loads(text)
        return {str(k): int(p) for k, p in read.items() if FIRST <= int(p) <= LAST}
    except (ValueError, TypeError, AttributeError):
        return {}


def remembered(ports: Mapping[str, int], entries: Mapping[int, int], now: float) -> Listeners:
    """Listeners of an agent before this one, with the entries in force: numbers by port.

    Each port stays its own's, and lets no request pass until its rules are known again.
    """
    nothing = RuleSet("", "", ())
    by_port: dict[int, list[int]] = {}
    for number, port in sorted(entries.items()):
        by_port.setdefault(port, []).append(number)
    return Listeners(
        {key: Listener(p, nothing, tuple(by_port.get(p, ())), now) for key, p in ports.items()}
    )


def key_of(rule_set: RuleSet) -> str:
    """The same for all that a set's rules may come to say."""
    places = dict.fromkeys(name.partition(".rules.")[0] for name, _ in rule_set.rules)
    text = "\n".join((rule_set.direction, rule_set.rule, *places))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def _free(taken: Iterable[Listener]) -> Iterator[int]:
    ports = {listener.port for listener in taken}
    return iter(port for port in range(FIRST, LAST + 1) if port not in ports)
