"""The path names the tenant file that may decide: one that was read, the newest or one before."""

from __future__ import annotations

import orjson
import pytest
from flask.testing import FlaskClient

from tests.webhook.reviews import KEY, ONE, TENANTS, TWO, JSONObject, body, ns, request
from webhook.registration.replicas import Replica, read_answer
from webhook.reload import KEPT_FILES
from webhook.serving.state import WebhookState

PROOF = TENANTS.replace("labelKey: client", "labelKey: proof")
PROBE = request("UPDATE", ns("default", {KEY: "Nobody"}), ns("default"), by=ONE)


def post(client: FlaskClient, path: str, asked: JSONObject) -> JSONObject:
    answer = client.post(path, data=body(asked), content_type="application/json")
    assert answer.status_code == 200
    found = orjson.loads(answer.data)
    assert isinstance(found, dict)
    return found


def allowed(answer: JSONObject) -> bool:
    inner = answer["response"]
    assert isinstance(inner, dict)
    return inner["allowed"] is True


def reread(state: WebhookState, text: str) -> str:
    state.tenants.path.write_text(text)
    state.tenants.check()
    return state.tenants.config.digest


def test_a_file_that_was_read_decides_until_it_is_forgotten(
    client: FlaskClient, state: WebhookState
) -> None:
    first = state.tenants.config.digest
    second = reread(state, PROOF)
    made = request("CREATE", ns("plain", {KEY: "test01"}), by=TWO)
    assert not allowed(post(client, f"/validate/{first}", made))
    # Under the other key, `client` is a label like any other, and test02's is missing.
    refused = post(client, f"/validate/{second}", made)
    assert "label proof=test02 is missing" in str(refused)
    for number in range(KEPT_FILES):
        reread(state, f"{PROOF}# {number}\n")
    assert read_answer("x", post(client, f"/validate/{first}", PROBE)).decided == ""


@pytest.mark.parametrize("path", ["/mutate", "/validate"])
def test_a_file_that_was_not_read_refuses_with_both_digests(
    client: FlaskClient, state: WebhookState, path: str
) -> None:
    unknown, here = "f" * 64, state.tenants.config.digest
    answer = post(client, f"{path}/{unknown}", PROBE)
    assert not allowed(answer)
    assert "try again in a minute" in str(answer)
    assert read_answer("x", answer) == Replica("x", "", here)


def test_a_refusal_says_which_file_decided_and_which_is_the_newest(
    client: FlaskClient, state: WebhookState
) -> None:
    first = state.tenants.config.digest
    second = reread(state, f"{TENANTS}# newer\n")
    asked = post(client, f"/validate/{first}", PROBE)
    assert read_answer("x", asked) == Replica("x", first, second)
    assert read_answer("x", post(client, "/validate", PROBE)) == Replica("x", second, second)


def test_closed_refuses_what_decides_a_tenant_and_nothing_else(
    client: FlaskClient, state: WebhookState
) -> None:
    path = f"/validate/{state.tenants.config.digest}/closed"
    full = {KEY: "test01", "cost-centre": "4711"}
    for asked in (
        request("CREATE", ns("plain"), by=ONE),
        request("UPDATE", ns("a", full | {"team": "x"}), ns("a", full), by=ONE),
    ):
        answer = post(client, path, asked)
        assert not allowed(answer)
        assert "try again in a few seconds" in str(answer)
    assert allowed(post(client, path, request("DELETE", None, ns("a", full), by=ONE)))


def test_an_answer_that_says_yes_tells_the_file_in_the_audit_log(
    client: FlaskClient, state: WebhookState
) -> None:
    answer = post(client, "/mutate", request("CREATE", ns("app-test01"), by=ONE))
    inner = answer["response"]
    assert isinstance(inner, dict)
    assert inner["auditAnnotations"]["tenant-file"] == state.tenants.config.digest


@pytest.mark.parametrize("answer", [None, {}, {"response": {"status": {}}}, {"response": 1}, []])
def test_a_webhook_that_says_nothing_of_files_has_read_none(answer: object) -> None:
    assert read_answer("x", answer) == Replica("x", "", "")
