"""Whatever is sent to the webhook, the answer is JSON, and never a 500."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import orjson
import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from generators.certificates import issue, new_authority
from tests.webhook.reviews import (
    POLICIES,
    TENANTS,
    JSONObject,
    body,
    netpol,
    ns,
    request,
    review_document,
)
from webhook.registration.certificates import write_files
from webhook.review import MAX_BODY
from webhook.serving.app import create_app
from webhook.serving.state import load_state
from webhook.settings import WebhookSettings

GOOD = body(request("CREATE", ns("app-test01")))
JSON = "application/json"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """One for all examples of Hypothesis."""
    folder, now = tmp_path_factory.mktemp("webhook"), datetime.now(UTC)
    (folder / "tenants.yaml").write_text(TENANTS)
    authority = new_authority(now, 1)
    write_files(folder, authority.pem, issue(authority, ("localhost",), now, 1))
    settings = WebhookSettings(folder / "tenants.yaml", folder / "tls.crt", folder / "tls.key")
    return create_app(load_state(settings)).test_client()


def refused(client: FlaskClient, data: bytes, path: str = "/validate", kind: str = JSON) -> int:
    """The status of an answer that must be a metav1.Status."""
    answer = client.post(path, data=data, content_type=kind)
    status = orjson.loads(answer.data)
    assert answer.mimetype == JSON
    assert (status["kind"], status["status"]) == ("Status", "Failure")
    assert status["code"] == answer.status_code
    assert "Traceback" not in status["message"]
    return answer.status_code


NESTED_TEXT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
BODIES = {
    "nothing": b"",
    "not JSON": b"hello",
    "half of it": GOOD[:-20],
    "two documents": GOOD + GOOD,
    "not UTF-8": GOOD.replace(b"app-test01", b"app-\xff\xfe"),
    "UTF-16": GOOD.decode().encode("utf-16"),
    "NaN": b'{"apiVersion": NaN}',
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": NESTED_TEXT,
    "deep inside the object": GOOD.replace(b'"app-test01"', NESTED_TEXT, 1),
}


@pytest.mark.parametrize("path", ["/mutate", "/validate"])
@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_review_is_a_400(client: FlaskClient, data: bytes, path: str) -> None:
    assert refused(client, data, path) == 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("apiVersion", "admission.k8s.io/v1beta1"),
        ("apiVersion", "v1"),
        ("apiVersion", None),
        ("kind", "Review"),
        ("kind", ["AdmissionReview"]),
        ("request", None),
        ("request", []),
        ("request", "x"),
    ],
    ids=str,
)
def test_another_envelope_is_a_400(client: FlaskClient, key: str, value: object) -> None:
    whole = review_document(request("CREATE", ns("app-test01"))) | {key: value}
    assert refused(client, orjson.dumps(whole)) == 400
    del whole[key]
    assert refused(client, orjson.dumps(whole)) == 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("uid", ""),
        ("uid", None),
        ("uid", 7),
        ("operation", "PATCH"),
        ("operation", None),
        ("operation", ["CREATE"]),
        ("kind", "Namespace"),
        ("kind", {}),
        ("resource", "namespaces"),
        ("resource", {"group": 1, "version": "v1", "resource": "namespaces"}),
        ("resource", {"group": "", "version": "v1", "resource": ""}),
        ("subResource", {}),
        ("name", 1),
        ("name", "another-name"),
        ("namespace", []),
        ("dryRun", "yes"),
        ("userInfo", None),
        ("userInfo", "root"),
        ("userInfo", {"username": ""}),
        ("userInfo", {"username": 0}),
        ("userInfo", {"username": "x", "groups": "system:masters"}),
        ("userInfo", {"username": "x", "groups": [1]}),
        ("object", None),
        ("object", []),
        ("object", "x"),
        ("oldObject", 1),
    ],
    ids=str,
)
def test_a_field_of_another_shape_is_a_400(client: FlaskClient, key: str, value: object) -> None:
    asked = request("CREATE", ns("app-test01")) | {key: value}
    assert refused(client, body(asked)) == 400


def test_an_update_without_the_old_object_is_a_400(client: FlaskClient) -> None:
    assert refused(client, body(request("UPDATE", ns("app-test01")))) == 400
    assert refused(client, body(request("UPDATE", None, ns("app-test01")))) == 400


def test_a_deletion_without_the_old_object_is_a_400(client: FlaskClient) -> None:
    assert refused(client, body(request("DELETE", resource=POLICIES))) == 400


def test_nine_mebibytes_are_a_413(client: FlaskClient) -> None:
    padded = body(request("CREATE", ns("app-test01"), padding="x" * 9 * 1024 * 1024))
    assert refused(client, padded) == 413


def test_just_below_the_limit_is_read(client: FlaskClient) -> None:
    padded = body(request("CREATE", ns("app-test01"), padding="x" * (MAX_BODY - 4096)))
    assert client.post("/validate", data=padded, content_type=JSON).status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/yaml", "application/jsonx", "multipart/form-data", "x"]
)
def test_another_content_type_is_a_415(client: FlaskClient, kind: str) -> None:
    assert refused(client, GOOD, kind=kind) == 415


@pytest.mark.parametrize("kind", [JSON, "application/json; charset=utf-8", "Application/JSON"])
def test_json_by_any_spelling_is_read(client: FlaskClient, kind: str) -> None:
    assert client.post("/validate", data=GOOD, content_type=kind).status_code == 200


def test_a_compressed_body_is_a_415(client: FlaskClient) -> None:
    answer = client.post(
        "/validate", data=GOOD, content_type=JSON, headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415


def test_another_method_is_a_405_and_says_which(client: FlaskClient) -> None:
    answer = client.get("/mutate")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.json is not None


def test_another_path_is_a_404_in_json(client: FlaskClient) -> None:
    answer = client.post("/", data=GOOD, content_type=JSON)
    assert answer.status_code == 404
    assert answer.json is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SEEDS: list[JSONObject] = [
    request("CREATE", ns("app-test01", {"client": "test01"})),
    request("UPDATE", ns("app-test01", {"a": "b"}), ns("app-test01", {"client": "test01"})),
    request("UPDATE", netpol({"a": "b"}), netpol({"c": "d"}), resource=POLICIES),
    request("DELETE", None, ns("app-test01")),
]


def paths(value: object, below: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where something can be replaced."""
    if not isinstance(value, dict):
        return [below]
    deeper = [path for key, inner in value.items() for path in paths(inner, (*below, key))]
    return [below, *deeper]


