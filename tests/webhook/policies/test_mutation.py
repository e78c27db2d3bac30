"""Mutate rules at admission: policies from files, answered by the Flask application."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import textwrap
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

import jsonpatch
import orjson
import pytest
from flask.testing import FlaskClient

from generators.documents.json import mapping, strings
from generators.kyverno.engine import Environment
from generators.kyverno.model import FailurePolicy
from generators.tenants.assignment import Requester
from generators.tenants.model import TenantConfig
from tests.testbed.waiting import eventually
from tests.webhook import processes, reviews
from tests.webhook.reviews import AWAY, CONTROLLER, ROBOT, JSONObject, decoded, ns, request
from webhook.policies import mutation
from webhook.policies.desk import PolicyDesk
from webhook.policies.lookups import AdmissionLookups
from webhook.policies.roles import Roles
from webhook.serving.app import create_app
from webhook.serving.state import State, load_state
from webhook.settings import Settings

FAIL, IGNORE = "/mutate-policies/fail", "/mutate-policies/ignore"
ANY = "match: {any: [{resources: {kinds: [Namespace]}}]}"


def policy(name: str, *rules: str, spec: str = "") -> str:
    """A ClusterPolicy; each rule is the text below its name."""
    listed = "".join(
        f"  - name: rule-{number}\n{textwrap.indent(textwrap.dedent(rule).strip(), '    ')}\n"
        for number, rule in enumerate(rules)
    )
    head = textwrap.indent(textwrap.dedent(spec).strip(), "  ")
    return (
        f"apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {{name: {name}}}\n"
        f"spec:\n{head}\n  rules:\n{listed}"
    )


def labelling(name: str, key: str, value: str, more: str = "", spec: str = "") -> str:
    """A policy that labels every namespace."""
    patch = f"mutate: {{patchStrategicMerge: {{metadata: {{labels: {{{key}: {value}}}}}}}}}"
    return policy(name, f"{ANY}\n{more}\n{patch}", spec=spec)


class Webhook:
    """The application with the policies of a folder."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.folder = files / "policies"
        self.folder.mkdir()
        self.state: State | None = None

    def write(self, *policies: str, file: str = "all.yaml") -> None:
        (self.folder / file).write_text("---\n".join(policies))

    @property
    def desk(self) -> PolicyDesk:
        assert self.state is not None
        assert self.state.policies is not None
        return self.state.policies

    def client(self) -> FlaskClient:
        if self.state is None:
            pair = (self.files / "tls.crt", self.files / "tls.key")
            settings = Settings(self.files / "tenants.yaml", *pair, policies=(str(self.folder),))
            self.state = load_state(settings)
        self.desk.look()
        return create_app(self.state).test_client()

    def ask(self, asked: JSONObject, path: str = FAIL) -> JSONObject:
        """`response` of the answer."""
        answer = self.client().post(path, data=reviews.body(asked), content_type="application/json")
        assert answer.status_code == 200, answer.text
        response: JSONObject = orjson.loads(answer.data)["response"]
        return response

    def after(self, asked: JSONObject, subject: JSONObject) -> JSONObject:
        """The object after admission."""
        response = self.ask(asked)
        assert response["allowed"], response
        patch = decoded(str(response["patch"])) if "patch" in response else []
        result: JSONObject = jsonpatch.apply_patch(subject, patch)
        return result

    def labels(
        self, subject: JSONObject, path: str = FAIL, by: Requester = ROBOT
    ) -> dict[str, str]:
        """The labels after admission."""
        response = self.ask(request("CREATE", subject, by=by), path)
        assert response["allowed"], response
        patch = decoded(str(response["patch"])) if "patch" in response else []
        result: JSONObject = jsonpatch.apply_patch(subject, patch)
        return reviews.labels(result)


def noted_on(document: JSONObject) -> dict[str, str]:
    return strings(mapping(document, "metadata"), "annotations")


@pytest.fixture
def webhook(files: Path) -> Webhook:
    return Webhook(files)


