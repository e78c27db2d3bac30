"""Which policies there are, which of them isolate a pod, and which groups that puts into use.

Kept by the compiler. A policy that is deleted while its namespace terminates stays until the
namespace's last pod on this node is gone; namespaces are emptied in any order, and a pod that
outlives its policy must not be open for its last minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from enforcer.policy.groups import Definition, Isolation
from enforcer.policy.identity import Numbering, PeerTerm
from enforcer.policy.numbers import name_of
from enforcer.policy.tables import Dir
from generators.http import policy_rule_of
from generators.isolation.policies import is_ours
from generators.objects import Direction, Labels, NetworkPolicy, Pod, Rule, namespace_of
from generators.selectors import selects

REMEMBERED = 512
"""Groups that are gone and still have their names."""
NOWHERE: frozenset[Direction] = frozenset()
WHOLE_CLUSTER = ""
"""Where policies of the whole cluster are filed."""


def closed(policy: NetworkPolicy, directions: frozenset[Direction]) -> NetworkPolicy:
    """The policy as it is enforced where it finds no room: it isolates and allows nothing.

    One that denies somebody denies everybody.
    """
    if not directions:
        return policy
    ingress, egress = Direction.INGRESS in directions, Direction.EGRESS in directions
    return replace(
        policy,
        directions=policy.directions | directions,
        ingress=_nothing(policy.ingress) if ingress else policy.ingress,
        egress=_nothing(policy.egress) if egress else policy.egress,
    )


def _nothing(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    denying = [rule for rule in rules if rule.deny]
    return (Rule(deny=True, name=denying[0].name),) if denying else ()


class Rulebook:
    """All policies, by namespace."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, NetworkPolicy]] = {}
        self._versions: dict[str, int] = {}
        self._latest = 0
        self._held: dict[str, dict[str, None]] = {}
        """Namespace -> its policies that are gone but still hold."""
        self._closed: dict[str, frozenset[Direction]] = {}
        """Policies that allow nothing in these directions, whatever they say."""
        self.trials: dict[str, NetworkPolicy] = {}
        """Namespace -> the policy that would isolate it, where it is under audit."""
        self._beside: dict[str, None] = {}
        """Namespaces where what users wrote only reports as well."""
        self._replaced: dict[str, NetworkPolicy] = {}
        """Policies that one on trial stands in for."""

    def try_out(
        self, namespace: str, policy: NetworkPolicy | None, *, beside: bool = False
    ) -> bool:
        """Put a policy on trial, in place of the generated one of its name; None ends it.

        `beside`: it counts beside those of users. Whether anything changed. One that a user wrote
        under its name is not replaced.
        """
        if self.trials.get(namespace) == policy and (namespace in self._beside) is beside:
            return False
        self._beside.pop(namespace, None)
        self._beside.update({namespace: None} if beside else {})
        old = self.trials.pop(namespace, None)
        if old is not None and self.written(old.key) is old:
            self._drop(namespace, old.key)
        written = self._replaced.pop(old.key, None) if old is not None else None
        if policy is not None:
            written = written or self.written(policy.key)
            self.trials[namespace] = policy
        if written is not None:
            self.put(written)
        elif policy is not None:
            self._put(policy)
        return True

    def put(self, policy: NetworkPolicy) -> None:
        """A policy was added or changed."""
        trial = self.trials.get(policy.namespace)
        if trial is not None and trial.key == policy.key and is_ours(policy.labels):
            self._replaced[policy.key], policy = policy, trial
        self._put(policy)

    def _put(self, policy: NetworkPolicy) -> None:
        near = self.policies.setdefault(policy.namespace, {})
        old = near.get(policy.key)
        if old is None or _meaning(old) != _meaning(policy):
            self._latest += 1
            self._versions[policy.key] = self._latest
        near[policy.key] = policy
        self._held.get(policy.namespace, {}).pop(policy.key, None)

    def remove(self, key: str, *, hold: bool) -> None:
        """A policy is gone; `hold`: it is to be kept until `release`."""
        namespace = namespace_of(key)
        trial = self.trials.get(namespace)
        if self._replaced.pop(key, None) is not None or key not in self.policies.get(namespace, {}):
            return
        if trial is not None and trial.key == key:
            # A user's policy of that name is gone.
            self._put(trial)
            return
        if hold:
            self._held.setdefault(namespace, {})[key] = None
            return
        self._held.get(namespace, {}).pop(key, None)
        self._drop(namespace, key)

    def _drop(self, namespace: str, key: str) -> None:
        del self.policies[namespace][key]
        del self._versions[key]
        self._closed.pop(key, None)

    def written(self, key: str) -> NetworkPolicy | None:
        """A policy as it is written."""
        return self.policies.get(namespace_of(key), {}).get(key)

    def close(self, key: str, directions: frozenset[Direction]) -> None:
        """Have a policy isolate in these directions and allow nothing there; none: as written."""
        self._closed.pop(key, None)
        if directions and self.written(key) is not None:
            self._closed[key] = directions

    def holding(self) -> Iterable[str]:
        """Namespaces with policies that are kept."""
        return tuple(self._held)

    def release(self, namespace: str) -> None:
        """No pod is left to protect."""
        for key in self._held.pop(namespace, {}):
            self._drop(namespace, key)

    def selecting(self, pod: Pod, labels: Labels) -> Iterator[NetworkPolicy]:
        """The policies that select a pod whose namespace has these labels, as they are written.

        In name order, those of the whole cluster last.
        """
        for namespace in (pod.namespace, WHOLE_CLUSTER):
            near = self.policies.get(namespace, {})
            yield from (near[key] for key in sorted(near) if selects(near[key], pod, labels))

    def isolation(self, pod: Pod, labels: Labels) -> Isolation:
        """The policies that have a say on a pod, in that order."""
        own = [closed(p, self._closed.get(p.key, NOWHERE)) for p in self.selecting(pod, labels)]
        found = Isolation.by(own)
        if pod.namespace not in self.trials or pod.namespace in self._beside:
            return found
        # Beside others that isolate it could only add to what they allow.
        others = tuple(p for p in found.ingress if not self._is_trial(p))
        isolated = any(Direction.INGRESS in p.directions for p in others)
        return Isolation(others, found.egress) if isolated else found

    def only_reports(self, isolation: Isolation) -> bool:
        """Whether nothing but a policy on trial isolates what comes in to a pod."""
        isolating = [p for p in isolation.ingress if Direction.INGRESS in p.directions]
        return bool(isolating) and all(map(self._is_trial, isolating))

    def _is_trial(self, policy: NetworkPolicy) -> bool:
        trial = self.trials.get(policy.namespace)
        return trial is not None and self.written(policy.key) is trial

    def meaning(self, isolation: Isolation, pod: Pod) -> object:
        """Equal for endpoints that share a group."""
        return (
            tuple(self._version(p.key) for p in isolation.ingress),
            tuple(self._version(p.key) for p in isolation.egress),
            isolation.port_numbers(pod.ports),
        )

    def _version(self, key: str) -> object:
        return key, self._versions[key], self._closed.get(key, NOWHERE)


