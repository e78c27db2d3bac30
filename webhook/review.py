"""AdmissionReview v1, from bytes to a frozen Review and from a Decision back to bytes.

The Flask shell (serving/app.py) calls `parse_review` and `respond`; serving/mutate.py and
serving/validate.py see only the values. A review that cannot be read is a BadReview (HTTP 4xx, the
API server's failurePolicy decides); a request that is refused is a Decision with `allowed=False`
(HTTP 200). The two families never mix: a 4xx for a refusal would let it through wherever
failurePolicy is Ignore.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import ClassVar

import orjson

from generators.kyverno.model import Operation
from generators.tenants.assignment import Requester
from webhook.bounds import MOST_ELEMENTS, elements

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"

MAX_BODY = 8 * 1024 * 1024
"""The API server takes objects of 3 MiB, and a review may carry the old and the new one."""

WARNING_LENGTH = 256
"""Longer warnings may be cut by the API server."""

JSONObject = Mapping[str, object]


class BadReview(Exception):
    """The body is not a review that can be judged; the base of the three HTTP answers below."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    reason: ClassVar[str] = "BadRequest"


class ReviewTooLarge(BadReview):
    """The body is larger than MAX_BODY, or holds more than MOST_ELEMENTS."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    reason = "RequestEntityTooLarge"


class WrongMediaType(BadReview):
    """The body is not declared to be plain JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    reason = "UnsupportedMediaType"


@dataclass(frozen=True, slots=True)
class RequestedResource:
    """What the request was sent to, e.g. `namespaces` with the subresource `finalize`.

    Compared with its group: `namespaces` of another API group is another resource.
    """

    group: str
    version: str
    name: str
    subresource: str = ""

    @property
    def api_version(self) -> str:
        """As documents write it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        whole = f"{self.name}.{self.group}" if self.group else self.name
        return f"{whole}/{self.subresource}" if self.subresource else whole


@dataclass(frozen=True, slots=True)
class Review:
    """One request of the API server. `object` is None on DELETE, `old_object` on CREATE."""

    uid: str
    operation: Operation
    kind: str
    resource: RequestedResource
    name: str
    namespace: str
    dry_run: bool
    requester: Requester
    object: JSONObject | None = field(default=None, hash=False)
    old_object: JSONObject | None = field(default=None, hash=False)
    user_info: JSONObject = field(default_factory=dict, hash=False)
    """`userInfo` as it came, for policies."""

    @property
    def is_namespace(self) -> bool:
        """A Namespace itself, or its `status` or `finalize`."""
        return (self.resource.group, self.resource.name) == ("", "namespaces")

    @property
    def is_network_policy(self) -> bool:
        """A NetworkPolicy of Kubernetes."""
        return (self.resource.group, self.resource.name) == ("networking.k8s.io", "networkpolicies")


class Malformed(ValueError):
    """The object under review is not shaped as Kubernetes has it; the request is refused (422)."""


def labels_of(subject: JSONObject | None) -> dict[str, str]:
    """The labels of an object under review; none where there is no object."""
    return _strings_of(subject, "labels")


def annotations_of(subject: JSONObject | None) -> dict[str, str]:
    """The annotations of an object under review; none where there is no object."""
    return _strings_of(subject, "annotations")


def _strings_of(subject: JSONObject | None, field: str) -> dict[str, str]:
    metadata = {} if subject is None else subject.get("metadata")
    if not isinstance(metadata, dict):
        raise Malformed("metadata must be an object; send the whole object")
    found = metadata.get(field)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise Malformed(f"metadata.{field} must be a map of strings; quote numbers and booleans")
    return dict(found)


class Denial(Enum):
    """How a refusal looks to the client: HTTP-like code and the reason word of a metav1.Status."""

    FORBIDDEN = (403, "Forbidden")
    INVALID = (422, "Invalid")
    NOT_YET = (503, "ServiceUnavailable")

    @property
    def code(self) -> int:
        """The HTTP status that the API server answers its client with."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """The machine-readable word beside the message."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a Review.

    `tenant` and `message` say for whom and why, also when the answer is yes: the log event carries
    them.
    """

    message: str
    denial: Denial | None = None
    tenant: str | None = None
    patch: tuple[JSONObject, ...] = field(default=(), hash=False)
    warnings: tuple[str, ...] = ()
    audit: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def allowed(self) -> bool:
        """Whether the request may pass."""
        return self.denial is None


TENANT_FILE = "tenant-file"
"""Audit annotation, and reason of a refusal's causes: which tenant file decided."""


@dataclass(frozen=True, slots=True)
class FileDigests:
    """Digests of the tenant file that decided (empty: none could) and of the newest one here."""

    decided: str
    newest: str

    def causes(self) -> list[JSONObject]:
        """As `details.causes` of a refusal, which the API server passes on."""
        pairs = (("decided", self.decided), ("newest", self.newest))
        return [{"reason": TENANT_FILE, "field": k, "message": v} for k, v in pairs]


