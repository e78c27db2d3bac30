"""What a policy's status has to say, and in which order policies are looked at."""

from __future__ import annotations

from generators.documents.json import Document, Key
from generators.kube.resources import CILIUM_CLUSTERWIDE_POLICIES, CILIUM_POLICIES
from webhook.cilium.validity import NamespaceTurns, judge, status_of

NOW, BEFORE = "2026-11-30T12:00:00Z", "2026-11-30T11:00:00Z"
KEY = Key("a", "p")
SAID = ("True", "", "Policy validation succeeded")


def policy(spec: object, *conditions: Document) -> Document:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "a", "uid": "u"},
        "spec": spec,
        "status": {"conditions": list(conditions)},
    }


def condition(status: str, message: str, **more: str) -> Document:
    return {"type": "Valid", "status": status, "message": message, **more}


GOOD: Document = {"endpointSelector": {}, "ingress": [{}]}
BAD: Document = {"endpointSelector": {}, "ingress": [{"toFQDNs": []}]}


def test_a_valid_policy_is_told_so_in_ciliums_words() -> None:
    assert status_of(CILIUM_POLICIES, KEY, judge(policy(GOOD)), NOW) == {
        "metadata": {"name": "p", "namespace": "a", "uid": "u"},
        "status": {"conditions": [condition("True", SAID[2], lastTransitionTime=NOW)]},
    }


def test_nothing_is_written_where_the_object_says_it_already() -> None:
    told = policy(GOOD, condition("True", SAID[2], lastTransitionTime=BEFORE))
    assert status_of(CILIUM_POLICIES, KEY, judge(told), NOW) is None


def test_the_time_of_the_last_change_stays_while_the_status_does() -> None:
    told = policy(BAD, condition("False", "something else", lastTransitionTime=BEFORE))
    written = status_of(CILIUM_POLICIES, KEY, judge(told), NOW)
    assert written is not None
    assert BEFORE in str(written)
    turned = policy(GOOD, condition("False", "something else", lastTransitionTime=BEFORE))
    written = status_of(CILIUM_POLICIES, KEY, judge(turned), NOW)
    assert written is not None
    assert NOW in str(written)


def test_an_invalid_policy_is_told_field_and_fix_and_what_becomes_of_its_pods() -> None:
    judged = judge(policy(BAD))
    status, reason, message = judged.wanted
    assert (status, reason) == ("False", "InvalidPolicy")
    assert message.startswith('spec.ingress[0].toFQDNs: unknown field "toFQDNs"; ')
    assert "allows nothing" in message


def test_a_policy_of_many_faults_has_a_message_of_some_lines_at_most() -> None:
    faults = [{f"field{number}": "x" * 1000} for number in range(1000)]
    message = judge(policy({"endpointSelector": {}, "ingress": faults})).wanted[2]
    assert "and 997 more" in message
    assert len(message) < 1200


def test_namespaces_take_turns_so_that_a_thousand_policies_of_one_hold_up_nobody() -> None:
    turns = NamespaceTurns()
    for number in range(1000):
        turns.add(CILIUM_POLICIES, Key("loud", str(number)))
    turns.add(CILIUM_POLICIES, Key("quiet", "p"))
    turns.add(CILIUM_CLUSTERWIDE_POLICIES, Key("", "p"))
    first = [turns.take() for _ in range(3)]
    assert {found[1].namespace for found in first if found is not None} == {"loud", "quiet", ""}


def test_a_policy_that_changes_again_and_again_is_looked_at_once() -> None:
    turns = NamespaceTurns()
    for _ in range(3):
        turns.add(CILIUM_POLICIES, KEY)
    assert turns.take() == (CILIUM_POLICIES, KEY)
    assert turns.take() is None
