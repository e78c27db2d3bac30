"""Generate rules on a real API server: what they make, keep, collect and refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    NETWORK_POLICIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from tests.controller.background.ground import Ground, labels_of, quiet, uid_of, version_of
from tests.controller.background.rules import EXISTING, SYNC, deny, labelled, rule, spec_of_policy
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually, holds_for

pytestmark = pytest.mark.cluster
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMITS = Resource("", "v1", "limitranges", "LimitRange")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
Name = Callable[[str], str]


def test_existing_triggers_are_a_rules_business_only_when_it_says_so(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    labelled(on, f"{mine}-old", mine)
    eventually(lambda: quiet(controller), "known")
    both = rule("all", mine, deny("all", SYNC, EXISTING)) + rule("new", mine, deny("new", SYNC))
    on.policy_object(mine, both)
    eventually(lambda: on.networks(f"{mine}-old") == ["all"], "the existing one")
    labelled(on, f"{mine}-new", mine)
    eventually(lambda: on.networks(f"{mine}-new") == ["all", "new"], "the new one")
    assert on.networks(f"{mine}-old") == ["all"]
    on.label(f"{mine}-old", "x", key="touched")
    eventually(lambda: on.networks(f"{mine}-old") == ["all", "new"], "an update is an event")


def test_an_edited_rule_collects_exactly_what_it_made(on: Ground, mine: str) -> None:
    first = rule("one", mine, deny("a", SYNC, EXISTING))
    second = rule("two", mine, deny("b", SYNC, EXISTING))
    labelled(on, mine, mine)
    on.policy_object(mine, first + second)
    eventually(lambda: on.networks(mine) == ["a", "b"], "both")
    other = on.find(NETWORK_POLICIES, mine, "b")
    on.policy_object(mine, rule("one", mine, deny("c", SYNC, EXISTING)) + second)
    eventually(lambda: on.networks(mine) == ["b", "c"], "the renamed target")
    assert on.find(NETWORK_POLICIES, mine, "b") == other


def test_a_renamed_rule_takes_over_in_place(on: Ground, mine: str) -> None:
    labelled(on, mine, mine)
    on.policy_object(mine, rule("before", mine, deny("a", SYNC, EXISTING)))
    eventually(lambda: on.networks(mine) == ["a"], "made")
    uid = uid_of(on.find(NETWORK_POLICIES, mine, "a"))
    on.policy_object(mine, rule("after", mine, deny("a", SYNC)))

    def taken_over() -> bool:
        now = on.find(NETWORK_POLICIES, mine, "a")
        assert uid_of(now) == uid, "it was deleted in between"
        return labels_of(now)["ringfence.io/rule"] == "after"

    eventually(taken_over, "taken over")


def test_an_element_that_leaves_the_list_takes_its_object_with_it(on: Ground, mine: str) -> None:
    on.policy_object(
        mine,
        rule(
            "each",
            mine,
            'synchronize: true, foreach: [{list: "split(request.object.metadata.annotations.peers,'
            ' \',\')", apiVersion: v1, kind: ConfigMap, name: "peer-{{element}}",'
            ' namespace: "{{request.object.metadata.name}}", data: {data: {peer: "{{element}}"}}}]',
        ),
    )
    on.make(mine, labels={"run": mine}, annotations={"peers": "a,b,c"})

    def there() -> str:
        names = "abc"
        return "".join(n for n in names if on.find(CONFIG_MAPS, mine, f"peer-{n}") is not None)

    eventually(lambda: there() == "abc", "one for each")
    kept = on.find(CONFIG_MAPS, mine, "peer-c")
    on.merge(NAMESPACES, "", mine, {"metadata": {"annotations": {"peers": "a,c"}}})
    eventually(lambda: there() == "ac", "b is gone")
    assert uid_of(on.find(CONFIG_MAPS, mine, "peer-c")) == uid_of(kept)


def test_what_the_api_server_adds_or_rewrites_is_not_fought(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    quota = (
        "apiVersion: v1, kind: ResourceQuota, name: q,"
        ' namespace: "{{request.object.metadata.name}}", synchronize: true,'
        ' data: {spec: {hard: {requests.cpu: "4000m", pods: 10}}}'
    )
    ports = "podSelector: {}, ingress: [{ports: [{port: 80}, {port: 443, protocol: TCP}]}]"
    on.policy_object(
        mine, rule("quota", mine, quota) + rule("ports", mine, deny("ports", SYNC, spec=ports))
    )
    labelled(on, mine, mine)
    eventually(lambda: on.find(QUOTAS, mine, "q") is not None, "quota")
    eventually(lambda: on.networks(mine) == ["ports"], "policy")
    eventually(lambda: quiet(controller), "done")
    before = [version_of(on.find(NETWORK_POLICIES, mine, "ports")), spec_of(on, mine)]
    for number in range(5):
        on.label(mine, str(number), key="touched")
    eventually(lambda: quiet(controller), "done")
    after = [version_of(on.find(NETWORK_POLICIES, mine, "ports")), spec_of(on, mine)]
    assert before == after
    wider: Document = {"spec": {"ingress": [{}], "egress": [{}]}}
    on.merge(NETWORK_POLICIES, mine, "ports", wider)

    def restored() -> bool:
        spec = mapping(on.find(NETWORK_POLICIES, mine, "ports") or {}, "spec")
        return "egress" not in spec and spec["ingress"] != [{}]

    eventually(restored, "an edit is undone, additions too")


def spec_of(on: Ground, namespace: str) -> object:
    return mapping(on.find(QUOTAS, namespace, "q") or {}, "spec")


def test_an_object_of_the_same_name_is_taken_over_only_by_a_rule_that_synchronizes(
    on: Ground, mine: str
) -> None:
    on.make(mine)
    for name in ("kept", "taken"):
        theirs: Document = {
            "metadata": {"name": name, "namespace": mine, "labels": {"theirs": "on-it"}},
            "spec": {"podSelector": {}, "ingress": [{}]},
        }
        on.admin.create(NETWORK_POLICIES, theirs, manager="test")
    on.policy_object(
        mine, rule("kept", mine, deny("kept")) + rule("taken", mine, deny("taken", SYNC))
    )
    on.label(mine, mine, key="run")

    def taken() -> bool:
        live = on.find(NETWORK_POLICIES, mine, "taken") or {}
        return "ingress" not in mapping(live, "spec")

    eventually(taken, "taken over")
    assert labels_of(on.find(NETWORK_POLICIES, mine, "taken"))["theirs"] == "on-it"
    kept = on.find(NETWORK_POLICIES, mine, "kept") or {}
    assert mapping(kept, "spec")["ingress"] == [{}]


def test_server_side_apply_leaves_what_others_added(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    head = "useServerSideApply: true\n"
    data = f"apiVersion: v1, kind: Secret, name: s, namespace: {mine}, {SYNC}"
    on.policy_object(mine, rule("r", mine, f"{data}, data: {{stringData: {{ours: a}}}}"), head)
    labelled(on, mine, mine)
    eventually(lambda: on.find(SECRETS, mine, "s") is not None, "made")
    on.merge(SECRETS, mine, "s", {"stringData": {"theirs": "b"}})
    on.policy_object(mine, rule("r", mine, f"{data}, data: {{stringData: {{ours: c}}}}"), head)

    def ours() -> str:
        return strings(on.find(SECRETS, mine, "s") or {}, "data")["ours"]

    eventually(lambda: ours() == "Yw==", "the rule's edit follows")
    assert strings(on.find(SECRETS, mine, "s") or {}, "data")["theirs"] == "Yg=="


def test_a_rule_that_stops_synchronizing_lets_go_of_what_it_made(on: Ground, mine: str) -> None:
    on.policy_object(mine, rule("r", mine, deny("deny", SYNC)))
    labelled(on, mine, mine)
    eventually(lambda: on.networks(mine) == ["deny"], "made")
    on.policy_object(mine, rule("r", mine, deny("deny")))

    def free() -> bool:
        labels = labels_of(on.find(NETWORK_POLICIES, mine, "deny"))
        return "app.kubernetes.io/managed-by" not in labels

    eventually(free, "not managed any more")
    on.merge(NETWORK_POLICIES, mine, "deny", {"spec": {"ingress": [{}]}})
    on.drop(mine)
    holds_for(1.0, lambda: on.networks(mine) == ["deny"], "it stays")
    assert spec_of_policy(on, mine, "deny")["ingress"] == [{}]


def test_what_belongs_into_a_namespace_that_comes_later_is_made_then(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    secret = f"apiVersion: v1, kind: Secret, name: s, namespace: {mine}-late, {SYNC}, data: {{}}"
    on.policy_object(mine, rule("r", mine, secret))
    labelled(on, mine, mine)
    problem = f"namespace {mine}-late, where Secret {mine}-late/s belongs, is not there"
    eventually(lambda: problem in controller.get("/readyz")[1], "told")
    on.make(f"{mine}-late")
    eventually(lambda: on.find(SECRETS, f"{mine}-late", "s") is not None, "made")


def test_rules_that_would_trigger_each_other_are_refused(on: Ground, mine: str) -> None:
    on.make(mine)
    circle = "".join(
        f"- name: {name}\n  skipBackgroundRequests: false\n"
        f"  match: {{any: [{{resources: {{kinds: [{this}], namespaces: [{mine}]}}}}]}}\n"
        f"  generate: {{apiVersion: v1, kind: {other}, namespace: {mine}, {SYNC},"
        f' name: "{{{{request.object.metadata.name}}}}x", data: {{}}}}\n'
        for name, this, other in (("there", "ConfigMap", "Secret"), ("back", "Secret", "ConfigMap"))
    )
    on.policy_object(mine, circle)
    told = "these rules would trigger each other forever"
    eventually(lambda: told in on.condition(mine)[2], "told")
    on.config(mine, "trigger", {})
    holds_for(0.5, lambda: on.find(SECRETS, mine, "triggerx") is None, "neither runs")


def test_a_trigger_made_again_under_its_name_is_another_trigger(on: Ground, mine: str) -> None:
    on.make(mine)
    on.policy_object(
        mine,
        "- name: r\n  match: {any: [{resources: {kinds: [ConfigMap], names: [trigger],"
        f" namespaces: [{mine}]}}}}]}}\n"
        "  generate: {apiVersion: v1, kind: ServiceAccount, synchronize: true,"
        f' name: "{{{{request.object.data.makes}}}}", namespace: {mine}, data: {{}}}}\n',
    )
    on.config(mine, "trigger", {}, makes="first")
    eventually(lambda: on.find(SERVICE_ACCOUNTS, mine, "first") is not None, "first")
    on.admin.delete(CONFIG_MAPS, "trigger", mine)
    on.config(mine, "trigger", {}, makes="second")
    eventually(lambda: on.find(SERVICE_ACCOUNTS, mine, "second") is not None, "second")
    eventually(lambda: on.find(SERVICE_ACCOUNTS, mine, "first") is None, "the first's is gone")


def test_two_triggers_do_not_fight_for_one_object(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(mine)
    on.policy_object(
        mine,
        "- name: r\n  match: {any: [{resources: {kinds: [ConfigMap], names: [t-*],"
        f" namespaces: [{mine}]}}}}]}}\n"
        "  generate: {apiVersion: v1, kind: Secret, synchronize: true, name: one,"
        f" namespace: {mine},"
        ' data: {stringData: {by: "{{request.object.metadata.name}}"}}}\n',
    )
    on.config(mine, "t-1", {})
    eventually(lambda: on.find(SECRETS, mine, "one") is not None, "made")
    on.config(mine, "t-2", {})
    problem = f"Secret {mine}/one is generated for ConfigMap {mine}/t-1 already"
    eventually(lambda: problem in controller.get("/readyz")[1], "told")
    on.admin.delete(CONFIG_MAPS, "t-1", mine)

    def handed_over() -> bool:
        notes = strings(mapping(on.find(SECRETS, mine, "one") or {}, "metadata"), "annotations")
        return notes.get("ringfence.io/trigger") == f"ConfigMap {mine}/t-2"

    eventually(handed_over, "the second gets it")


def test_names_longer_than_labels_are_told_apart(on: Ground) -> None:
    long = "p" + "x" * 80
    for end in ("one", "two"):
        on.policy_object(f"{long}-{end}", rule("r" * 63, f"long-{end}", deny(end, SYNC)))
    on.make("long-names", labels={"run": "long-one"})
    eventually(lambda: on.networks("long-names") == ["one"], "made")
    on.label("long-names", "long-two", key="run")
    eventually(lambda: on.networks("long-names") == ["two"], "told apart")


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        pytest.param(
            rule(
                "r", "x", "apiVersion: apps/v1, kind: Deployment, name: d, namespace: n, data: {}"
            ),
            "policies may not write Deployment; start with --allow-kind apps/v1/Deployment",
            id="kind",
        ),
        pytest.param(
            rule("r", "x", deny("d").replace('"{{request.object.metadata.name}}"', "kube-system")),
            "kube-system is protected",
            id="protected namespace",
        ),
        pytest.param(
            "- name: r\n  match: {any: [{resources: {kinds: [ConfigMap]}}]}\n"
            "  generate: {apiVersion: v1, kind: ConfigMap, name: c, namespace: n, data: {}}\n",
            "a rule that ConfigMap triggers may not generate ConfigMap: it would loop",
            id="loop",
        ),
        pytest.param(
            rule(
                "r",
                "x",
                "apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, name: a,"
                " namespace: n, data: {}",
            ),
            "the API server does not serve security.istio.io/v1/AuthorizationPolicy",
            id="not served",
        ),
    ],
)
def test_a_rule_that_may_not_run_makes_its_policy_not_ready(
    on: Ground, mine: str, policy: str, why: str
) -> None:
    on.policy_object(mine, policy + rule("fine", mine, deny("fine", SYNC)))
    eventually(lambda: on.condition(mine)[:2] == ("False", "Refused"), "refused")
    assert why in on.condition(mine)[2]
    labelled(on, mine, mine)
    eventually(lambda: on.networks(mine) == ["fine"], "its other rule goes on")


def test_a_rule_for_deletions_generates_when_its_trigger_goes(on: Ground, mine: str) -> None:
    on.make(mine)
    on.policy_object(
        mine,
        "- name: r\n  match: {any: [{resources: {kinds: [ConfigMap], operations: [DELETE],"
        f" namespaces: [{mine}]}}}}]}}\n"
        "  generate: {apiVersion: v1, kind: Secret, synchronize: true, name: farewell,"
        f" namespace: {mine},"
        ' data: {stringData: {of: "{{request.oldObject.metadata.name}}"}}}\n',
    )
    eventually(lambda: on.is_ready(mine), "Ready")
    on.config(mine, "trigger", {})
    holds_for(0.5, lambda: on.find(SECRETS, mine, "farewell") is None, "not while it is there")
    on.admin.delete(CONFIG_MAPS, "trigger", mine)
    eventually(lambda: on.find(SECRETS, mine, "farewell") is not None, "made")
    holds_for(1.0, lambda: on.find(SECRETS, mine, "farewell") is not None, "and stays")