def message(response: JSONObject) -> str:
    status = response["status"]
    assert isinstance(status, dict)
    return str(status["message"])


def test_each_policy_sees_what_the_one_before_left(webhook: Webhook) -> None:
    follows = policy(
        "b-follows",
        """
        match: {any: [{resources: {kinds: [Namespace], selector: {matchLabels: {team: shop}}}}]}
        mutate:
          patchStrategicMerge:
            metadata: {labels: {seen: "{{request.object.metadata.labels.team}}"}}
        """,
    )
    webhook.write(labelling("a-first", "team", "shop"), follows)
    assert webhook.labels(ns("plain")) == {"team": "shop", "seen": "shop"}


def test_apply_rules_one_ends_a_policy_after_its_first_rule_that_applied(webhook: Webhook) -> None:
    rule = "{ANY}\nmutate: {{patchStrategicMerge: {{metadata: {{labels: {{{label}: x}}}}}}}}"
    rules = [rule.format(ANY=ANY, label=label) for label in ("one", "two")]
    webhook.write(policy("one", *rules, spec="applyRules: One"))
    assert webhook.labels(ns("plain")) == {"one": "x"}


def test_the_patch_holds_only_what_changes(webhook: Webhook) -> None:
    webhook.write(labelling("team", "team", "shop"))
    response = webhook.ask(request("CREATE", ns("plain", {"kept": "yes"})))
    assert decoded(str(response["patch"])) == [
        {"op": "add", "path": "/metadata/labels/team", "value": "shop"}
    ]
    assert "patch" not in webhook.ask(request("CREATE", ns("plain", {"team": "shop"})))


def test_an_unresolved_variable_refuses_under_fail_and_names_policy_rule_and_place(
    webhook: Webhook,
) -> None:
    webhook.write(labelling("broken", "team", '"{{request.object.metadata.labels.nope}}"'))
    response = webhook.ask(request("CREATE", ns("plain", {"a": "b"})))
    assert not response["allowed"]
    text = message(response)
    assert "policy broken, rule rule-0" in text
    assert f"{webhook.folder}/all.yaml:" in text
    assert "labels.team" in text
    assert "labels.nope" in text


def test_an_unresolved_variable_warns_under_ignore_and_the_others_still_apply(
    webhook: Webhook,
) -> None:
    broken = labelling("broken", "team", '"{{request.object.nope}}"', spec="failurePolicy: Ignore")
    webhook.write(broken, labelling("sound", "zone", "a", spec="failurePolicy: Ignore"))
    response = webhook.ask(request("CREATE", ns("plain")), IGNORE)
    assert response["allowed"]
    warnings = response["warnings"]
    assert isinstance(warnings, list)
    assert "policy broken, rule rule-0" in warnings[0]
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_each_policy_answers_where_its_failure_policy_is_registered(webhook: Webhook) -> None:
    webhook.write(
        labelling("f", "fail", "x"), labelling("i", "ignore", "x", spec="failurePolicy: Ignore")
    )
    assert webhook.labels(ns("plain"), FAIL) == {"fail": "x"}
    assert webhook.labels(ns("plain"), IGNORE) == {"ignore": "x"}


def test_a_policy_without_admission_changes_no_request(webhook: Webhook) -> None:
    webhook.write(labelling("later", "team", "x", spec="admission: false"))
    for path in (FAIL, IGNORE):
        assert "patch" not in webhook.ask(request("CREATE", ns("plain")), path)


def test_a_patch_that_makes_an_invalid_namespace_is_refused_with_a_message(
    webhook: Webhook,
) -> None:
    webhook.write(labelling("bad", "team", '"not a label!"'))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "metadata.labels.team" in message(response)


