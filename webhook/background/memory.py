"""Since when each rule counts, in ConfigMap `ringfence-policies`: facts that marks cannot hold.

Four facts for each rule, none for each trigger, so that it stays small in a large cluster:

    introduced   triggers that have not changed since are older than the rule, and no business of
                 one without generateExisting
    done         every trigger that was changed before has had what is made once, so that what
                 was deleted since stays deleted
    pattern      the rule as it was then: an edit of one with generateExisting runs it again
    former       what it was before: which copies are older than an edit, and stay as they are

The first two are resourceVersions, which the API server only ever counts up. And one fact for each
kind:

    noted        the second, by the API server's clock, since when the webhook notes the creators of
                 its objects; in older objects anyone may have written it

Written by the leader, rarely, and restored when deleted or edited. A ConfigMap of that name that
belongs to someone else is neither read nor written; `problem` reports it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import orjson

from generators.documents.json import Document, mapping, text
from generators.kube.client import Client, DryRun
from generators.kube.resources import CONFIG_MAPS, Resource
from webhook.background.needs import RuleName
from webhook.kept import MEMORY_NAME, Content, KeptObject
from webhook.settings import FIELD_MANAGER

ALWAYS = 0
MOST_FORMER = 8
LOOK_SECONDS = 10.0
"""How often it is read back, to notice edits."""


@dataclass(frozen=True, slots=True)
class Since:
    """What is remembered of one rule."""

    introduced: int
    done: int
    pattern: str
    former: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A rule as it is in force now."""

    name: RuleName
    existing: bool
    pattern: str
    version: int
    """The moment from which it counts, when it is new."""