def _meaning(policy: NetworkPolicy) -> object:
    return policy.directions, policy.ingress, policy.egress


@dataclass(slots=True, eq=False)
class Group:
    """A definition in use, under a number; `users` are local pods."""

    number: int
    key: object
    definition: Definition
    users: dict[str, None] = field(default_factory=dict)
    name: str = ""
    """Of its meaning, once requested."""


@dataclass(slots=True)
class Turnover:
    """Groups and words that came into use or went out of it."""

    added: list[Group] = field(default_factory=list)
    removed: list[Group] = field(default_factory=list)
    new_words: list[PeerTerm] = field(default_factory=list)
    old_words: list[PeerTerm] = field(default_factory=list)


class Groups:
    """The groups in use, and the words that they name peers by."""

    def __init__(self, numbers: Numbering) -> None:
        self.by_number: dict[int, Group] = {}
        self._numbers = numbers
        self._by_key: dict[object, Group] = {}
        self._by_word: dict[PeerTerm, dict[Group, None]] = {}
        self._of: dict[tuple[str, str], Group] = {}
        self._fresh: dict[Group, None] = {}
        self._left: dict[Group, None] = {}

    def enter(self, pod: str, side: str, key: object, make: Callable[[], Definition]) -> Group:
        """The group of this key, for a pod that may have had another one on this side."""
        group = self._by_key.get(key)
        if group is None:
            definition = make()
            number = self._numbers.again(lambda: name_of(definition.lasting))
            group = Group(number, key, definition)
            self._by_key[key] = self.by_number[group.number] = group
            self._fresh[group] = None
        old = self._of.get((pod, side))
        if old is not group:
            self.leave(pod, side)
            self._of[pod, side] = group
            group.users[pod] = None
        return group

    def rule_sets(self) -> Mapping[int, Set[int]]:
        """By tenant, the numbers of what judges requests."""
        found: dict[int, set[int]] = {}
        for group in self.by_number.values():
            if numbers := group.definition.rule_sets:
                found.setdefault(group.definition.tenant, set()).update(numbers)
        return found

    def names(self) -> Mapping[str, int]:
        """The numbers of all groups, by what they mean."""
        for group in self.by_number.values():
            group.name = group.name or name_of(group.definition.lasting)
        return {group.name: number for number, group in self.by_number.items()}

    def leave(self, pod: str, side: str) -> None:
        """The pod is in no group of this side any more."""
        old = self._of.pop((pod, side), None)
        if old is not None:
            del old.users[pod]
            self._left[old] = None

    def using(self, words: Iterable[PeerTerm]) -> Iterable[Group]:
        """The groups that use some of these words."""
        return dict.fromkeys(group for word in words for group in self._by_word.get(word, ()))

    def turnover(self) -> Turnover:
        """What changed since the last time."""
        found = Turnover()
        before: dict[PeerTerm, bool] = {}
        gone = [group for group in self._left if not group.users]
        for group in (*self._fresh, *gone):
            for word in group.definition.words:
                before.setdefault(word, word in self._by_word)
        for group in self._fresh:
            for word in group.definition.words:
                self._by_word.setdefault(word, {})[group] = None
            found.added.append(group)
        for group in gone:
            del self._by_key[group.key], self.by_number[group.number]
            for word in group.definition.words:
                del self._by_word[word][group]
                if not self._by_word[word]:
                    del self._by_word[word]
            found.removed.append(group)
        found.added = [group for group in found.added if group.users]
        for word, known in before.items():
            if known and word not in self._by_word:
                found.old_words.append(word)
            elif not known and word in self._by_word:
                found.new_words.append(word)
        for words in (found.old_words, found.new_words):
            words.sort(key=repr)  # numbers follow this order
        self._fresh, self._left = {}, {}
        return found

    def renumber(self, number: int) -> Group:
        """Give a group another number; its entries are the caller's business."""
        group = self.by_number.pop(number)
        group.number = self._numbers.fresh()
        self.by_number[group.number] = group
        return group


