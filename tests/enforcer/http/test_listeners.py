"""At which port the proxy listens for which rule set, and how long."""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.http.listeners import (
    FIRST,
    KEPT_OF_A_NAMESPACE,
    KEPT_SECONDS,
    LAST,
    Listeners,
    ports_of,
    remembered,
)
from generators.http import HttpRule, RuleSet


def rule_set(home: str, policy: str, path: str = "/") -> RuleSet:
    rule = f"{home}/cnp:{policy}#ingress[0]"
    http = HttpRule(path=path, name="toPorts[0].rules.http[0]")
    return RuleSet("Ingress", rule, ((f"{rule}.{http.name}", http),))


def wanted(*sets: RuleSet, first: int = 1) -> Mapping[int, RuleSet]:
    return dict(enumerate(sets, start=first))


def test_a_rule_that_says_something_else_keeps_its_listener() -> None:
    before = Listeners().following(wanted(rule_set("a", "p", "/x")), 0)
    after = before.following(wanted(rule_set("a", "p", "/y"), first=2), 1)
    assert list(after.rule_sets) == list(before.rule_sets) == [FIRST]
    assert after.ports == {1: FIRST, 2: FIRST}
    assert after.rule_sets[FIRST].rules[0][1].path == "/y"


def test_a_listener_that_nothing_wants_stays_for_a_while() -> None:
    found = Listeners().following(wanted(rule_set("a", "p")), 0)
    gone = found.following({}, 10)
    assert gone.following({}, 10 + KEPT_SECONDS - 1).ports == {1: FIRST}
    assert not gone.following({}, 10 + KEPT_SECONDS).by_key


def test_who_renames_policies_all_day_takes_nobody_else_s_ports() -> None:
    found = Listeners().following(wanted(rule_set("other", "p")), 0).following({}, 0)
    number = 2
    for second in range(1, 200):
        names = (rule_set("busy", f"p{second}-{i}") for i in range(256))
        found = found.following(wanted(*names, first=number), second)
        number += 256
        assert found.left_out == 0
        assert len(found.by_key) <= 256 + KEPT_OF_A_NAMESPACE + 1
    assert 1 in found.ports, "what another namespace had stays for its time"


def test_what_finds_no_port_is_counted() -> None:
    sets = (rule_set(f"n{i}", "p") for i in range(LAST - FIRST + 3))
    assert Listeners().following(wanted(*sets), 0).left_out == 2


def test_the_next_agent_knows_the_ports_and_lets_nothing_pass_before_it_knows_the_rules() -> None:
    names = [rule_set("a", f"p{i}") for i in range(KEPT_OF_A_NAMESPACE + 20)]
    before = Listeners().following(wanted(*names), 0)
    after = remembered(ports_of(before.to_json()), before.ports, 0).following({}, 1)
    assert after.ports == before.ports
    assert not any(found.rules for found in after.rule_sets.values())
    again = after.following(wanted(*names), 2)
    assert again.rule_sets == before.rule_sets


def test_a_file_that_cannot_be_read_says_nothing() -> None:
    for text in (b"", b"[1]", b'{"a": "x"}', b'{"a": null}', b"\xff"):
        assert not ports_of(text)
    assert not ports_of(b'{"a": 22}'), "no port of ours"
