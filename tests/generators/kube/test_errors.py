"""Every answer of an API server finds its place in the tree of errors."""

from __future__ import annotations

import pytest

from generators.kube import errors
from generators.kube.errors import ApiStatus, Cause, KubeError, Unavailable, error_for


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", errors.BadRequest),
        (401, "Unauthorized", errors.Unauthorized),
        (403, "Forbidden", errors.Forbidden),
        (404, "NotFound", errors.NotFound),
        (409, "Conflict", errors.Conflict),
        (409, "AlreadyExists", errors.AlreadyExists),
        (410, "Expired", errors.Gone),
        (410, "Gone", errors.Gone),
        (422, "Invalid", errors.Invalid),
        (429, "TooManyRequests", errors.Overloaded),
        (500, "InternalError", errors.ServerFailed),
        (503, "ServiceUnavailable", errors.ServerFailed),
        (504, "Timeout", errors.ServerFailed),
        (405, "MethodNotAllowed", KubeError),
    ],
)
def test_a_status_becomes_the_error_of_its_meaning(
    code: int, reason: str, expected: type[KubeError]
) -> None:
    assert type(error_for("GET /x", ApiStatus(code, reason))) is expected


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (error_for("GET /x", ApiStatus(403)), 1),
        (error_for("GET /x", ApiStatus(503)), 3),
        (errors.Unreachable("GET /x", "refused"), 3),
    ],
)
def test_a_command_exits_3_when_there_is_no_api_server_and_1_when_it_says_no(
    error: KubeError, exit_code: int
) -> None:
    assert error.exit_code == exit_code
    assert isinstance(error, Unavailable) == (exit_code == 3)


def test_the_message_names_the_request_and_the_server_s_words() -> None:
    document: dict[str, object] = {
        "code": 422,
        "reason": "Invalid",
        "message": "metadata.name is too long",
        "details": {
            "retryAfterSeconds": 3,
            "causes": [{"field": "metadata.name", "reason": "FieldValueTooLong", "message": "63"}],
        },
    }
    status = ApiStatus.parse(document, 0)
    assert status.causes == (Cause("metadata.name", "FieldValueTooLong", "63"),)
    assert status.retry_after == 3.0
    assert str(error_for("POST /n", status)) == "POST /n: metadata.name is too long (422)"


@pytest.mark.parametrize(
    "document", [{}, {"details": []}, {"code": "x"}, {"details": {"causes": [1]}}]
)
def test_a_body_that_is_no_status_still_gives_an_error(document: dict[str, object]) -> None:
    assert ApiStatus.parse(document, 502).code == 502