class GroupNames:
    """What the numbers of groups mean to people.

    An event of the kernel may be older than the change that took its group away, so the names of
    the last groups that went are kept for a while.
    """

    def __init__(self) -> None:
        self.isolating: dict[tuple[int, Dir], tuple[str, ...]] = {}
        """Group and direction -> the policies that isolate."""
        self.walls: dict[int, str] = {}
        """Group of a tenant wall -> the rule that a denial names."""
        self._gone: deque[int] = deque()

    def follow(self, turnover: Turnover) -> None:
        """Groups came and went."""
        for group in turnover.added:
            self.put(group)
        for group in turnover.removed:
            self.drop(group.number)

    def put(self, group: Group) -> None:
        """A group is there under its number."""
        for direction, policies in group.definition.isolating.items():
            self.isolating[group.number, direction] = policies
        if group.definition.wall:
            self.walls[group.number] = group.definition.wall

    def drop(self, number: int) -> None:
        """A number is out of use."""
        self._gone.append(number)
        while len(self._gone) > REMEMBERED:
            oldest = self._gone.popleft()
            self.walls.pop(oldest, None)
            for direction in Dir:
                self.isolating.pop((oldest, direction), None)


class RuleNames(Mapping[int, str]):
    """Rule id -> name, out of the numbering that knows it the other way round.

    Of a rule set: the name of its first policy rule.
    """

    def __init__(self, rules: Numbering) -> None:
        self._rules = rules
        self._names: dict[int, str] = {}
        self._as_of = 0

    def __getitem__(self, number: int) -> str:
        return self._current()[number]

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[int]:
        return iter(self._current())

    def _current(self) -> Mapping[int, str]:
        """Rebuilt when a number was given since; what is merely forgotten may stay."""
        if self._as_of != self._rules.next:
            self._as_of = self._rules.next
            known = list(self._rules.known.items())
            self._names = {n: policy_rule_of(str(name)) for name, n in known}
        return self._names
