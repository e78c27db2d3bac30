"""The Flask application: bytes in, a pure decision, bytes out; health pages beside it.

`create_app` is called by server.py in each worker, and by tests. Answers are JSON whatever happens:
a review that cannot be read is a 4xx with a metav1.Status, and nothing that a client sends makes a
500.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException

from generators.checks import Check, Level, bridged, failed, good, healthy
from generators.kyverno.model import FailurePolicy
from generators.process.logs import event
from generators.tenants.model import TenantConfig
from webhook.bounds import taking_turns
from webhook.policies.desk import NotServedYet, PolicyDesk
from webhook.review import (
    BadReview,
    Decision,
    FileDigests,
    Review,
    WrongMediaType,
    parse_review,
    respond,
)
from webhook.serving import mutate, validate
from webhook.serving.state import WebhookState
from webhook.settings import CLOSED

log = logging.getLogger("ringfence.webhook")

JSON = "application/json"
KNOWN_RESOURCES = frozenset(
    {
        "namespaces",
        "namespaces/status",
        "namespaces/finalize",
        "networkpolicies.networking.k8s.io",
    }
)

LONGEST_RESOURCE = 256
MOST_STRANGERS = 100
"""How many unexpected resources are remembered, so that each is reported once."""

Decide = Callable[[TenantConfig, Review], Decision]


def create_app(state: WebhookState) -> Flask:
    """The WSGI application of one webhook."""
    app = Flask("webhook", static_folder=None)
    app.register_blueprint(admission(state))
    app.register_blueprint(health(state))
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)
    return app


def admission(state: WebhookState) -> Blueprint:
    """POST /mutate and POST /validate."""
    blueprint = Blueprint("admission", __name__)
    strangers: set[str] = set()

    def validating(config: TenantConfig, review: Review) -> Decision:
        return validate.decide(config, review, state.settings.controller)

    endpoints: dict[str, Decide] = {"mutate": mutate.decide, "validate": validating}
    if state.policies is not None:
        endpoints |= policy_endpoints(state.policies)
    for path, decide in endpoints.items():
        name = path.replace("/", "-")
        known = KNOWN_RESOURCES if path in ("mutate", "validate") else None
        answer = ReviewView(name, decide, state, strangers, known)
        blueprint.add_url_rule(f"/{path}", name, answer, methods=["POST"])
        if known is not None:
            by_file = f"/{path}/<file>"
            blueprint.add_url_rule(by_file, f"{name}-file", answer, methods=["POST"])
            blueprint.add_url_rule(
                f"{by_file}/{CLOSED}",
                f"{name}-closed",
                answer,
                methods=["POST"],
                defaults={"closed": True},
            )
    return blueprint


def policy_endpoints(desk: PolicyDesk) -> dict[str, Decide]:
    """POST /mutate-policies/fail, /mutate-policies/ignore and /validate-policies."""

    def mutating(failure: FailurePolicy) -> Decide:
        return lambda config, review: desk.mutate(config, review, failure)

    found = {f"mutate-policies/{each.value.lower()}": mutating(each) for each in FailurePolicy}
    return {**found, "validate-policies": lambda config, review: desk.validate(review)}


@dataclass(frozen=True, slots=True)
class ReviewView:
    """One of the webhooks as a Flask view: parse, decide, answer, tell log and metrics."""

    name: str
    decide: Decide
    state: WebhookState
    strangers: set[str]
    known: frozenset[str] | None
    """Resources that are expected; None = policies name any."""

    def __call__(self, file: str = "", closed: bool = False) -> Response:
        """Answer the current request, by the tenant file of digest `file`, or by the newest."""
        start = time.perf_counter()
        with taking_turns(request.content_length or 0):
            return self._answer(start, file, closed)

    def _answer(self, start: float, file: str, closed: bool) -> Response:
        newest = self.state.tenants.config
        config = self.state.tenants.under(file)
        try:
            review = parse_review(read_body())
        except BadReview as error:
            self._count("", "other", "bad_request", start)
            event(log, "bad_review", logging.WARNING, webhook=self.name, problem=str(error))
            return status_response(error.status, error.reason, str(error))
        try:
            decision = self._decide(config, review, file, closed)
        except NotServedYet:
            code = HTTPStatus.SERVICE_UNAVAILABLE
            return status_response(code, "ServiceUnavailable", "policies are not read yet")
        files = FileDigests("" if config is None else config.digest, newest.digest)
        body = respond(review.uid, decision, files)
        self._tell(review, decision, files.decided, start)
        return Response(body, mimetype=JSON)

    def _decide(
        self, config: TenantConfig | None, review: Review, file: str, closed: bool
    ) -> Decision:
        if config is None:
            return validate.not_read(file, self.state.tenants.config)
        if closed:
            return validate.closed(config, review)
        return self.decide(config, review)

    def _tell(self, review: Review, decision: Decision, file: str, start: float) -> None:
        resource = str(review.resource)
        if resource not in KNOWN_RESOURCES:
            if self.known is not None:
                self._report_stranger(resource)
            resource = "other"
        outcome = "denied" if not decision.allowed else "patched" if decision.patch else "allowed"
        seconds = self._count(review.operation, resource, outcome, start)
        event(
            log,
            "review",
            webhook=self.name,
            uid=review.uid,
            operation=review.operation,
            resource=str(review.resource),
            namespace=review.namespace,
            name=review.name,
            user=review.requester.username,
            allowed=decision.allowed,
            tenant=decision.tenant,
            reason=decision.message,
            patch=bool(decision.patch),
            dryRun=review.dry_run,
            milliseconds=round(seconds * 1000, 3),
            config=file,
        )

    def _count(self, operation: str, resource: str, decision: str, start: float) -> float:
        seconds = time.perf_counter() - start
        metrics = self.state.metrics
        metrics.requests.labels(self.name, operation, resource, decision).inc()
        metrics.seconds.labels(self.name).observe(seconds)
        return seconds

    def _report_stranger(self, resource: str) -> None:
        """Once for each: the webhook configuration sends what it need not send."""
        resource = resource[:LONGEST_RESOURCE]
        if resource not in self.strangers and len(self.strangers) < MOST_STRANGERS:
            self.strangers.add(resource)
            event(log, "unexpected_resource", logging.WARNING, resource=resource)


def read_body() -> bytes:
    """The whole body of the current request, which the server has bounded; or a BadReview."""
    if request.mimetype != JSON or request.content_encoding not in (None, "", "identity"):
        raise WrongMediaType(f"the body must be plain {JSON}")
    return request.get_data(cache=False)


def health(state: WebhookState) -> Blueprint:
    """GET /livez: the process answers. GET /readyz: it should be sent requests, or why not."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/livez")
    def livez() -> Response:
        return Response("ok\n", mimetype="text/plain")

    @blueprint.get("/readyz")
    def readyz() -> Response:
        """Problems that the last good files bridge are shown but do not fail."""
        code, text = readiness_text(state, "verbose" in request.args)
        return Response(f"{text}\n", code, mimetype="text/plain")

    return blueprint


