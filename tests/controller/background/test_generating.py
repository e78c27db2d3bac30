"""Generate rules on a real API server: what they make, keep, collect and refuse."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from generators.documents.json import Document, ObjectKey, ObjectKind, Value, mapping, strings
from generators.kube.discovery import Discovery
from generators.kube.errors import KubeError
from generators.kube.resources import (
    CONFIG_MAPS,
    NAMESPACES,
    NETWORK_POLICIES,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)
from generators.kyverno.failures import NotAllowed
from generators.kyverno.generation import WantedObject
from generators.kyverno.limits import allowing
from generators.kyverno.ownership import Mark, Owner
from generators.labels import MANAGED_BY
from tests.controller.background.ground import Ground, labels_of, quiet, started, uid_of, version_of
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually, holds_for, patience
from webhook.background.writer import Tenancy, Writer
from webhook.kept import MEMORY_NAME

pytestmark = pytest.mark.cluster
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
LIMITS = Resource("", "v1", "limitranges", "LimitRange")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
Name = Callable[[str], str]


def rule(name: str, mine: str, generate: str, more: str = "") -> str:
    """A rule for the namespaces that carry label `run: MINE`."""
    return (
        f"- name: {name}\n"
        "  match: {any: [{resources: {kinds: [Namespace],"
        f' selector: {{matchLabels: {{run: "{mine}"}}}}}}}}]}}\n{more}  generate: {{{generate}}}\n'
    )


def deny(name: str, *switches: str, spec: str = "podSelector: {}, policyTypes: [Ingress]") -> str:
    """Generates a NetworkPolicy of that name into the trigger."""
    more = "".join(f"{switch}, " for switch in switches)
    return (
        f"apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: {name}, {more}"
        f'namespace: "{{{{request.object.metadata.name}}}}", data: {{spec: {{{spec}}}}}'
    )


SYNC, EXISTING = "synchronize: true", "generateExisting: true"


def labelled(on: Ground, namespace: str, mine: str) -> None:
    on.make(namespace, labels={"run": mine})


@pytest.fixture
def mine(unique_name: Callable[[str], str]) -> str:
    return unique_name("p")


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


def test_a_copy_of_a_generated_object_is_left_alone(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.policy_object(mine, rule("r", mine, deny("deny", SYNC)))
    labelled(on, mine, mine)
    eventually(lambda: on.networks(mine) == ["deny"], "made")
    made = on.admin.get(NETWORK_POLICIES, "deny", mine)
    kept = {k: v for k, v in mapping(made, "metadata").items() if k in ("labels", "annotations")}
    copy: Document = {"metadata": kept | {"name": "copy", "namespace": mine}, "spec": made["spec"]}
    on.admin.create(NETWORK_POLICIES, copy, manager="test")
    on.label(mine, "x", key="touched")
    eventually(lambda: quiet(controller), "done")
    on.drop(mine)
    eventually(lambda: on.networks(mine) == ["copy"], "only what was made is collected")


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


def forged(kind: str, namespace: str, name: str, owner: str, **more: object) -> Document:
    """Marks that a team writes by itself on what is its own, as if `owner` had made it."""
    fields = {
        "object": [namespace, name],
        "trigger": ["v1", kind, namespace, name, "x"],
        "item": "0",
        "synchronize": True,
    }
    return {
        "labels": {"ringfence.io/policy": f"kyverno.{owner}"},
        "annotations": {
            "ringfence.io/policy": owner,
            "ringfence.io/rule": "r",
            "ringfence.io/generated": json.dumps(fields | more),
        },
    }


def test_a_forged_mark_neither_ends_what_is_generated_nor_keeps_it_from_being_made(
    on: Ground, mine: str
) -> None:
    on.policy_object(mine, rule("r", mine, deny("wall", SYNC)))
    eventually(lambda: on.is_ready(mine), "Ready")
    later = f"{mine}-later"
    for name in (mine, later):
        marks = forged("Namespace", "", name, mine)
        labels = strings(marks, "labels") if name == later else {}
        notes = strings(marks, "annotations") if name == later else {}
        on.make(name, labels={"run": mine, **labels}, annotations=notes)
    eventually(lambda: on.networks(later) == ["wall"], "made in spite of the mark")
    eventually(lambda: on.networks(mine) == ["wall"], "made")
    before = uid_of(on.find(NETWORK_POLICIES, mine, "wall"))
    on.merge(NAMESPACES, "", mine, {"metadata": forged("Namespace", "", mine, mine)})
    holds_for(1.5, lambda: on.networks(mine) == ["wall"], "stays")
    on.admin.delete(NETWORK_POLICIES, "wall", mine)
    eventually(lambda: on.networks(mine) == ["wall"], "made again")
    assert uid_of(on.find(NETWORK_POLICIES, mine, "wall")) != before


def test_a_mark_counts_only_on_what_its_rule_makes_for_its_trigger(on: Ground, mine: str) -> None:
    """A true trigger and a true rule, on an object that the rule does not make."""
    data = f"data: {{metadata: {{labels: {{walled: {mine}}}}}, data: {{a: b}}}}"
    home = 'namespace: "{{request.object.metadata.name}}"'
    makes = f"apiVersion: v1, kind: ConfigMap, name: made, {home}, {data}"
    on.policy_object(mine, rule("r", mine, makes))
    walls = (
        "- name: walls\n"
        "  match: {any: [{resources: {kinds: [ConfigMap],"
        f" selector: {{matchLabels: {{walled: {mine}}}}}}}}}]}}\n"
        "  generate: {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,"
        ' name: "wall-{{request.object.metadata.name}}", synchronize: true,'
        ' namespace: "{{request.object.metadata.namespace}}",'
        " data: {spec: {podSelector: {}, policyTypes: [Ingress]}}}\n"
    )
    on.policy_object(f"{mine}-walls", walls)
    eventually(lambda: on.is_ready(mine) and on.is_ready(f"{mine}-walls"), "Ready")
    labelled(on, mine, mine)
    eventually(lambda: on.find(CONFIG_MAPS, mine, "made") is not None, "made")
    trigger = ["v1", "Namespace", "", mine, uid_of(on.find(NAMESPACES, "", mine))]
    marks = forged("ConfigMap", mine, "mine", mine, trigger=trigger, synchronize=False)
    labels = {**strings(marks, "labels"), "walled": mine}
    meta: Document = {"name": "mine", "namespace": mine, **marks, "labels": labels}
    on.admin.create(CONFIG_MAPS, {"metadata": meta}, manager="test")
    eventually(lambda: on.networks(mine) == ["wall-mine"], "the mark is not believed")
    holds_for(1.0, lambda: on.networks(mine) == ["wall-mine"], "and that of what is made, is")


def test_a_forged_copy_is_replaced_by_the_true_one(on: Ground, mine: str) -> None:
    source, evil = f"{mine}-source", f"{mine}-evil"
    for name in (source, evil):
        on.make(name)
        on.config(name, "ca", {}, ca=name)
    on.make(mine)
    uid = uid_of(on.find(NAMESPACES, "", mine))
    trigger = ["v1", "Namespace", "", mine, uid]
    copied_from = ["v1", "ConfigMap", evil, "ca"]
    marks = forged("Namespace", mine, "ca", mine, trigger=trigger, source=copied_from, pattern="x")
    meta: Document = {"name": "ca", "namespace": mine, **marks}
    on.admin.create(CONFIG_MAPS, {"metadata": meta, "data": {"ca": evil}}, manager="test")
    on.policy_object(
        mine,
        rule(
            "r",
            mine,
            "apiVersion: v1, kind: ConfigMap, name: ca, synchronize: true,"
            f' namespace: "{{{{request.object.metadata.name}}}}",'
            f" clone: {{namespace: {source}, name: ca}}",
        ),
    )
    eventually(lambda: on.is_ready(mine), "Ready")
    on.label(mine, mine, key="run")

    def true_one() -> bool:
        return strings(on.find(CONFIG_MAPS, mine, "ca") or {}, "data") == {"ca": source}

    eventually(true_one, "the true one")


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


def test_a_namespaced_policy_stays_in_its_namespace(on: Ground, mine: str) -> None:
    for namespace in (mine, f"{mine}-other"):
        on.make(namespace)
    rules = (
        "- name: {name}\n  match: {{any: [{{resources: {{kinds: [ConfigMap]}}}}]}}\n"
        "  generate: {{apiVersion: v1, kind: Secret, synchronize: true, name: {name},"
        " namespace: {into}, data: {{}}}}\n"
    )
    both = rules.format(name="here", into=mine) + rules.format(name="there", into=f"{mine}-other")
    on.policy_object("local", both, namespace=mine)
    eventually(lambda: on.condition("local", mine)[0] == "False", "told")
    for namespace in (mine, f"{mine}-other"):
        on.config(namespace, "trigger", {})
    eventually(lambda: on.find(SECRETS, mine, "here") is not None, "its own")
    assert on.find(SECRETS, f"{mine}-other", "there") is None
    assert on.find(SECRETS, f"{mine}-other", "here") is None
    on.drop("local", mine)
    eventually(lambda: on.find(SECRETS, mine, "here") is None, "collected")


def test_a_namespaced_policy_takes_nothing_over(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(mine)
    on.config(mine, "settings", {}, of="admin")
    on.policy_object(
        "local",
        "- name: r\n  match: {any: [{resources: {kinds: [Secret]}}]}\n"
        "  generate: {apiVersion: v1, kind: ConfigMap, synchronize: true, name: settings,"
        f" namespace: {mine}, data: {{data: {{of: policy}}}}}}\n",
        namespace=mine,
    )
    eventually(lambda: on.is_ready("local", mine), "Ready")
    on.secret(mine, "trigger")
    told = f"no Policy of namespace {mine} made it"
    eventually(lambda: told in controller.get("/readyz")[1], "told")
    found = on.find(CONFIG_MAPS, mine, "settings")
    assert strings(found or {}, "data") == {"of": "admin"}
    on.drop("local", mine)


def test_a_namespaced_policy_makes_nothing_of_the_cluster_whatever_the_kind_is_called(
    on: Ground, mine: str
) -> None:
    tenancy = Tenancy(allowing(["flowcontrol.apiserver.k8s.io/v1/FlowSchema"]), frozenset())
    writer = Writer(on.admin, Discovery(on.admin), lambda: tenancy)
    document: Value = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": mine, "namespace": mine},
        "spec": {"priorityLevelConfiguration": {"name": "exempt"}},
    }
    assert isinstance(document, dict)
    trigger = ObjectKey(ObjectKind("", "v1", "ConfigMap"), mine, "trigger")
    wanted = WantedObject(document, Mark(Owner(f"{mine}/local", "r", trigger, "uid", "0")))
    with pytest.raises(NotAllowed, match="in no namespace"):
        writer.ensure(mine, wanted, None)


def test_copies_of_a_list_come_and_go_with_their_sources(on: Ground, mine: str) -> None:
    on.make(f"{mine}-source")
    on.secret(f"{mine}-source", "one", v="1")
    on.policy_object(
        mine,
        rule(
            "list",
            mine,
            'synchronize: true, namespace: "{{request.object.metadata.name}}", cloneList:'
            f" {{namespace: {mine}-source, kinds: [v1/Secret],"
            " selector: {matchLabels: {copy: me}}}",
        ),
    )
    labelled(on, mine, mine)
    eventually(lambda: on.find(SECRETS, mine, "one") is not None, "copied")
    on.secret(f"{mine}-source", "two", v="2")
    eventually(lambda: on.find(SECRETS, mine, "two") is not None, "a further source")
    on.admin.delete(SECRETS, "one", f"{mine}-source")
    eventually(lambda: on.find(SECRETS, mine, "one") is None, "a source that is gone")
    assert on.find(SECRETS, mine, "two") is not None


def test_a_source_that_comes_later_is_copied_when_it_comes(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(f"{mine}-source")
    clone = (
        'apiVersion: v1, kind: Secret, name: pull, namespace: "{{request.object.metadata.name}}",'
        f" synchronize: true, clone: {{namespace: {mine}-source, name: pull}}"
    )
    on.policy_object(mine, rule("clone", mine, clone))
    labelled(on, mine, mine)
    missing = f"the source Secret {mine}-source/pull is not there"
    eventually(lambda: missing in controller.get("/readyz")[1], "told")
    on.secret(f"{mine}-source", "pull", v="1")
    eventually(lambda: on.find(SECRETS, mine, "pull") is not None, "copied")
    eventually(lambda: missing not in controller.get("/readyz")[1], "told no more")


def test_copies_stay_as_they_are_while_rule_and_triggers_change_at_once(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    """An edit of a rule leaves copies alone; no worker may go by it before that is known."""
    on.make(f"{mine}-source")
    for number in range(6):
        on.secret(f"{mine}-source", f"s{number}", v=str(number))
    spaces = [f"{mine}-{number}" for number in range(8)]

    def clone(number: int) -> str:
        return rule(
            "clone",
            mine,
            "apiVersion: v1, kind: Secret, name: pull, synchronize: true,"
            ' namespace: "{{request.object.metadata.name}}",'
            f" clone: {{namespace: {mine}-source, name: s{number}}}",
        )

    on.policy_object(mine, clone(0))
    for space in spaces:
        labelled(on, space, mine)
    eventually(lambda: all(on.find(SECRETS, s, "pull") for s in spaces), "copied")
    over = threading.Event()

    def change_triggers() -> None:
        for count in itertools.count():
            if over.is_set():
                return
            for space in spaces:
                on.merge(NAMESPACES, "", space, {"metadata": {"labels": {"n": str(count)}}})

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change_triggers)
        try:
            for number in range(1, 6):
                on.policy_object(mine, clone(number))
                eventually(lambda: on.is_ready(mine), "Ready")
        finally:
            over.set()
        changing.result(patience(60))
    eventually(lambda: quiet(controller), "done")
    copies = [on.find(SECRETS, space, "pull") or {} for space in spaces]
    assert [strings(copy, "data")["v"] for copy in copies] == ["MA=="] * len(spaces)


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


def test_missing_rights_are_named_and_found_again(bare: Ground) -> None:
    bare.permit("--policies", "cluster")
    started(bare)
    bare.policy_object(
        "secrets",
        rule(
            "r",
            "x",
            "apiVersion: v1, kind: Secret, name: s,"
            ' namespace: "{{request.object.metadata.name}}", synchronize: true, data: {}',
        ),
    )
    eventually(lambda: bare.condition("secrets")[1] == "Forbidden", "told")
    assert "create secrets" in bare.condition("secrets")[2]
    bare.permit("--policies", "cluster", "--allow-kind", "Secret")
    eventually(lambda: bare.is_ready("secrets"), "Ready", 30)


def test_a_config_map_of_somebody_else_under_the_name_of_the_memory_is_never_replaced(
    bare: Ground,
) -> None:
    bare.config("ringfence-system", MEMORY_NAME, {MANAGED_BY: "Helm"}, **{"team.yaml": "a policy"})
    before = version_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME))
    bare.policy_object("kept", rule("r", "on-it", deny("made", SYNC)))
    controller = started(bare)
    eventually(lambda: bare.is_ready("kept"), "Ready")
    bare.make("new", labels={"run": "on-it"})
    eventually(lambda: bare.networks("new") == ["made"], "carried out all the same")
    eventually(lambda: "is not the controller's" in controller.get("/readyz")[1], "told")
    eventually(lambda: quiet(controller), "done")
    assert version_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME)) == before
    bare.admin.delete(CONFIG_MAPS, MEMORY_NAME, "ringfence-system")
    eventually(
        lambda: (
            labels_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME)).get(MANAGED_BY)
            == "ringfence"
        ),
        "remembered from now on",
    )
    # The object is there a moment before the controller has heard so.
    eventually(lambda: "not the controller's" not in controller.get("/readyz")[1], "no complaint")


def test_what_changed_while_nobody_looked_is_repaired(bare: Ground) -> None:
    rules = rule("all", "on-it", deny("all", SYNC, EXISTING)) + rule(
        "new", "on-it", deny("new", SYNC)
    )
    once = rule("once", "on-it", deny("once"))
    bare.policy_object("kept", rules + once)
    bare.policy_object("goes", rule("r", "on-it", deny("goes", SYNC)))
    bare.make("older", labels={"run": "on-it"})
    first = started(bare)
    for name in ("deleted", "edited", "left", "vanishes"):
        bare.make(name, labels={"run": "on-it"})
    everything = ["all", "goes", "new", "once"]
    names = ("older", "deleted", "edited", "left", "vanishes")
    eventually(lambda: all(bare.networks(n) == everything for n in names), "all")
    eventually(lambda: quiet(first), "done")
    eventually(lambda: remembers(bare, "once"), "remembered")
    assert first.terminate() == 0
    for name in everything:
        bare.admin.delete(NETWORK_POLICIES, name, "deleted")
    bare.merge(NETWORK_POLICIES, "edited", "new", {"spec": {"ingress": [{}]}})
    bare.label("left", "off", key="run")
    bare.drop("goes")
    bare.make("made", labels={"run": "on-it"})
    second = started(bare)
    eventually(lambda: bare.networks("deleted") == ["all", "new"], "made again, but for `once`")
    eventually(lambda: "ingress" not in spec_of_policy(bare, "edited", "new"), "undone")
    eventually(lambda: bare.networks("left") == ["once"], "collected")
    eventually(lambda: bare.networks("made") == ["all", "new", "once"], "caught up")
    eventually(lambda: bare.networks("vanishes") == ["all", "new", "once"], "policy deleted")
    eventually(lambda: quiet(second), "done")
    eventually(lambda: remembers(bare, "once"), "remembered")
    assert second.terminate() == 0
    versions = all_versions(bare)
    third = started(bare)
    eventually(lambda: quiet(third), "done")
    holds_for(1.5, lambda: written(bare, versions) == [], "nothing to do writes nothing")


def remembers(on: Ground, rule_name: str) -> bool:
    """Everything that there is has had what the rule makes once."""
    live = on.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME) or {}
    rules = json.loads(strings(live, "data").get("rules", "{}"))
    newest = max(int(version_of(n)) for n in on.admin.list_all(NAMESPACES))
    return any(row[1] == rule_name and row[3] >= newest for row in rules.values())


def spec_of_policy(on: Ground, namespace: str, name: str) -> Mapping[str, object]:
    return mapping(on.find(NETWORK_POLICIES, namespace, name) or {}, "spec")


def written(on: Ground, before: Mapping[str, str]) -> list[str]:
    """What has changed since."""
    now = all_versions(on)
    return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))


def all_versions(on: Ground) -> dict[str, str]:
    found = {}
    for resource in (NAMESPACES, NETWORK_POLICIES, CONFIG_MAPS):
        for each in on.admin.list_all(resource):
            meta = mapping(each, "metadata")
            if meta["name"] == "kube-root-ca.crt":
                continue  # Kubernetes' own, in every new namespace
            found[f"{resource}/{meta.get('namespace')}/{meta['name']}"] = version_of(each)
    return found


def test_a_standby_takes_over_and_an_api_server_that_comes_back_is_caught_up(bare: Ground) -> None:
    bare.policy_object("p", rule("r", "on-it", deny("a", SYNC)))
    options = ("--policies", "cluster", "--allow-kind", "Secret", "--lease-seconds", "3")
    first = started(bare, *options)
    second = bare.controller(*options, webhook=False)
    eventually(lambda: "[+]standby" in second.get("/readyz")[1], "stands by")
    bare.make("one", labels={"run": "on-it"})
    eventually(lambda: bare.networks("one") == ["a"], "by the first")
    first.kill()
    bare.make("two", labels={"run": "on-it"})
    eventually(lambda: bare.networks("two") == ["a"], "by the second", 30)
    bare.plane.stop_apiserver()
    bare.plane.start_apiserver()
    eventually(lambda: answers(bare), "it is back", 30)
    bare.make("three", labels={"run": "on-it"})
    eventually(lambda: bare.networks("three") == ["a"], "caught up", 40)


def answers(on: Ground) -> bool:
    try:
        on.networks("default")
    except KubeError:
        return False
    return True