@pytest.mark.parametrize(
    "patch",
    [
        "{spec: {finalizers: [a/b]}}",
        "{metadata: {finalizers: [a/b]}}",
        "{metadata: {ownerReferences: [{kind: X}]}}",
        "{status: {phase: Terminating}}",
    ],
)
def test_of_a_namespace_policies_change_labels_and_annotations_only(
    webhook: Webhook, patch: str
) -> None:
    webhook.write(policy("bold", f"{ANY}\nmutate: {{patchStrategicMerge: {patch}}}"))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "only labels and annotations" in message(response)


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        pytest.param({}, "client", "test02", id="tenant label of a namespace without tenant"),
        pytest.param({"client": "test01"}, "client", "test02", id="tenant label moved"),
        pytest.param({"client": "test01"}, "client", "null", id="tenant label removed"),
        pytest.param(
            {"client": "test01", "cost-centre": "4711"},
            "cost-centre",
            "other",
            id="further label of the tenant",
        ),
        pytest.param({}, "ringfence.io/policy", "x", id="our domain"),
        pytest.param({}, "x.ringfence.io/y", "x", id="below our domain"),
    ],
)
def test_no_policy_touches_what_the_tenant_file_decides(
    webhook: Webhook,
    caplog: pytest.LogCaptureFixture,
    given: dict[str, str],
    key: str,
    value: str,
) -> None:
    caplog.set_level(logging.INFO)
    webhook.write(labelling("forge", key, value))
    subject = ns("plain", given) if given else ns("plain")
    response = webhook.ask(request("CREATE", subject))
    assert response["allowed"]
    assert "patch" not in response
    warnings = response["warnings"]
    assert isinstance(warnings, list)
    assert "policy forge may not change labels" in warnings[0]
    said = "".join(str(vars(record)) for record in caplog.records)
    assert "no rule applied; withheld: forge/" in said
    assert "'applied: " not in said


def test_a_forged_tenant_label_is_gone_before_the_next_policy_looks(webhook: Webhook) -> None:
    follows = policy(
        "b-follows",
        """
        match: {any: [{resources: {kinds: [Namespace], selector: {matchLabels: {client: test02}}}}]}
        mutate: {patchStrategicMerge: {metadata: {labels: {seen: "yes"}}}}
        """,
    )
    webhook.write(labelling("a-forge", "client", "test02"), follows)
    assert "seen" not in webhook.labels(ns("plain", {"x": "y"}))


def test_a_policy_that_writes_the_tenant_label_as_it_is_changes_nothing(webhook: Webhook) -> None:
    webhook.write(labelling("same", "client", "test01"))
    response = webhook.ask(request("CREATE", ns("a-test01", {"client": "test01"})))
    assert response["allowed"]
    assert "patch" not in response
    assert "warnings" not in response


@pytest.mark.parametrize("name", ["kube-system", "kube-public", "ringfence-system"])
def test_protected_namespaces_are_left_alone(webhook: Webhook, name: str) -> None:
    webhook.write(labelling("all", "team", "x"))
    assert "patch" not in webhook.ask(request("CREATE", ns(name)))


def test_what_ringfence_generated_is_left_alone(webhook: Webhook) -> None:
    rule = """
    match: {any: [{resources: {kinds: [NetworkPolicy]}}]}
    mutate: {patchStrategicMerge: {spec: {policyTypes: [Egress]}}}
    """
    webhook.write(policy("open", rule))
    for labels, changed in (({"app.kubernetes.io/managed-by": "ringfence"}, False), ({}, True)):
        asked = request("CREATE", reviews.netpol(labels), resource=reviews.POLICIES)
        assert ("patch" in webhook.ask(asked | {"namespace": "app-test01"})) is changed


def test_requests_of_our_own_controller_are_skipped_unless_the_rule_wants_them(
    webhook: Webhook,
) -> None:
    webhook.write(
        labelling("skips", "one", "x"),
        labelling("wants", "two", "x", "skipBackgroundRequests: false"),
    )
    assert webhook.labels(ns("plain"), by=CONTROLLER) == {"two": "x"}


