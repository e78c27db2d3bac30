"""Claims about all namespaces, labels and requesters, not about those we thought of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generators.tenants.assignment import Requester
from generators.tenants.load import parse_tenants
from tests.webhook.reviews import KEY, PEOPLE, TENANTS, create, labels, ns, patched, update
from webhook.serving import mutate, validate

CONFIG = parse_tenants(TENANTS.encode(), "tenants.yaml")
TRUSTED = ("root", "admin", "controller")

names = st.sampled_from(
    ["app-test01", "app-test02", "test01-x", "legacy-shop", "anything", "kube-system", "ingress"]
)
values = st.sampled_from(["test01", "test02", "gone", "", "4711", "1"])
label_maps = st.dictionaries(st.sampled_from([KEY, "cost-centre", "a/b", "Client"]), values)
people = st.sampled_from(list(PEOPLE.values()))
tenants_people = st.sampled_from([v for k, v in PEOPLE.items() if k not in TRUSTED])
subresources = st.sampled_from(["", "status", "finalize"])
requests = st.tuples(tenants_people, label_maps, subresources)


@given(names, label_maps, people)
def test_a_second_creation_decision_changes_nothing(
    name: str, wish: dict[str, str], by: Requester
) -> None:
    subject = ns(name, wish)
    first = mutate.decide(CONFIG, create(subject, by))
    again = mutate.decide(CONFIG, create(patched(subject, first), by))
    assert again.patch == ()
    assert again.allowed is first.allowed


@given(names, label_maps, label_maps, people)
def test_a_second_update_decision_changes_nothing(
    name: str, old: dict[str, str], new: dict[str, str], by: Requester
) -> None:
    before, after = ns(name, old), ns(name, new)
    first = mutate.decide(CONFIG, update(before, after, by))
    again = mutate.decide(CONFIG, update(before, patched(after, first), by))
    assert again.patch == ()


@given(names, label_maps, people)
def test_what_the_one_webhook_makes_the_other_accepts(
    name: str, wish: dict[str, str], by: Requester
) -> None:
    subject = ns(name, wish)
    first = mutate.decide(CONFIG, create(subject, by))
    final = patched(subject, first)
    decision = validate.decide(CONFIG, create(final, by))
    assert decision.allowed is first.allowed
    assert decision.warnings == ()


@given(names, label_maps, tenants_people)
def test_who_is_no_admin_gets_no_other_label_than_the_assignment_says(
    name: str, wish: dict[str, str], by: Requester
) -> None:
    decision = validate.decide(CONFIG, create(ns(name, wish), by))
    if decision.allowed:
        assert wish.get(KEY) in (None, decision.tenant)


@given(names, label_maps, st.lists(requests, max_size=6))
def test_no_sequence_of_requests_by_tenants_changes_a_tenant(
    name: str, start: dict[str, str], sequence: list[tuple[Requester, dict[str, str], str]]
) -> None:
    live = ns(name, start)
    for by, wanted, subresource in sequence:
        after = ns(name, wanted)
        after = patched(after, mutate.decide(CONFIG, update(live, after, by, subresource)))
        if validate.decide(CONFIG, update(live, after, by, subresource)).allowed:
            live = after
        assert labels(live).get(KEY) == start.get(KEY)