def readiness_text(state: WebhookState, verbose: bool) -> tuple[HTTPStatus, str]:
    """Status and text of /readyz: what is wrong, or all checks."""
    checks = readiness(state)
    ready = healthy(checks)
    code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    problems = [check for check in checks if check.level is not Level.GOOD]
    shown = checks if verbose or not ready else problems
    return code, "\n".join([*map(str, shown), "ok" if ready else "not ready"])


def readiness(state: WebhookState) -> list[Check]:
    """The checks of /readyz, in the API server's form."""
    certificate = state.certificate
    checks = [state.tenants.health]
    until = certificate.not_after.isoformat()
    if certificate.expired:
        checks.append(failed(f"certificate expired at {until}"))
    elif not certificate.problem:
        checks.append(good(f"certificate ok until {until}"))
    if certificate.problem:
        checks.append(bridged("certificate refused, the old one stays", certificate.problem))
    if state.policies is not None:
        checks += state.policies.checks()
    checks.append(failed("shutting down") if state.draining.begun else good("serving"))
    return checks


def status_response(code: HTTPStatus, reason: str, message: str) -> Response:
    """A metav1.Status, as the API server's clients know failures."""
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code.value,
        "reason": reason,
        "message": message,
    }
    return Response(orjson.dumps(status), code, mimetype=JSON)


def _http_error(error: HTTPException) -> Response:
    """404, 405 and their like."""
    code = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    response = status_response(code, code.phrase.replace(" ", ""), error.description or code.phrase)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _bug(error: Exception) -> Response:
    """A bug of ours: the traceback goes to the log, never to the client."""
    log.error("internal_error", exc_info=error)
    code = HTTPStatus.INTERNAL_SERVER_ERROR
    return status_response(code, "InternalError", "internal error; see the webhook's log")
