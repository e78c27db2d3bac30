"""What is taken into force, what is registered for it, what is looked up: without an API server."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.documents.json import Document, Key, ObjectKey, ObjectKind
from generators.errors import InputError
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, NODES, PODS, Resource
from generators.kyverno.failures import LookupFailed
from generators.kyverno.limits import Limits
from generators.kyverno.usage import usage
from generators.tenants.assignment import Requester
from tests.webhook.reviews import AWAY
from webhook.policies.book import PolicyBook
from webhook.policies.incumbent import Deployed, judge, read_deployment
from webhook.policies.lookups import AdmissionLookups
from webhook.policies.roles import Binding, BindingIndex, Roles
from webhook.policies.webhooks import PolicyWebhooks, rules_of, webhooks_for

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SERVED = (NAMESPACES, PODS, NODES, CONFIG_MAPS, DEPLOYMENTS, LEASES)


class Kinds:
    """Discovery of a small API server."""

    def find(self, group: str, version: str, kind: str) -> Resource | None:
        return next(
            (r for r in SERVED if (r.group, r.version, r.kind) == (group, version, kind)), None
        )

    def matching(
        self,
        group: Callable[[str], bool],
        version: Callable[[str], bool],
        kind: Callable[[str], bool],
    ) -> list[Resource]:
        return [r for r in SERVED if group(r.group) and version(r.version) and kind(r.kind)]


def policy(resources: str, more: str = "", kind: str = "ClusterPolicy", spec: str = "{}") -> str:
    """A policy with one rule that labels; `resources` and `more` are flow maps."""
    home = ", namespace: shop" if kind == "Policy" else ""
    text = f"""
    apiVersion: kyverno.io/v1
    kind: {kind}
    metadata: {{name: p{home}}}
    spec:
      failurePolicy: Fail
      rules:
      - name: r
        match: {{any: [{{resources: {resources}}}]}}
        mutate: {{patchStrategicMerge: {{metadata: {{labels: {{a: b}}}}}}}}
    """
    made = textwrap.dedent(text)
    return made + textwrap.indent(textwrap.dedent(more), "    ") if more else made


def book(folder: Path, *texts: str) -> PolicyBook:
    (folder / "p.yaml").write_text("---\n".join(texts))
    return PolicyBook([str(folder)], None, Limits())


def registered(folder: Path, text: str) -> PolicyWebhooks:
    return webhooks_for(book(folder, text).current, Kinds(), judged=False)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        pytest.param("{kinds: [Namespace]}", ["CREATE,UPDATE namespaces"], id="default operations"),
        pytest.param(
            "{kinds: [v1/ConfigMap], operations: [CREATE, DELETE]}",
            ["CREATE configmaps"],
            id="no patch on DELETE",
        ),
        pytest.param("{kinds: [Namespace], operations: [DELETE]}", [], id="only DELETE"),
        pytest.param(
            "{kinds: [Pod]}",
            ["CREATE,UPDATE pods", "CREATE,UPDATE pods/ephemeralcontainers"],
            id="Pod and its ephemeral containers",
        ),
        pytest.param("{kinds: [Pod/exec]}", ["CREATE,UPDATE pods/exec"], id="a subresource"),
        pytest.param(
            "{kinds: [apps/*/Deployment]}", ["CREATE,UPDATE apps deployments"], id="any version"
        ),
        pytest.param("{kinds: [Node, Lease]}", [], id="what a cluster needs to heal"),
        pytest.param("{kinds: [Widget]}", [], id="not served"),
        pytest.param(
            "{kinds: ['*']}",
            [
                "CREATE,UPDATE apps deployments",
                "CREATE,UPDATE configmaps",
                "CREATE,UPDATE namespaces",
                "CREATE,UPDATE pods",
                "CREATE,UPDATE pods/ephemeralcontainers",
            ],
            id="a wildcard becomes what there is",
        ),
    ],
)
def test_policies_see_their_kinds_and_nothing_else(
    tmp_path: Path, resources: str, expected: list[str]
) -> None:
    found = registered(tmp_path, policy(resources))
    said = [
        " ".join(filter(None, (",".join(s.operations), s.group, s.resource))) for s in found.fail
    ]
    assert sorted(said) == expected
    assert found.ignore == ()


@pytest.mark.parametrize(
    ("kind", "told"), [("Node", "never sent to policies"), ("Widget", "does not serve kind Widget")]
)
def test_a_kind_that_is_not_sent_is_named_with_its_rule(
    tmp_path: Path, kind: str, told: str
) -> None:
    (problem,) = registered(tmp_path, policy(f"{{kinds: [{kind}]}}")).problems
    assert problem.startswith("p/r: ")
    assert told in problem


def test_a_rule_that_asks_who_made_a_trigger_sees_every_way_to_write_its_annotations(
    tmp_path: Path,
) -> None:
    generate = (
        "    generate:\n      apiVersion: v1\n      kind: ConfigMap\n      name: x\n"
        "      namespace: '{{request.object.metadata.name}}'\n"
        "      data: {data: {by: '{{request.userInfo.username}}'}}\n"
    )
    text = policy("{kinds: [Namespace, Deployment]}")
    found = registered(tmp_path, text[: text.index("    mutate:")] + generate)
    assert {(s.resource, s.operations) for s in found.fail} == {
        ("namespaces", ("CREATE", "UPDATE")),
        ("deployments", ("CREATE", "UPDATE")),
    }
    assert {(s.resource, s.operations) for s in found.ignore} == {
        ("namespaces/status", ("UPDATE",)),
        ("namespaces/finalize", ("UPDATE",)),
        ("deployments/status", ("UPDATE",)),
    }


def test_resources_that_share_everything_else_are_one_rule(tmp_path: Path) -> None:
    found = registered(tmp_path, policy("{kinds: [ConfigMap, Pod]}"))
    assert rules_of(found.fail) == [
        {
            "apiGroups": [""],
            "apiVersions": ["v1"],
            "resources": ["configmaps", "pods", "pods/ephemeralcontainers"],
            "operations": ["CREATE", "UPDATE"],
            "scope": "Namespaced",
        }
    ]


def test_a_rule_that_wants_our_own_requests_gets_them(tmp_path: Path) -> None:
    plain = policy("{kinds: [ConfigMap]}")
    wants = plain.replace("    mutate:", "    skipBackgroundRequests: false\n    mutate:")
    assert not registered(tmp_path, plain).own_requests
    assert registered(tmp_path, wants).own_requests


# --- the book -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            policy("{kinds: [Namespace]}", kind="Policy"), "make it a ClusterPolicy", id="Policy"
        ),
        pytest.param(policy("{names: [a]}"), "no kinds are given", id="every kind there is"),
    ],
)
def test_a_rule_that_may_not_run_is_refused_by_name_and_the_policy_stays(
    tmp_path: Path, text: str, told: str
) -> None:
    found = book(tmp_path, text).current
    (refused,) = found.refused
    assert (refused.policy.rpartition("/")[2], refused.rule) == ("p", "r")
    assert told in refused.reason
    assert len(found.held) == 1
    assert found.changing_requests() == ()


def test_a_path_that_cannot_be_read_ends_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        PolicyBook([str(tmp_path / "nowhere")], None, Limits())


def test_a_folder_that_vanishes_leaves_its_policies_in_force(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    made = book(folder, policy("{kinds: [Namespace]}"))
    (folder / "p.yaml").unlink()
    folder.rmdir()
    changed = made.check()
    assert changed is not None
    assert changed.refused
    assert len(made.current.held) == 1


def test_a_policy_of_another_kind_in_a_file_does_not_hold_back_the_file(tmp_path: Path) -> None:
    other = "apiVersion: policies.kyverno.io/v1\nkind: ValidatingPolicy\nmetadata: {name: v}\n"
    made = book(tmp_path, policy("{kinds: [Namespace]}"), other)
    assert len(made.current.held) == 1
    (tmp_path / "p.yaml").write_text(other)
    made.check()
    assert len(made.current.held) == 0
    assert any("ValidatingPolicy" in str(check) for check in made.checks())


def test_two_files_with_the_same_policy_keep_the_first_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").write_text(policy("{kinds: [Pod]}"))
    made = book(tmp_path, policy("{kinds: [Namespace]}"))
    assert [each.policy.origin.file for each in made.current.held] == [str(tmp_path / "p.yaml")]
    assert any("given twice" in str(check) for check in made.checks())


# --- somebody else who executes them ------------------------------------------------------------

OLD = Deployed("kyverno/kyverno-admission-controller", 1, (1, 19))
NEW = Deployed("kyverno/kyverno-admission-controller", 1, (1, 20))
UNKNOWN = Deployed("kyverno/kyverno-admission-controller", 1, None)
IDLE = Deployed("kyverno/kyverno-admission-controller", 0, (1, 19))


@pytest.mark.parametrize(
    ("webhooks", "deployments", "told"),
    [
        pytest.param([], [], "", id="no Kyverno"),
        pytest.param([], [OLD], "", id="it has not registered anything"),
        pytest.param(["w"], [OLD], "1.19; scale it down", id="it executes policies"),
        pytest.param(["w"], [NEW], "", id="it no longer does"),
        pytest.param(["w"], [UNKNOWN], "of unknown release", id="it cannot be told"),
        pytest.param(["w"], [NEW, OLD], "1.19", id="two of them"),
        pytest.param(["w"], [IDLE], "", id="scaled to nothing"),
        pytest.param(["w"], [], "delete them if it was uninstalled", id="only left-overs"),
    ],
)
def test_ringfence_stands_back_for_a_kyverno_that_may_execute_policies(
    webhooks: list[str], deployments: list[Deployed], told: str
) -> None:
    why = judge(webhooks, deployments)
    assert bool(why) == bool(told)
    assert told in why


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("mirror:5000/kyverno/kyverno:v1.19.0", (1, 19)),
        ("kyverno:1.20.1-rc.1", (1, 20)),
        ("mirror:5000/kyverno", None),
        ("kyverno:latest", None),
        ("kyverno@sha256:0123", None),
    ],
)
def test_the_release_is_that_of_the_image(image: str, release: tuple[int, int] | None) -> None:
    document: Document = {
        "metadata": {"name": "k", "namespace": "kyverno"},
        "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
    }
    assert read_deployment(document) == Deployed("kyverno/k", 1, release)


# --- lookups ------------------------------------------------------------------------------------


def test_the_roles_of_a_requester_are_those_that_bindings_give_to_name_groups_and_account() -> None:
    robot = ("User", "system:serviceaccount:ci:robot")
    index = BindingIndex()
    for number, binding in enumerate(
        [
            Binding("shop", "Role", "editor", frozenset({("User", "anna")})),
            Binding("shop", "ClusterRole", "view", frozenset({("Group", "team")})),
            Binding("", "ClusterRole", "cluster-admin", frozenset({("User", "bert")})),
            Binding("ci", "Role", "deployer", frozenset({robot})),
        ]
    ):
        index.note(Key(binding.namespace, str(number)), binding)
    anna = index.roles_of(Requester("anna", frozenset({"team"})))
    assert (anna.roles, anna.cluster_roles) == (("shop:editor",), ("view",))
    account = index.roles_of(Requester(robot[1]))
    assert (account.roles, account.cluster_roles) == (("ci:deployer",), ())


_SUBJECTS = [("User", "anna"), ("User", "bert"), ("Group", "team"), ("Group", "ops")]
_BINDINGS = st.builds(
    Binding,
    st.sampled_from(["shop", "ci"]),
    st.sampled_from(["Role", "ClusterRole"]),
    st.sampled_from(["a", "b"]),
    st.frozensets(st.sampled_from(_SUBJECTS)),
)


@given(st.lists(st.tuples(st.sampled_from("wxyz"), st.none() | _BINDINGS), max_size=20))
def test_roles_follow_bindings_that_come_change_and_go(
    steps: list[tuple[str, Binding | None]],
) -> None:
    """As if all bindings were looked through; what nobody is bound by any more is not kept."""
    index = BindingIndex()
    held: dict[str, Binding] = {}
    for name, binding in steps:
        index.note(Key("", name), binding)
        held.pop(name, None)
        if binding is not None:
            held[name] = binding
        who = Requester("anna", frozenset({"team"}))
        mine = [b for b in held.values() if b.subjects & {("User", "anna"), ("Group", "team")}]
        assert index.roles_of(who) == Roles(
            tuple(sorted({f"{b.namespace}:{b.role}" for b in mine if b.kind == "Role"})),
            tuple(sorted({b.role for b in mine if b.kind == "ClusterRole"})),
        )
        assert index.subjects == len({s for b in held.values() for s in b.subjects})


def test_every_lookup_that_cannot_be_answered_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(AWAY)
    lookups = AdmissionLookups(Client.connect(str(tmp_path / "kubeconfig")))
    config_map = ObjectKind("", "v1", "ConfigMap")
    for ask in (
        lambda: lookups.namespace_labels("shop"),
        lambda: lookups.find(ObjectKey(config_map, "shop", "a")),
        lambda: lookups.list(config_map, "shop"),
        lambda: lookups.get("/api/v1/namespaces/shop"),
    ):
        with pytest.raises(LookupFailed):
            ask()
    lookups.stop()


def test_what_policies_read_is_known_before_they_run(tmp_path: Path) -> None:
    text = policy("{kinds: [Pod], namespaceSelector: {matchLabels: {a: b}}}").replace(
        "    mutate:",
        "    context: [{name: c, configMap: {name: x, namespace: shop}}]\n"
        "    preconditions:\n"
        "      all: [{key: '{{request.clusterRoles}}', operator: Equals, value: x}]\n"
        "    mutate:",
    )
    found = usage(book(tmp_path, text).current.policies)
    assert found.config_maps == {"shop"}
    assert found.namespaces
    assert found.roles
    everywhere = text.replace("namespace: shop", "namespace: '{{request.namespace}}'")
    assert usage(book(tmp_path, everywhere).current.policies).config_maps == {""}
