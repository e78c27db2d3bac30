"""HTTP rules that judge nothing, because another rule allows the same packets: as in Cilium, what
allows them without HTTP rules wins.

Only what can be told by the text of the policies: rules for the same pods and the same peers. Two
selectors that happen to mean the same pods are not found; `trace` knows those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from generators.errors import Problem
from generators.objects import Direction, NetworkPolicy, PolicyPort, Rule


def overruled(policies: Sequence[NetworkPolicy]) -> Iterator[Problem]:
    """A finding for each policy rule with HTTP rules that others of these policies overrule."""
    for policy in policies:
        for direction in Direction:
            for rule in policy.rules(direction):
                if rule.http and (over := _over(policy, direction, rule, policies)):
                    yield _problem(policy, direction, rule, over)


def _over(
    policy: NetworkPolicy, direction: Direction, rule: Rule, policies: Iterable[NetworkPolicy]
) -> str:
    """The first rule that allows what another judges; empty where none does."""
    for other in policies:
        if _subjects(other) != _subjects(policy) or _replaces(other, policy):
            continue
        for index, plain in enumerate(other.rules(direction)):
            if not plain.deny and not plain.http and _covers(plain, rule):
                return other.rule_name(direction, index)
    return ""


def _subjects(policy: NetworkPolicy) -> object:
    return policy.namespace, policy.pod_selector, policy.namespace_selector


def _replaces(other: NetworkPolicy, policy: NetworkPolicy) -> bool:
    """Whether they are one object in two files, of which a cluster has one at a time."""
    return other.object_key == policy.object_key and other.origin.file != policy.origin.file


def _covers(plain: Rule, judged: Rule) -> bool:
    peers = not plain.peers or bool(set(plain.peers) & set(judged.peers))
    return peers and any(_meet(a, b) for a in plain.ports or (None,) for b in judged.ports)


def _meet(plain: PolicyPort | None, judged: PolicyPort) -> bool:
    """Whether they have a port in common; a name is compared with the same name only."""
    if plain is None or (plain.protocol == judged.protocol and plain.port is None):
        return True
    if plain.protocol != judged.protocol:
        return False
    if not isinstance(plain.port, int) or not isinstance(judged.port, int):
        return plain.port == judged.port
    ends = (plain.end_port or plain.port, judged.end_port or judged.port)
    return plain.port <= ends[1] and judged.port <= ends[0]


def _problem(policy: NetworkPolicy, direction: Direction, rule: Rule, over: str) -> Problem:
    part = policy.part or "spec"
    # The last piece is the number of one HTTP rule; the finding is about all of them.
    place = rule.http[0].name.rpartition("[")[0]
    home = f"{policy.namespace}/" if policy.namespace else ""
    path = f"{policy.kind} {home}{policy.name}: {part}.{rule.name or direction.lower()}.{place}"
    return Problem(
        policy.origin.file,
        policy.origin.line,
        path,
        f"lets every request pass: {over} allows the same packets without HTTP rules",
        "give that rule HTTP rules too, or other peers or ports",
    )
