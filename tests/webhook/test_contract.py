"""Every row of the AdmissionReview v1 contract, byte for byte where the API server is strict."""

from __future__ import annotations

import orjson
import pytest
from flask.testing import FlaskClient

from tests.webhook.reviews import (
    KEY,
    NAMESPACES,
    ONE,
    PLATFORM,
    POLICIES,
    ROBOT,
    TWO,
    JSONObject,
    body,
    decoded,
    netpol,
    ns,
    request,
    review_document,
)
from webhook.review import Decision, Denial, respond

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"
TENANT_LABELS = {KEY: "test01", "cost-centre": "4711"}


def post(client: FlaskClient, path: str, whole: object) -> JSONObject:
    answer = client.post(path, data=orjson.dumps(whole), content_type="application/json")
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    document: JSONObject = orjson.loads(answer.data)
    return document


def response(client: FlaskClient, path: str, asked: JSONObject) -> JSONObject:
    inner = post(client, path, review_document(asked))["response"]
    assert isinstance(inner, dict)
    return inner


def allowed_without_patch(answer: JSONObject) -> bool:
    return answer.keys() == {"uid", "allowed", "auditAnnotations"} and answer["allowed"] is True


def test_the_answer_is_the_golden_text() -> None:
    patch = ({"op": "add", "path": "/metadata/labels", "value": {KEY: "test01"}},)
    decision = Decision("because", tenant="test01", patch=patch, warnings=("w",), audit={"a": "b"})
    assert orjson.loads(respond("u", decision)) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": "u",
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL21ldGFkYXRhL2xhYmVscyIsInZhbHVlIjp7ImNsaWVu"
            "dCI6InRlc3QwMSJ9fV0=",
            "warnings": ["w"],
            "auditAnnotations": {"a": "b"},
        },
    }


def test_a_refusal_is_the_golden_text() -> None:
    assert orjson.loads(respond("u", Decision("no, because", Denial.FORBIDDEN))) == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": "u",
            "allowed": False,
            "status": {
                "status": "Failure",
                "code": 403,
                "reason": "Forbidden",
                "message": "no, because",
            },
        },
    }


EVERY_REQUEST = {
    "create": request("CREATE", ns("app-test01")),
    "create, refused": request("CREATE", ns("app-test01"), by=TWO),
    "create, generateName": request("CREATE", ns("", generateName="x-"), by=ONE),
    "update": request("UPDATE", ns("app-test01"), ns("app-test01"), by=PLATFORM),
    "update of status": request(
        "UPDATE", ns("a", {KEY: "test01"}), ns("a"), subresource="status", by=PLATFORM
    ),
    "delete": request("DELETE", None, ns("app-test01", TENANT_LABELS)),
    "connect": request("CONNECT", {"kind": "PodExecOptions"}),
}


