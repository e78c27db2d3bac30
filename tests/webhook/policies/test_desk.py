"""Policies in a running webhook: files that change, copies that are incomplete, /readyz."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

from tests.testbed.waiting import eventually
from tests.webhook import processes, reviews
from tests.webhook.policies.application import ANY, FAIL, IGNORE, Webhook, labelling, policy
from tests.webhook.reviews import AWAY, decoded, ns, request
from webhook.serving.app import create_app
from webhook.serving.state import load_state
from webhook.settings import WebhookSettings


def test_before_the_policies_of_the_cluster_are_known_requests_are_not_answered(
    files: Path,
) -> None:
    (files / "kubeconfig").write_text(AWAY)
    pair = (files / "tls.crt", files / "tls.key")
    kubeconfig = str(files / "kubeconfig")
    settings = WebhookSettings(
        files / "tenants.yaml", *pair, policies=("cluster",), kubeconfig=kubeconfig
    )
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
