"""Ringfence's admission in the API server: two webhooks, and two policies in CEL.

`webhooks` is pure and spells out every default, so that a live object either equals it or was
edited; `Registrar` puts back what is missing or different. The webhooks decide; the policies
(admission_policies.py) keep tenant labels and generated policies safe without any of our pods.
Rules are narrow: a webhook that fails closed must not stop a cluster from healing itself.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from urllib.parse import urlsplit

import orjson

from generators.documents.json import Document, items, mapping, mappings, meta_of, strings, text
from generators.kube.client import Client
from generators.kube.errors import Forbidden, NotFound
from generators.kube.resources import (
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.kyverno.model import FailurePolicy
from generators.labels import GRANTS_ANNOTATION, MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.objects import NAME_LABEL
from webhook.policies.webhooks import CHANGING, NO_POLICIES, PolicyWebhooks, rules_of
from webhook.serving.validate import CLEANERS
from webhook.settings import CLOSED, FIELD_MANAGER, TIMEOUT_SECONDS

_Sent = tuple[str, str, str, str]

NAME = "ringfence"
POLICIES_PATH = "/mutate-policies"
POLICIES_SUFFIX = ".policies.ringfence.io"
LABEL_POLICY = "ringfence-tenant-label"
NETWORK_POLICY = "ringfence-generated-policies"
NOT_BY_CONTROLLER = "not-by-controller"
SERVICE_ACCOUNT = "system:serviceaccount:"
SYSTEM_NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
"""Without these a cluster cannot start; their labels are kept by policy, and are never believed."""


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where the API server finds the webhook: a URL, or a Service."""

    url: str = ""
    service: tuple[str, str] = ("", "")
    port: int = 443
    health: int = 0
    """The replicas' port of health; 0: not known."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that the certificate must be good for."""
        if self.url:
            return (urlsplit(self.url).hostname or "",)
        namespace, name = self.service
        return (f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local")

    def client_config(self, path: str, bundle: bytes) -> Document:
        """`clientConfig` for one path."""
        trust = base64.b64encode(bundle).decode("ascii")
        if self.url:
            return {"url": self.url.rstrip("/") + path, "caBundle": trust}
        namespace, name = self.service
        service = {"namespace": namespace, "name": name, "path": path, "port": self.port}
        return {"service": service, "caBundle": trust}


@dataclass(frozen=True, slots=True)
class WantedRegistration:
    """One object to register; `part` is the field that is ours and compared whole."""

    resource: Resource
    document: Document
    part: str

    @property
    def name(self) -> str:
        """Of the object."""
        return meta_of(self.document).key.name


def exempt_person(user: str) -> str:
    """What to say about a controller that is not a ServiceAccount of its own."""
    why = "its own requests pass admission unlabelled, and policies do not apply to them"
    fix = "give the controller a ServiceAccount: `ringfence controller rules` prints it"
    return f"the controller runs as {user}: {why}; {fix}"


def exempt_user(live: Mapping[str, object]) -> str:
    """The user whose requests a live ValidatingWebhookConfiguration exempts."""
    for webhook in mappings(live, "webhooks"):
        for condition in mappings(webhook, "matchConditions"):
            if text(condition, "name") == NOT_BY_CONTROLLER:
                found = re.search(r'username == ("(?:[^"\\]|\\.)*")', text(condition, "expression"))
                return str(orjson.loads(found[1])) if found else ""
    return ""


def exempt(system_namespace: str) -> tuple[str, ...]:
    """Namespaces that the webhooks exempt, by name; fixed, whatever the tenant file says."""
    return tuple(sorted({*SYSTEM_NAMESPACES, system_namespace}))


def webhooks(
    target: WebhookTarget,
    bundle: bytes,
    controller: str,
    system_namespace: str,
    for_policies: PolicyWebhooks = NO_POLICIES,
    file: str = "",
    closed: bool = False,
) -> tuple[WantedRegistration, WantedRegistration]:
    """The validating and the mutating configuration; labels come before Kyverno policies.

    `file`: digest of the only tenant file that may decide, by part of the path; a webhook that has
    not read it refuses. `closed`: no namespace's tenant may be decided at the moment.
    """
    names = exempt(system_namespace)
    by_file = f"/{file}" if file else ""
    validating = _validating(target, bundle, controller, names, by_file, closed=closed)
    mutating = _webhook(
        "namespaces.ringfence.io", target.client_config(f"/mutate{by_file}", bundle), "Ignore"
    ) | {
        "rules": [rule("", ("namespaces",))],
        "namespaceSelector": _not_named(names),
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": [_not_by_controller(controller)],
    }
    if for_policies.judged:
        validating.append(_judging(target, bundle))
    changing = [
        _policy_webhook(target, bundle, controller, names, for_policies, failure)
        for failure in FailurePolicy
        if for_policies.sent(failure)
    ]
    return (
        WantedRegistration(
            VALIDATING_WEBHOOKS,
            named(VALIDATING_WEBHOOKS, NAME) | {"webhooks": validating},
            "webhooks",
        ),
        WantedRegistration(
            MUTATING_WEBHOOKS,
            named(MUTATING_WEBHOOKS, NAME) | {"webhooks": [mutating, *changing]},
            "webhooks",
        ),
    )


def _validating(
    target: WebhookTarget,
    bundle: bytes,
    controller: str,
    names: Iterable[str],
    by_file: str,
    *,
    closed: bool,
) -> list[Document]:
    """What refuses: namespaces, and the policies that Ringfence generates."""
    judging = target.client_config(f"/validate{by_file}", bundle)
    namespaces = target.client_config(f"/validate{by_file}/{CLOSED}", bundle) if closed else judging
    return [
        _webhook("namespaces.ringfence.io", namespaces, "Fail")
        | {
            "rules": [rule("", ("namespaces", "namespaces/finalize", "namespaces/status"))],
            "namespaceSelector": _not_named(names),
            "matchConditions": [_labels_change(), _not_by_controller(controller)],
        },
        _webhook("networkpolicies.ringfence.io", judging, "Fail")
        | {
            "rules": [
                rule(
                    "networking.k8s.io", ("networkpolicies",), ("CREATE", "UPDATE", "DELETE"), True
                )
            ],
            "namespaceSelector": _not_named(names),
            "objectSelector": {"matchLabels": {MANAGED_BY: MANAGER}},
            "matchConditions": [_not_by_controller(controller), _not_cleaning()],
        },
    ]


def _judging(target: WebhookTarget, bundle: bytes) -> Document:
    """Only informs authors early: webhook and controller refuse again what may not run."""
    config = target.client_config("/validate-policies", bundle)
    sent = rule("kyverno.io", ("clusterpolicies", "policies")) | {
        "apiVersions": ["*"],
        "scope": "*",
    }
    return _webhook("policies.ringfence.io", config, "Ignore") | {
        "rules": [sent],
        "namespaceSelector": {},
    }


def _policy_webhook(
    target: WebhookTarget,
    bundle: bytes,
    controller: str,
    names: Iterable[str],
    wanted: PolicyWebhooks,
    failure: FailurePolicy,
) -> Document:
    """Requests of nodes are exempt, so that none is kept from joining; so are ours, unless
    wanted."""
    word = failure.value.lower()
    config = target.client_config(f"{POLICIES_PATH}/{word}", bundle)
    nodes = "'system:nodes' in request.userInfo.?groups.orValue([])"
    conditions = [{"name": "not-by-nodes", "expression": f"!({nodes})"}]
    if not wanted.own_requests:
        ours = f"request.userInfo.username == {cel(controller)}"
        conditions.append({"name": "not-by-controller", "expression": f"!({ours})"})
    return _webhook(f"{word}.policies.ringfence.io", config, failure.value) | {
        "rules": rules_of(wanted.sent(failure)),
        "namespaceSelector": _not_named(names),
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": conditions,
    }


def is_for_policies(webhook: Mapping[str, object]) -> bool:
    """Whether an entry of the mutating configuration was made for policies."""
    return text(webhook, "name").endswith(POLICIES_SUFFIX)


def seen_by_the_webhook(client: Client, kinds: frozenset[Resource]) -> frozenset[Resource]:
    """Those of the kinds whose objects are all sent when made or changed, so makers are noted."""
    try:
        live = client.get(MUTATING_WEBHOOKS, NAME)
    except (NotFound, Forbidden):
        return frozenset()
    sent = set(_sent(live))
    return frozenset(
        kind
        for kind in kinds
        if all((kind.group, kind.version, kind.plural, each.value) in sent for each in CHANGING)
    )


def _sent(configuration: Document) -> Iterator[_Sent]:
    """(group, version, resource, operation), of the webhooks for policies."""
    for webhook in mappings(configuration, "webhooks"):
        if not is_for_policies(webhook):
            continue
        for rule in mappings(webhook, "rules"):
            fields = ("apiGroups", "apiVersions", "resources", "operations")
            yield from product(*(map(str, items(rule, field)) for field in fields))


# --- putting it there ---------------------------------------------------------------------------


def differs(want: WantedRegistration, live: Document) -> bool:
    """Whether our part was edited."""
    return (
        live.get(want.part) != want.document[want.part]
        or strings(mapping(live, "metadata"), "labels").get(MANAGED_BY) != MANAGER
    )


def fetch(client: Client, want: WantedRegistration) -> Document | None:
    """The live object."""
    try:
        return client.get(want.resource, want.name)
    except NotFound:
        return None


def put(client: Client, want: WantedRegistration, live: Document | None) -> Document:
    """Create it, or replace exactly the object that was looked at."""
    if live is None:
        return client.create(want.resource, want.document, manager=FIELD_MANAGER)
    meta = dict(mapping(live, "metadata"))
    meta["labels"] = {**strings(meta, "labels"), MANAGED_BY: MANAGER}
    document = live | {"metadata": meta, want.part: want.document[want.part]}
    return client.update(want.resource, document, manager=FIELD_MANAGER)


class Found(StrEnum):
    """How an object was found that had to be written."""

    START = "start"
    """Not as wanted when this process looked first: an install, an upgrade, a change meanwhile."""
    MISSING = "missing"
    EDITED = "edited"


class Registrar:
    """Restores objects to what they should be; reports what others edited or deleted."""

    def __init__(
        self, client: Client, reasserted: Callable[[WantedRegistration, Found], None]
    ) -> None:
        self._client = client
        self._reasserted = reasserted
        self._ours: dict[tuple[str, str], WantedRegistration] = {}
        """What this process last wrote, or found as wanted: our own edits are not reported."""

    def needs(self, want: WantedRegistration) -> tuple[Document | None, bool]:
        """The live object, and whether it has to be written."""
        live = fetch(self._client, want)
        if live is None or differs(want, live):
            return live, True
        self._ours[want.resource.plural, want.name] = want
        return live, False

    def write(self, want: WantedRegistration, live: Document | None) -> Document:
        """Write it; returns how it was found, unless only our own wish changed."""
        written = put(self._client, want, live)
        key = (want.resource.plural, want.name)
        last, self._ours[key] = self._ours.get(key), want
        if last is None:
            self._reasserted(want, Found.START)
        elif live is None or differs(last, live):
            self._reasserted(want, Found.MISSING if live is None else Found.EDITED)
        return written

    def assert_all(self, wanted: Iterable[WantedRegistration]) -> None:
        """Look at each, and write those that differ."""
        for want in wanted:
            live, differing = self.needs(want)
            if differing:
                self.write(want, live)


# --- building blocks ----------------------------------------------------------------------------


def named(resource: Resource, name: str) -> Document:
    """The common part of our objects."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "labels": {MANAGED_BY: MANAGER}},
    }


def _webhook(name: str, client_config: Document, failure_policy: str) -> Document:
    return {
        "name": name,
        "clientConfig": client_config,
        "failurePolicy": failure_policy,
        "matchPolicy": "Equivalent",
        "objectSelector": {},
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
        "admissionReviewVersions": ["v1"],
    }


def rule(
    group: str,
    resources: tuple[str, ...],
    operations: tuple[str, ...] = ("CREATE", "UPDATE"),
    namespaced: bool = False,
    version: str = "v1",
) -> Document:
    """Which requests are looked at."""
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "resources": list(resources),
        "operations": list(operations),
        "scope": "Namespaced" if namespaced else "Cluster",
    }


def _not_named(names: Iterable[str]) -> Document:
    return {"matchExpressions": [{"key": NAME_LABEL, "operator": "NotIn", "values": list(names)}]}


def _labels_change() -> Document:
    """Namespaces must be able to terminate while the webhook is away."""
    unchanged = (
        "request.operation == 'UPDATE' && "
        "object.metadata.?labels.orValue({}) == oldObject.metadata.?labels.orValue({}) && "
        f"{same(MODE_ANNOTATION)} && {same(GRANTS_ANNOTATION)}"
    )
    return {"name": "labels-change", "expression": f"!({unchanged})"}


def same(annotation: str) -> str:
    """CEL: the request leaves an annotation as it is."""
    value = f"metadata.?annotations[?{cel(annotation)}].orValue('')"
    return f"object.{value} == oldObject.{value}"


def _not_by_controller(controller: str) -> Document:
    """It repairs while the webhook is away; its dry runs ask whether the webhook is in force."""
    ours = f"request.userInfo.username == {cel(controller)}"
    return {
        "name": NOT_BY_CONTROLLER,
        "expression": f"!({ours}) || request.?dryRun.orValue(false)",
    }


def _not_cleaning() -> Document:
    cleaning = (
        f"request.operation == 'DELETE' && request.userInfo.username in {cel(sorted(CLEANERS))}"
    )
    return {"name": "not-cleaning-up", "expression": f"!({cleaning})"}


def cel(value: str | list[str] | dict[str, str]) -> str:
    """A CEL literal: JSON's strings, lists and maps are CEL's."""
    return orjson.dumps(value).decode()