@pytest.mark.parametrize("path", ["/mutate", "/validate"])
@pytest.mark.parametrize("asked", EVERY_REQUEST.values(), ids=EVERY_REQUEST)
class TestEveryAnswer:
    def test_echoes_version_kind_and_uid(
        self, client: FlaskClient, path: str, asked: JSONObject
    ) -> None:
        document = post(client, path, review_document(asked))
        inner = document.pop("response")
        assert document == {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        assert isinstance(inner, dict)
        assert inner["uid"] == UID
        assert isinstance(inner["allowed"], bool)

    def test_has_patch_and_type_together_or_neither(
        self, client: FlaskClient, path: str, asked: JSONObject
    ) -> None:
        inner = response(client, path, asked)
        assert ("patch" in inner) == ("patchType" in inner)
        if "patch" in inner:
            assert inner["patchType"] == "JSONPatch"
            assert decoded(str(inner["patch"])) != []

    def test_is_the_same_with_dry_run(
        self, client: FlaskClient, path: str, asked: JSONObject
    ) -> None:
        assert response(client, path, asked | {"dryRun": True}) == response(client, path, asked)


@pytest.mark.parametrize("asked", EVERY_REQUEST.values(), ids=EVERY_REQUEST)
def test_validating_never_answers_with_a_patch(client: FlaskClient, asked: JSONObject) -> None:
    assert "patch" not in response(client, "/validate", asked)


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
def test_mutating_never_patches_what_is_not_written(client: FlaskClient, operation: str) -> None:
    asked = request(operation, None, ns("app-test01"))
    assert allowed_without_patch(response(client, "/mutate", asked))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [{"op": "add", "path": "/metadata/labels", "value": TENANT_LABELS}]),
        ({}, [{"op": "add", "path": "/metadata/labels", "value": TENANT_LABELS}]),
        (
            {"a/b": "c"},
            [
                {"op": "add", "path": "/metadata/labels/client", "value": "test01"},
                {"op": "add", "path": "/metadata/labels/cost-centre", "value": "4711"},
            ],
        ),
    ],
    ids=["no labels map", "empty map", "other labels"],
)
def test_the_patch_applies_whatever_labels_there_are(
    client: FlaskClient, labels: object, expected: list[JSONObject]
) -> None:
    inner = response(client, "/mutate", request("CREATE", ns("app-test01", labels)))
    assert decoded(str(inner["patch"])) == expected


def test_nothing_to_change_is_an_answer_without_patch(client: FlaskClient) -> None:
    asked = request("CREATE", ns("app-test01", TENANT_LABELS))
    assert allowed_without_patch(response(client, "/mutate", asked))


def test_a_refusal_is_http_200_with_code_reason_and_message(client: FlaskClient) -> None:
    inner = response(client, "/validate", request("CREATE", ns("app-test01"), by=TWO))
    status = inner["status"]
    assert inner["allowed"] is False
    assert isinstance(status, dict)
    assert (status["code"], status["reason"], status["status"]) == (403, "Forbidden", "Failure")
    assert "test01" in str(status["message"])


def test_audit_annotations_are_strings_with_plain_keys(client: FlaskClient) -> None:
    inner = response(client, "/mutate", request("CREATE", ns("app-test01")))
    audit = inner["auditAnnotations"]
    assert isinstance(audit, dict)
    assert audit["tenant"] == "test01"
    assert all(isinstance(v, str) and "/" not in k for k, v in audit.items())


def test_long_warnings_are_cut_to_what_the_api_server_keeps() -> None:
    answer = orjson.loads(respond("u", Decision("ok", warnings=("w" * 5000,))))
    assert answer["response"]["warnings"] == ["w" * 256]


@pytest.mark.parametrize(
    "missing", ["name", "namespace", "dryRun", "object", "oldObject", "subResource"]
)
def test_optional_fields_may_be_missing(client: FlaskClient, missing: str) -> None:
    asked = request("CREATE", ns("app-test01"))
    if missing != "object":
        asked.pop(missing, None)
        assert response(client, "/mutate", asked)["allowed"] is True
    else:
        asked = request("CONNECT", None)
        asked.pop("object")
        assert response(client, "/mutate", asked)["allowed"] is True


def test_unknown_fields_are_ignored(client: FlaskClient) -> None:
    asked = request("CREATE", ns("app-test01"), options={"kind": "CreateOptions"}, requestKind={})
    assert response(client, "/mutate", asked)["allowed"] is True


def test_namespaces_of_another_api_group_are_not_namespaces(client: FlaskClient) -> None:
    stranger = NAMESPACES | {"group": "example.com"}
    asked = request("CREATE", ns("app-test01", {KEY: "test02"}), resource=stranger, by=ROBOT)
    assert allowed_without_patch(response(client, "/validate", asked))


def test_a_network_policy_is_never_patched(client: FlaskClient) -> None:
    whole = body(request("CREATE", netpol(), resource=POLICIES))
    answer = client.post("/mutate", data=whole, content_type="application/json")
    assert "patch" not in orjson.loads(answer.data)["response"]