class Memory:
    """`load` when leading begins; then one thread changes it and any thread reads."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._kept = KeptObject(client, CONFIG_MAPS, namespace, MEMORY_NAME)
        self._rules: Mapping[RuleName, Since] = {}
        self._kinds: frozenset[Resource] = frozenset()
        self._noted: Mapping[Resource, str] = {}
        self._written: Mapping[str, str] | None = None
        self._read_at = 0.0
        self.problem = ""
        """Why nothing outlives the leader; empty when it does."""

    def load(self) -> None:
        """Take over what the last leader wrote; something unreadable counts as nothing."""
        live = self._kept.read()
        data = live.data if self._is_ours(live) else {}
        self._written = data or None
        self._rules = dict(_rules(data.get("rules", "")))
        self._kinds = frozenset(kind for kind, _ in _kinds(data.get("kinds", "")))
        self._noted = {kind: str(rest[0]) for kind, rest in _kinds(data.get("noted", "")) if rest}

    def since(self, name: RuleName) -> Since:
        """What is known of a rule; one that is not known is not about anything yet."""
        return self._rules.get(name, _UNKNOWN)

    @property
    def kinds(self) -> frozenset[Resource]:
        """Kinds of which policies have made objects, including rules that no longer exist."""
        return self._kinds

    def introduce(self, rules: Iterable[Newcomer], *, complete: bool) -> None:
        """Take note of the rules in force; others are forgotten where these are `complete`."""
        found: dict[RuleName, Since] = {} if complete else dict(self._rules)
        for rule in rules:
            known = self._rules.get(rule.name)
            start = ALWAYS if rule.existing else rule.version
            if known is None:
                found[rule.name] = Since(start, start, rule.pattern)
            elif rule.existing and known.pattern != rule.pattern:
                found[rule.name] = Since(ALWAYS, ALWAYS, rule.pattern, _former(known, rule))
            else:
                introduced = ALWAYS if rule.existing else known.introduced
                found[rule.name] = Since(introduced, known.done, rule.pattern, _former(known, rule))
        self._rules = found

    def had(self, name: RuleName, pattern: str) -> bool:
        """Whether a rule once had a pattern of this digest, and has another one now."""
        return pattern in self.since(name).former

    def follow(self, kinds: Iterable[Resource]) -> None:
        """These kinds have to be looked at after a restart."""
        self._kinds = frozenset(kinds)

    def noted(self, resource: Resource) -> str:
        """Since when creators of such objects are noted; empty = they are not."""
        return self._noted.get(resource, "")

    def note(self, resources: frozenset[Resource], now: str) -> None:
        """From now on the webhook notes the creators of objects of these kinds."""
        self._noted = {**dict.fromkeys(resources, now), **self._noted}

    def forget_noted(self, others_than: frozenset[Resource]) -> None:
        """Stop noting creators of all other kinds; a kind that returns later starts from
        scratch."""
        self._noted = {kind: at for kind, at in self._noted.items() if kind in others_than}

    def clock(self) -> str:
        """The API server's present second, as it would write it on an object made now."""
        document: Document = {
            "metadata": {"name": f"{MEMORY_NAME}-clock", "namespace": self._namespace}
        }
        made = self._client.create(CONFIG_MAPS, document, manager=FIELD_MANAGER, dry_run=DryRun.ALL)
        return text(mapping(made, "metadata"), "creationTimestamp")

    def advance(self, name: RuleName, version: int) -> None:
        """All triggers up to this version have had what the rule makes once."""
        known = self._rules.get(name)
        if known is not None and known.done < version:
            self._rules = {**self._rules, name: replace(known, done=version)}

    def save(self) -> None:
        """Write it if it differs from what was written; from time to time that is read back."""
        data = {
            "rules": orjson.dumps(
                {
                    "/".join((policy.replace("/", "."), rule)): [policy, rule, *_facts(since)]
                    for (policy, rule), since in sorted(self._rules.items())
                }
            ).decode(),
            "kinds": orjson.dumps([_spelled(r) for r in sorted(self._kinds, key=str)]).decode(),
        }
        if self._noted:
            noted = [[*_spelled(r), self._noted[r]] for r in sorted(self._noted, key=str)]
            data["noted"] = orjson.dumps(noted).decode()
        now = time.monotonic()
        same = data == self._written and now - self._read_at < LOOK_SECONDS
        if same or (not self._rules and not self._kinds and not self._written):
            return
        self._read_at = now
        live = self._kept.read()
        if self._is_ours(live):
            self._kept.write(data, live)
            self._written = data

    def _is_ours(self, live: Content) -> bool:
        """Whether the object may be read and replaced: it says that this controller keeps it."""
        lost = "what policies made once is not remembered; rename it"
        self.problem = "" if live.ours else f"{self._kept} is not the controller's: {lost}"
        return live.ours


_UNKNOWN = Since(introduced=1 << 63, done=1 << 63, pattern="")


def _former(known: Since, rule: Newcomer) -> tuple[str, ...]:
    if known.pattern == rule.pattern:
        return known.former
    others = (each for each in known.former if each not in (known.pattern, rule.pattern))
    return (*others, known.pattern)[-MOST_FORMER:]


def _facts(since: Since) -> tuple[int | str, ...]:
    return since.introduced, since.done, since.pattern, *since.former


def _rules(written: str) -> Iterable[tuple[RuleName, Since]]:
    for policy, rule, introduced, done, pattern, *former in _entries(written):
        since = Since(_number(introduced), _number(done), str(pattern), (*map(str, former),))
        yield (str(policy), str(rule)), since


def _spelled(kind: Resource) -> list[str | bool]:
    return [kind.group, kind.version, kind.plural, kind.kind, kind.namespaced]


def _kinds(written: str) -> Iterable[tuple[Resource, list[object]]]:
    """Each kind, with whatever is written behind it."""
    for group, version, plural, kind, namespaced, *rest in _entries(written):
        known = Resource(str(group), str(version), str(plural), str(kind), namespaced is True)
        yield known, rest


def _entries(written: str) -> list[list[object]]:
    try:
        read = orjson.loads(written)
    except orjson.JSONDecodeError:
        return []
    items = list(read.values()) if isinstance(read, dict) else read
    whole = isinstance(items, list) and all(isinstance(i, list) and len(i) >= 5 for i in items)
    return items if whole else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