def parse_review(body: bytes) -> Review:
    """The Review in `body`; BadReview names the first field that is wrong."""
    if len(body) > MAX_BODY:
        raise ReviewTooLarge(f"the body is larger than {MAX_BODY} bytes")
    if elements(body) > MOST_ELEMENTS:
        raise ReviewTooLarge(f"the body holds more than {MOST_ELEMENTS} elements")
    try:
        # orjson refuses a depth of 1024 and what is not UTF-8; it never recurses in Python.
        document: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadReview(f"the body is not JSON: {error}") from error
    review = _object(document, "the body")
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if review.get(key) != expected:
            raise BadReview(f"{key} must be {expected!r}")
    return _request(_object(review.get("request"), "request"))


def _request(request: JSONObject) -> Review:
    operation = _operation(request.get("operation"))
    sent = _optional_object(request.get("object"), "request.object")
    old = _optional_object(request.get("oldObject"), "request.oldObject")
    if sent is None and operation in (Operation.CREATE, Operation.UPDATE):
        raise BadReview(f"request.object is missing on {operation}")
    if old is None and operation in (Operation.UPDATE, Operation.DELETE):
        raise BadReview(f"request.oldObject is missing on {operation}")
    user_info = _object(request.get("userInfo"), "request.userInfo")
    return Review(
        uid=_required_text(request, "uid"),
        operation=operation,
        kind=_required_text(_object(request.get("kind"), "request.kind"), "kind"),
        resource=_resource(request),
        name=_name(request, sent if sent is not None else old),
        namespace=_text(request, "namespace"),
        dry_run=_flag(request, "dryRun"),
        requester=_requester(user_info),
        object=sent,
        old_object=old,
        user_info=user_info,
    )


def _operation(value: object) -> Operation:
    for operation in Operation:
        if value == operation.value:
            return operation
    raise BadReview(f"request.operation must be one of {', '.join(Operation)}")


def _resource(request: JSONObject) -> RequestedResource:
    resource = _object(request.get("resource"), "request.resource")
    return RequestedResource(
        group=_text(resource, "group"),
        version=_text(resource, "version"),
        name=_required_text(resource, "resource"),
        subresource=_text(request, "subResource"),
    )


def _name(request: JSONObject, subject: JSONObject | None) -> str:
    """The object's own name; with generateName it is known to the object before the request names
    it."""
    named = _text(request, "name")
    metadata = subject.get("metadata") if subject is not None else None
    own = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(own, str) or not own:
        return named
    if named and named != own:
        raise BadReview("request.name and the object's metadata.name differ")
    return own


def _requester(user: JSONObject) -> Requester:
    groups = user.get("groups")
    if groups is None:
        groups = []
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise BadReview("request.userInfo.groups must be a list of strings")
    return Requester(_required_text(user, "username"), frozenset(groups))


def _object(value: object, where: str) -> JSONObject:
    if not isinstance(value, dict):
        raise BadReview(f"{where} must be an object")
    return value


def _optional_object(value: object, where: str) -> JSONObject | None:
    return None if value is None else _object(value, where)


def _text(holder: JSONObject, key: str) -> str:
    value = holder.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadReview(f"{key} must be a string")
    return value


def _required_text(holder: JSONObject, key: str) -> str:
    text = _text(holder, key)
    if not text:
        raise BadReview(f"{key} is missing")
    return text


def _flag(holder: JSONObject, key: str) -> bool:
    value = holder.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadReview(f"{key} must be true or false")
    return value


def respond(uid: str, decision: Decision, files: FileDigests | None = None) -> bytes:
    """The AdmissionReview that answers request `uid`, as the API server's dispatcher wants it."""
    response: dict[str, object] = {"uid": uid, "allowed": decision.allowed}
    if decision.denial is not None:
        response["status"] = {
            "status": "Failure",
            "code": decision.denial.code,
            "reason": decision.denial.reason,
            "message": decision.message,
            **({} if files is None else {"details": {"causes": files.causes()}}),
        }
    elif decision.patch:
        # Both or neither: a patch without its type, or the reverse, is a failed call.
        response["patchType"] = "JSONPatch"
        response["patch"] = encode_patch(decision.patch)
    if decision.warnings:
        response["warnings"] = [warning[:WARNING_LENGTH] for warning in decision.warnings]
    audit = dict(decision.audit) | ({} if files is None else {TENANT_FILE: files.decided})
    if audit:
        response["auditAnnotations"] = audit
    return orjson.dumps({"apiVersion": API_VERSION, "kind": KIND, "response": response})


def encode_patch(patch: Sequence[JSONObject]) -> str:
    """A JSON Patch as the base64 text that AdmissionResponse carries."""
    return base64.b64encode(orjson.dumps(list(patch))).decode("ascii")