WHO = "ringfence.io/created-by"
ASKS = """
match: {any: [{resources: {kinds: [Namespace]}}]}
generate:
  apiVersion: v1
  kind: ConfigMap
  name: who
  namespace: "{{request.object.metadata.name}}"
  data: {data: {by: "{{request.userInfo.username}}"}}
"""


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "nobody asks, or not yet"])
@pytest.mark.parametrize(
    "labels",
    [{}, {"app.kubernetes.io/managed-by": "ringfence"}],
    ids=["plain", "said to be ours"],
)
def test_nobody_else_says_who_made_an_object(
    webhook: Webhook, asked: bool, labels: dict[str, str]
) -> None:
    if asked:
        webhook.write(policy("asks", ASKS))
    else:
        webhook.write(labelling("else", "a", "b"))
    forged = ns("plain", labels)
    meta = forged["metadata"]
    assert isinstance(meta, dict)
    meta["annotations"] = {WHO: '{"username": "mallory"}'}
    made = webhook.after(request("CREATE", forged, by=ROBOT), forged)
    noted = noted_on(made).get(WHO, "")
    assert ROBOT.username in noted if asked else noted == ""
    was = ns("plain", labels)
    for subresource in ("", "status", "finalize"):
        changed = request("UPDATE", forged, was, by=ROBOT, subresource=subresource)
        assert WHO not in noted_on(webhook.after(changed, forged))


def test_a_namespaced_policy_acts_in_its_own_namespace_only(webhook: Webhook) -> None:
    text = policy(
        "mine",
        """
        match: {any: [{resources: {kinds: [ConfigMap]}}]}
        mutate: {patchStrategicMerge: {data: {stamp: "yes"}}}
        """,
    ).replace(
        "kind: ClusterPolicy\nmetadata: {name: mine}",
        "kind: Policy\nmetadata: {name: mine, namespace: shop}",
    )
    webhook.write(text)
    resource: JSONObject = {"group": "", "version": "v1", "resource": "configmaps"}
    for namespace, stamped in (("shop", True), ("other", False)):
        subject: JSONObject = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c"},
        }
        answer = webhook.ask(request("CREATE", subject, resource=resource, namespace=namespace))
        assert ("patch" in answer) is stamped, namespace


def test_a_rule_sees_who_asks(webhook: Webhook) -> None:
    webhook.write(labelling("who", "by", '"{{request.userInfo.username}}"'))
    assert webhook.labels(ns("plain"), by=Requester("anna")) == {"by": "anna"}


def test_mutate_rules_with_the_namespace_itself_as_target_label_it_at_once(
    webhook: Webhook,
) -> None:
    example = Path(__file__).parents[3] / "examples/kyverno/add-client-label-namespaces.yaml"
    webhook.write(example.read_text().replace("client: test02", "team: shop"))
    assert webhook.labels(ns("a-test02"), IGNORE) == {"team": "shop"}
    assert "patch" not in webhook.ask(request("CREATE", ns("a-test01")), IGNORE)
    assert "patch" not in webhook.ask(request("CREATE", ns("a-test02")), FAIL)


