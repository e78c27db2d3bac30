"""What an API server can answer instead of what was asked for, as one tree.

    KubeError               base, and any other refusal (405, 413, ...); has the Status
    ├── Unavailable         the same request may succeed later
    │   ├── Unreachable     no answer: refused, cut, timed out, TLS
    │   │   └── Silent      a watch on which nothing came for too long: a half-open connection
    │   ├── Overloaded      429, with `retry_after` seconds
    │   └── ServerFailed    5xx
    ├── BadRequest          400
    ├── Unauthorized        401: unknown user
    ├── Forbidden           403: RBAC, or an admission webhook or policy, said no
    ├── NotFound            404
    ├── Conflict            409: changed meanwhile, or a precondition or field manager objects
    │   └── AlreadyExists
    ├── Gone                410: the resourceVersion or continue token is too old
    ├── Fenced              not sent: the author no longer leads
    └── Invalid             422: the object breaks the API's rules; `status.causes` name the fields

Raised by `transport.py` and `client.py`, met by every user of the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar

from generators.documents.json import integer, mapping, mappings, text
from generators.errors import RingfenceError


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that the API server objects to."""

    field: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ApiStatus:
    """metav1.Status, the API server's own words about a refusal."""

    code: int = 0
    reason: str = ""
    message: str = ""
    causes: tuple[Cause, ...] = ()
    retry_after: float | None = field(default=None)

    @staticmethod
    def parse(document: Mapping[str, object], code: int) -> ApiStatus:
        """From a decoded body; `code` is the HTTP status, which a body without one is given."""
        details = mapping(document, "details")
        seconds = integer(details, "retryAfterSeconds")
        return ApiStatus(
            code=integer(document, "code") or code,
            reason=text(document, "reason"),
            message=text(document, "message"),
            causes=tuple(
                Cause(text(item, "field"), text(item, "reason"), text(item, "message"))
                for item in mappings(details, "causes")
            ),
            retry_after=float(seconds) if seconds else None,
        )


class KubeError(RingfenceError):
    """A request that did not do what it was for."""

    exit_code: ClassVar[int] = 1

    def __init__(self, request: str, status: ApiStatus) -> None:
        self.request = request
        self.status = status
        self.server = ""
        """Where it was sent, as soon as that is known."""
        words = status.message or status.reason or "no reason given"
        code = f" ({status.code})" if status.code else ""
        super().__init__(f"{request}: {words}{code}")

    def for_users(self) -> str:
        """With the server: of several clusters people have to know which."""
        return f"{self} (API server {self.server})" if self.server else str(self)


class Unavailable(KubeError):
    """Nothing was decided; try again later."""

    exit_code = 3


class Unreachable(Unavailable):
    """No answer came; whether the request was carried out is not known."""

    def __init__(self, request: str, why: str) -> None:
        super().__init__(request, ApiStatus(message=f"the API server does not answer: {why}"))


class Silent(Unreachable):
    """A watch delivered nothing for longer than a healthy one can."""


class Overloaded(Unavailable):
    """The API server asks to come back in `retry_after` seconds."""

    @property
    def retry_after(self) -> float:
        """Seconds to wait, one when the server named none."""
        return self.status.retry_after or 1.0


class ServerFailed(Unavailable):
    """The API server, or a webhook that it had to ask, failed."""


class BadRequest(KubeError):
    """The API server does not understand the request."""


class Unauthorized(KubeError):
    """The credentials are missing, wrong or expired."""


class Forbidden(KubeError):
    """The identity may not do this, or admission refused it."""


class NotFound(KubeError):
    """No such object, or no such kind on this API server."""


class Conflict(KubeError):
    """The object is not what the request assumed it to be."""


class AlreadyExists(Conflict):
    """An object of that name is there."""


class TooMuch(KubeError):
    """An answer that is longer, or takes longer, than the caller allows."""


class Fenced(KubeError):
    """A write that was not sent because its author no longer leads."""


class Gone(KubeError):
    """The API server has forgotten the point in history that was asked for."""


class Invalid(KubeError):
    """The object breaks a rule of the API."""


_BY_CODE: Mapping[int, type[KubeError]] = {
    HTTPStatus.BAD_REQUEST: BadRequest,
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Forbidden,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.GONE: Gone,
    HTTPStatus.UNPROCESSABLE_ENTITY: Invalid,
    HTTPStatus.TOO_MANY_REQUESTS: Overloaded,
}


def error_for(request: str, status: ApiStatus) -> KubeError:
    """The error of the tree that fits a Status."""
    if status.reason == "AlreadyExists":
        return AlreadyExists(request, status)
    if status.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerFailed(request, status)
    return _BY_CODE.get(status.code, KubeError)(request, status)