def replaced(value: object, path: tuple[str, ...], by: object) -> object:
    if not path:
        return by
    assert isinstance(value, dict)
    return value | {path[0]: replaced(value[path[0]], path[1:], by)}


@st.composite
def damaged(draw: st.DrawFn) -> object:
    """A good review with one to three values replaced by something else."""
    whole: object = review_document(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        whole = replaced(whole, draw(st.sampled_from(paths(whole))), draw(json_values))
    return whole


def sound(client: FlaskClient, data: bytes, kind: str = JSON) -> None:
    for path in ("/mutate", "/validate"):
        answer = client.post(path, data=data, content_type=kind)
        assert answer.status_code in (200, 400, 413, 415)
        assert answer.mimetype == JSON
        assert isinstance(orjson.loads(answer.data), dict)


@given(data=st.binary(max_size=300))
def test_any_bytes_get_a_json_answer(client: FlaskClient, data: bytes) -> None:
    sound(client, data)


@given(value=json_values)
def test_any_json_gets_a_json_answer(client: FlaskClient, value: object) -> None:
    sound(client, json.dumps(value).encode())


@given(whole=damaged())
def test_any_damaged_review_gets_a_json_answer(client: FlaskClient, whole: object) -> None:
    sound(client, json.dumps(whole).encode())


@given(kind=st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40))
def test_any_content_type_gets_a_json_answer(client: FlaskClient, kind: str) -> None:
    sound(client, GOOD, kind)