def test_a_lookup_without_an_api_server_is_an_error_and_never_no_match(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    context = """
    context: [{name: teams, configMap: {name: teams, namespace: shop}}]
    """
    webhook.write(
        policy(
            "reads",
            f"{ANY}\n{textwrap.dedent(context).strip()}\n"
            'mutate: {patchStrategicMerge: {metadata: {labels: {team: "{{teams.data.x}}"}}}}',
        )
    )
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert "ConfigMap" in message(response)


def test_roles_that_are_not_known_fail_the_policies_that_ask_for_them_and_no_others(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    filtered = "match: {any: [{resources: {kinds: [Namespace]}, clusterRoles: [x]}]}"
    patch = "mutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
    asks = policy("asks", f"{filtered}\n{patch}")
    webhook.write(asks, labelling("does-not", "zone", "a", spec="failurePolicy: Ignore"))
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"]
    assert message(response).startswith("policy asks: who has which roles is not known yet")
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_roles_are_looked_up_for_requests_that_a_rule_asks_about_and_no_others(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def roles(_: AdmissionLookups, requester: Requester) -> Roles:
        asked.append(requester.username)
        return Roles(cluster_roles=("x",))

    monkeypatch.setattr(AdmissionLookups, "roles", roles)
    patch = "mutate: {patchStrategicMerge: {metadata: {labels: {a: b}}}}"
    elsewhere = policy(
        "elsewhere",
        f"match: {{any: [{{resources: {{kinds: [Pod]}}, clusterRoles: [x]}}]}}\n{patch}",
    )
    webhook.write(elsewhere, labelling("all", "zone", "a"))
    assert webhook.labels(ns("plain")) == {"zone": "a"}
    assert asked == []
    webhook.write(
        policy(
            "filters",
            f"match: {{any: [{{resources: {{kinds: [Namespace]}}, clusterRoles: [x]}}]}}\n{patch}",
        ),
        labelling("names", "zone", '"{{request.clusterRoles[0]}}"'),
    )
    assert webhook.labels(ns("plain")) == {"a": "b", "zone": "x"}
    assert asked == [ROBOT.username]


def test_before_the_policies_of_the_cluster_are_known_requests_are_not_answered(
    files: Path,
) -> None:
    (files / "kubeconfig").write_text(AWAY)
    pair = (files / "tls.crt", files / "tls.key")
    kubeconfig = str(files / "kubeconfig")
    settings = Settings(files / "tenants.yaml", *pair, policies=("cluster",), kubeconfig=kubeconfig)
    state = load_state(settings)
    assert state.policies is not None
    state.policies.look()
    client = create_app(state).test_client()
    body = reviews.body(request("CREATE", ns("plain")))
    for path, status in ((FAIL, 503), (IGNORE, 503), ("/mutate", 200)):
        answer = client.post(path, data=body, content_type="application/json")
        assert answer.status_code == status, path
    ready = client.get("/readyz")
    assert ready.status_code == 503
    assert "[-]clusterpolicies.kyverno.io: not synced" in ready.text


HOSTILE: dict[str, Callable[[], str]] = {
    "deep": lambda: labelling("bad", "a", '"{{ ' + "(" * 500 + "a" + ")" * 500 + ' }}"'),
    "huge": lambda: labelling("bad", "a", '"{{ ' + "a." * 6000 + 'a }}"'),
    "random": lambda: labelling("bad", "a", "\"{{ random('([a-z]{60000}){60000}') }}\""),
    "backtracking": lambda: labelling(
        "bad", "a", "\"{{ regex_match('(a+)+$', '" + "a" * 5000 + "b') }}\""
    ),
    "loops in loops": lambda: policy(
        "bad",
        f"""
        {ANY}
        context: [{{name: l, variable: {{value: [{",".join("1" * 1000)}]}}}}]
        mutate:
          foreach:
          - list: l
            foreach:
            - list: l
              patchStrategicMerge: {{metadata: {{annotations: {{a: x}}}}}}
        """,
    ),
    "nested": lambda: labelling("bad", "a", '"' + "{{" * 200 + "a" + "}}" * 200 + '"'),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.timeout(10)
def test_a_hostile_policy_is_an_error_of_its_rule_and_hurts_nobody_else(
    webhook: Webhook, kind: str
) -> None:
    webhook.write(labelling("sound", "zone", "a", spec="failurePolicy: Ignore"), HOSTILE[kind]())
    response = webhook.ask(request("CREATE", ns("plain")))
    assert not response["allowed"] or "patch" in response
    assert webhook.labels(ns("plain"), IGNORE) == {"zone": "a"}


def test_a_request_waits_for_its_policies_three_seconds_at_most(
    webhook: Webhook, config: TenantConfig
) -> None:
    webhook.write(labelling("first", "a", "x"), labelling("second", "b", '"{{request.operation}}"'))
    webhook.client()
    seconds = itertools.count()
    bench = mutation.AdmissionDeps(
        config,
        webhook.desk.book.current,
        Environment(AdmissionLookups(None)),
        "controller",
        lambda review: Roles(),
        clock=lambda: float(next(seconds)) * 2,
    )
    decision = mutation.decide(bench, reviews.create(ns("plain")), FailurePolicy.FAIL)
    assert not decision.allowed
    assert "policy second: the policies before it took longer than 3 s" in decision.message


def test_a_bad_file_is_refused_the_last_good_one_stays_and_readyz_and_metrics_say_so(
    webhook: Webhook,
) -> None:
    webhook.write(labelling("team", "team", "one"), file="a.yaml")
    webhook.write(labelling("zone", "zone", "a"), file="b.yaml")
    assert webhook.labels(ns("plain")) == {"team": "one", "zone": "a"}
    webhook.write("spec: [", file="a.yaml")
    webhook.write(labelling("zone", "zone", "b"), file="b.yaml")
    assert webhook.labels(ns("plain")) == {"team": "one", "zone": "b"}
    ready = webhook.client().get("/readyz")
    assert ready.status_code == 200
    assert "[!]policy file:" in ready.text
    assert "a.yaml:2" in ready.text
    assert _metric(webhook, "ringfence_policies_last_reload_successful") == 0
    webhook.write(labelling("team", "team", "two"), file="a.yaml")
    assert webhook.labels(ns("plain")) == {"team": "two", "zone": "b"}
    assert _metric(webhook, "ringfence_policies_last_reload_successful") == 1
    (webhook.folder / "a.yaml").unlink()
    assert webhook.labels(ns("plain")) == {"zone": "b"}


def _metric(webhook: Webhook, name: str) -> float | None:
    assert webhook.state is not None
    return webhook.state.metrics.registry.get_sample_value(name)


def test_rules_that_are_not_carried_out_are_named_with_the_reason(webhook: Webhook) -> None:
    checks = f"{ANY}\nvalidate: {{message: no, pattern: {{metadata: {{name: a}}}}}}"
    secret = f"""
    {ANY}
    generate:
      apiVersion: v1
      kind: Secret
      name: copy
      namespace: "{{{{request.object.metadata.name}}}}"
      data: {{}}
    """
    webhook.write(policy("checks", checks), policy("copies", secret))
    ready = webhook.client().get("/readyz?verbose").text
    assert "[!]policy refused: checks/rule-0:" in ready
    assert "validate" in ready
    assert "[!]policy refused: copies/rule-0:" in ready
    assert "--allow-kind v1/Secret" in ready
    assert _metric(webhook, "ringfence_policies_refused") == 2


def test_a_running_webhook_takes_policies_that_change_and_a_new_worker_has_the_last_good_ones(
    tmp_path: Path,
) -> None:
    folder = processes.prepare(tmp_path) / "policies"
    folder.mkdir()
    file = folder / "p.yaml"
    file.write_text(labelling("team", "team", "one"))
    asked = request("CREATE", ns("plain"))

    with processes.running(tmp_path, "--policies", str(folder)) as running:

        def label() -> object:
            with closing(running.connect()) as connection:
                response = processes.ask(connection, FAIL, asked)
            patch = decoded(str(response["patch"]))
            return patch[0]["value"]

        assert label() == {"team": "one"}
        file.write_text(labelling("team", "team", "two"))
        eventually(lambda: label() == {"team": "two"}, "the new policy is in force")
        eventually(lambda: running.events("policies_loaded"), "in the log")
        file.write_text("spec: [")
        eventually(lambda: running.events("policies_refused"), "refused, in the log")
        [worker] = running.workers()
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: running.workers() not in ([], [worker]), "a new worker")
        eventually(lambda: running.get("/readyz")[0] == HTTPStatus.OK, "it is ready")
        assert label() == {"team": "two"}
        assert running.metrics()["ringfence_policies_last_reload_successful"] == 0
