"""The API server's side of admission: objects go to the running webhook as AdmissionReviews over
TLS.

Mutating first (its JSON Patch is applied), then validating, as a cluster does. A refusal is a
`Denied`, worded as kubectl words it; a webhook that does not answer is a `WebhookFailed`, and the
lab treats it as failurePolicy Fail.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import jsonpatch

from generators.errors import Refused, RingfenceError

API_VERSION = "admission.k8s.io/v1"
TIMEOUT_SECONDS = 10.0
MUTATING = "mutate.ringfence.io"
VALIDATING = "validate.ringfence.io"

Document = dict[str, object]

_RESOURCES = {
    "Namespace": ("", "v1", "namespaces"),
    "NetworkPolicy": ("networking.k8s.io", "v1", "networkpolicies"),
}
REVIEWED_KINDS = frozenset(_RESOURCES)
"""The kinds that the webhook is registered for; others never reach it."""


class Operation(StrEnum):
    """What is done to the object, in the words of `request.operation`."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class Denied(Refused):
    """The webhook refused."""


class WebhookFailed(RingfenceError):
    """The webhook did not answer, or not with an AdmissionReview."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks. The API server adds `system:authenticated` to everybody's groups."""

    user: str = "kubernetes-admin"
    groups: tuple[str, ...] = ("system:masters",)

    def document(self) -> Document:
        """As `request.userInfo`."""
        return {"username": self.user, "groups": [*self.groups, "system:authenticated"]}


@dataclass(frozen=True, slots=True)
class Change:
    """One object on its way into the cluster. `source` is the file that it was read from, for
    messages.
    """

    operation: Operation
    kind: str
    namespace: str
    name: str
    wanted: Document | None
    live: Document | None
    source: str = ""

    @property
    def doing(self) -> str:
        """kubectl's words for what it was doing."""
        words = {Operation.CREATE: "creating", Operation.UPDATE: "patching"}
        word = words.get(self.operation, "deleting")
        return f'error when {word} "{self.source}": ' if self.source else ""


@dataclass(frozen=True, slots=True)
class _Answer:
    allowed: bool
    message: str = ""
    reason: str = "Forbidden"
    patch: tuple[Document, ...] = ()
    warnings: tuple[str, ...] = ()


class Webhook:
    """A connection to the webhook process, kept open for all reviews of a command."""

    def __init__(self, url: str, ca: Path) -> None:
        where = urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPSConnection(
            where.hostname or "",
            where.port,
            timeout=TIMEOUT_SECONDS,
            context=ssl.create_default_context(cafile=str(ca)),
        )

    def admit(
        self, change: Change, requester: Requester
    ) -> tuple[Document | None, tuple[str, ...]]:
        """The object as it may be stored (None on DELETE), and warnings; Denied when it may not."""
        warnings: tuple[str, ...] = ()
        wanted = change.wanted
        steps = [("/validate", VALIDATING)]
        if change.kind == "Namespace" and wanted is not None:
            steps.insert(0, ("/mutate", MUTATING))
        for path, webhook in steps:
            request = review(change, wanted, requester)
            answer = self._ask(path, request)
            warnings += answer.warnings
            if not answer.allowed:
                raise Denied(
                    f"Error from server ({answer.reason}): {change.doing}"
                    f'admission webhook "{webhook}" denied the request: {answer.message}'
                )
            if answer.patch and wanted is not None:
                wanted = _patched(wanted, answer.patch)
        return wanted, warnings

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, path: str, request: Document) -> _Answer:
        uid = str(_mapping(request["request"])["uid"])
        try:
            self._connection.request(
                "POST",
                f"{path}?timeout={TIMEOUT_SECONDS:.0f}s",
                json.dumps(request).encode(),
                {"Content-Type": "application/json"},
            )
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._failed(path, str(error) or type(error).__name__) from error
        if response.status != http.client.OK:
            raise self._failed(
                path, f"HTTP {response.status}: {body[:200].decode(errors='replace')}"
            )
        try:
            return _read_answer(json.loads(body), uid)
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(path, f"no AdmissionReview for this request: {error}") from error

    def _failed(self, path: str, why: str) -> WebhookFailed:
        return WebhookFailed(
            f"Error from server (InternalError): failed calling webhook {self._url}{path}: {why}"
        )


def review(change: Change, wanted: Document | None, requester: Requester) -> Document:
    """The AdmissionReview (admission.k8s.io/v1) that the API server would send for this change."""
    group, version, plural = _RESOURCES[change.kind]
    kind: Document = {"group": group, "version": version, "kind": change.kind}
    resource: Document = {"group": group, "version": version, "resource": plural}
    options = {"CREATE": "CreateOptions", "UPDATE": "PatchOptions", "DELETE": "DeleteOptions"}
    return {
        "apiVersion": API_VERSION,
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid.uuid4()),
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": change.name,
            "namespace": change.name if change.kind == "Namespace" else change.namespace,
            "operation": change.operation.value,
            "userInfo": requester.document(),
            "object": wanted,
            "oldObject": change.live,
            "dryRun": False,
            "options": {"kind": options[change.operation], "apiVersion": "meta.k8s.io/v1"},
        },
    }


def _read_answer(document: object, uid: str) -> _Answer:
    response = _mapping(_mapping(document)["response"])
    if response["uid"] != uid:
        raise ValueError("it answers another request")
    status = _mapping(response.get("status") or {})
    patch = response.get("patch")
    warnings = response.get("warnings") or []
    operations = json.loads(base64.b64decode(str(patch), validate=True)) if patch else []
    if not isinstance(warnings, list) or not isinstance(operations, list):
        raise TypeError("warnings and patch have to be lists")
    return _Answer(
        allowed=response["allowed"] is True,
        message=str(status.get("message", "")),
        reason=str(status.get("reason", "Forbidden")),
        patch=tuple(dict(_mapping(operation)) for operation in operations),
        warnings=tuple(str(warning) for warning in warnings),
    )


def _patched(document: Document, patch: tuple[Document, ...]) -> Document:
    try:
        changed: object = jsonpatch.apply_patch(document, list(patch))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise WebhookFailed(
            f"Error from server (InternalError): the patch fails: {error}"
        ) from error
    return dict(_mapping(changed))


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"not an object: {value!r}")
    return value
