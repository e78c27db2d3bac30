"""What the API server is told about Ringfence's admission: two webhooks, and two policies in CEL.

`wanted` is pure and spells out every default, so that a live object either equals it or was edited;
`assert_all` puts back what is missing or different. The webhooks decide; the
ValidatingAdmissionPolicies keep tenant labels and generated policies safe without any of our pods.
Rules are narrow: a webhook that fails closed must not stop a cluster from healing itself.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from generators.kube.client import Client
from generators.kube.documents import Document, mapping, meta_of, strings, text
from generators.kube.errors import NotFound
from generators.kube.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    Resource,
)
from generators.kyverno.model import FailurePolicy
from generators.labels import MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.objects import NAME_LABEL
from generators.tenants.assignment import MASTERS
from generators.tenants.model import TenantConfig
from webhook.policy_registration import NO_POLICIES, PolicyWebhooks, rules_of
from webhook.settings import FIELD_MANAGER, TIMEOUT_SECONDS
from webhook.validate import CLEANERS

NAME = "ringfence"
POLICIES_PATH = "/mutate-policies"
POLICIES_SUFFIX = ".policies.ringfence.io"
LABEL_POLICY = "ringfence-tenant-label"
NETWORK_POLICY = "ringfence-generated-policies"
SYSTEM_NAMESPACES = ("kube-node-lease", "kube-public", "kube-system")
"""Without these a cluster cannot start; their labels are kept by policy, and are never believed."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the API server finds the webhook: a URL, or a Service."""

    url: str = ""
    service: tuple[str, str] = ("", "")
    port: int = 443

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
class Wanted:
    """One object to register; `part` is the field that is ours and compared whole."""

    resource: Resource
    document: Document
    part: str

    @property
    def name(self) -> str:
        """Of the object."""
        return meta_of(self.document).key.name


def exempt(system_namespace: str) -> tuple[str, ...]:
    """Namespaces that the webhooks leave alone, by name; fixed, whatever the tenant file says."""
    return tuple(sorted({*SYSTEM_NAMESPACES, system_namespace}))


def webhooks(
    target: Target,
    bundle: bytes,
    controller: str,
    system_namespace: str,
    for_policies: PolicyWebhooks = NO_POLICIES,
) -> tuple[Wanted, Wanted]:
    """The validating and the mutating configuration; labels come before Kyverno policies."""
    names = exempt(system_namespace)
    validating = [
        _webhook("namespaces.ringfence.io", target.client_config("/validate", bundle), "Fail")
        | {
            "rules": [_rule("", ("namespaces", "namespaces/finalize", "namespaces/status"))],
            "namespaceSelector": _not_named(names),
            "matchConditions": [_labels_change(), _not_by_controller(controller)],
        },
        _webhook("networkpolicies.ringfence.io", target.client_config("/validate", bundle), "Fail")
        | {
            "rules": [
                _rule(
                    "networking.k8s.io", ("networkpolicies",), ("CREATE", "UPDATE", "DELETE"), True
                )
            ],
            "namespaceSelector": _not_named(names),
            "objectSelector": {"matchLabels": {MANAGED_BY: MANAGER}},
            "matchConditions": [_not_by_controller(controller), _not_cleaning()],
        },
    ]
    mutating = _webhook(
        "namespaces.ringfence.io", target.client_config("/mutate", bundle), "Ignore"
    ) | {
        "rules": [_rule("", ("namespaces",))],
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
        Wanted(
            VALIDATING_WEBHOOKS,
            _object(VALIDATING_WEBHOOKS, NAME) | {"webhooks": validating},
            "webhooks",
        ),
        Wanted(
            MUTATING_WEBHOOKS,
            _object(MUTATING_WEBHOOKS, NAME) | {"webhooks": [mutating, *changing]},
            "webhooks",
        ),
    )


def _judging(target: Target, bundle: bytes) -> Document:
    """Only tells authors early: what may not run, the webhook and the controller refuse again."""
    config = target.client_config("/validate-policies", bundle)
    rule = _rule("kyverno.io", ("clusterpolicies", "policies")) | {
        "apiVersions": ["*"],
        "scope": "*",
    }
    return _webhook("policies.ringfence.io", config, "Ignore") | {
        "rules": [rule],
        "namespaceSelector": {},
    }


def _policy_webhook(
    target: Target,
    bundle: bytes,
    controller: str,
    names: Iterable[str],
    wanted: PolicyWebhooks,
    failure: FailurePolicy,
) -> Document:
    """Requests of nodes are left alone, so that none is kept from joining; ours, unless wanted."""
    word = failure.value.lower()
    config = target.client_config(f"{POLICIES_PATH}/{word}", bundle)
    nodes = "'system:nodes' in request.userInfo.?groups.orValue([])"
    conditions = [{"name": "not-by-nodes", "expression": f"!({nodes})"}]
    if not wanted.own_requests:
        ours = f"request.userInfo.username == {_cel(controller)}"
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


def policies(config: TenantConfig, controller: str) -> tuple[Wanted, ...]:
    """The ValidatingAdmissionPolicies, each before its binding."""
    label = _policy(
        LABEL_POLICY,
        [_rule("", ("namespaces", "namespaces/finalize", "namespaces/status"), ("UPDATE",))],
        {},
        [
            ("trusted", _trusted(config, controller)),
            ("was", f"oldObject.metadata.?labels[?{_cel(config.label_key)}]"),
            ("now", f"object.metadata.?labels[?{_cel(config.label_key)}]"),
        ],
        "variables.trusted || (variables.was.hasValue() == variables.now.hasValue()"
        f" && variables.was.orValue('') == variables.now.orValue('') && {_same_mode()})",
        f"only admins of the tenant file may change label {config.label_key} or annotation"
        f" {MODE_ANNOTATION} of a namespace",
    )
    rule = _rule("networking.k8s.io", ("networkpolicies",), ("CREATE", "UPDATE", "DELETE"), True)
    generated = _policy(
        NETWORK_POLICY,
        [rule],
        {"matchLabels": {MANAGED_BY: MANAGER}},
        [("trusted", _trusted(config, controller))],
        f"variables.trusted || (request.operation == 'DELETE'"
        f" && request.userInfo.username in {_cel(sorted(CLEANERS))})",
        f"NetworkPolicies with label {MANAGED_BY}={MANAGER} are generated; add one of your own",
    )
    return (
        label,
        _binding(LABEL_POLICY),
        generated,
        _binding(NETWORK_POLICY),
    )


# --- putting it there ---------------------------------------------------------------------------


def differs(want: Wanted, live: Document) -> bool:
    """Whether somebody edited what is ours."""
    return (
        live.get(want.part) != want.document[want.part]
        or strings(mapping(live, "metadata"), "labels").get(MANAGED_BY) != MANAGER
    )


def fetch(client: Client, want: Wanted) -> Document | None:
    """The live object."""
    try:
        return client.get(want.resource, want.name)
    except NotFound:
        return None


def put(client: Client, want: Wanted, live: Document | None) -> Document:
    """Create it, or replace exactly the object that was looked at."""
    if live is None:
        return client.create(want.resource, want.document, manager=FIELD_MANAGER)
    meta = dict(mapping(live, "metadata"))
    meta["labels"] = {**strings(meta, "labels"), MANAGED_BY: MANAGER}
    document = live | {"metadata": meta, want.part: want.document[want.part]}
    return client.update(want.resource, document, manager=FIELD_MANAGER)


def assert_all(
    client: Client, wanted: Iterable[Wanted], reasserted: Callable[[Wanted, bool], None]
) -> None:
    """Bring every object to what it should be; tells each write, and whether it was there."""
    for want in wanted:
        live = fetch(client, want)
        if live is None or differs(want, live):
            put(client, want, live)
            reasserted(want, live is not None)


# --- building blocks ----------------------------------------------------------------------------


def _object(resource: Resource, name: str) -> Document:
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


def _rule(
    group: str,
    resources: tuple[str, ...],
    operations: tuple[str, ...] = ("CREATE", "UPDATE"),
    namespaced: bool = False,
) -> Document:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
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
        f"{_same_mode()}"
    )
    return {"name": "labels-change", "expression": f"!({unchanged})"}


def _same_mode() -> str:
    mode = f"metadata.?annotations[?{_cel(MODE_ANNOTATION)}].orValue('')"
    return f"object.{mode} == oldObject.{mode}"


def _not_by_controller(controller: str) -> Document:
    """It repairs while the webhook is away; its dry runs ask whether the webhook is in force."""
    ours = f"request.userInfo.username == {_cel(controller)}"
    return {
        "name": "not-by-controller",
        "expression": f"!({ours}) || request.?dryRun.orValue(false)",
    }


def _not_cleaning() -> Document:
    cleaning = (
        f"request.operation == 'DELETE' && request.userInfo.username in {_cel(sorted(CLEANERS))}"
    )
    return {"name": "not-cleaning-up", "expression": f"!({cleaning})"}


def _policy(
    name: str,
    rules: list[Document],
    selector: Document,
    variables: list[tuple[str, str]],
    expression: str,
    message: str,
) -> Wanted:
    spec: Document = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": selector,
            "resourceRules": rules,
        },
        "variables": [{"name": key, "expression": value} for key, value in variables],
        "validations": [{"expression": expression, "message": message, "reason": "Forbidden"}],
    }
    return Wanted(ADMISSION_POLICIES, _object(ADMISSION_POLICIES, name) | {"spec": spec}, "spec")


def _binding(name: str) -> Wanted:
    document = _object(ADMISSION_POLICY_BINDINGS, name)
    document["spec"] = {"policyName": name, "validationActions": ["Deny"]}
    return Wanted(ADMISSION_POLICY_BINDINGS, document, "spec")


def _trusted(config: TenantConfig, controller: str) -> str:
    """Admins and the controller, as CEL."""
    admins = config.admins
    users = sorted({*admins.users, *admins.service_accounts, controller})
    groups = sorted({*admins.groups, MASTERS})
    return (
        f"request.userInfo.username in {_cel(users)} || "
        f"request.userInfo.?groups.orValue([]).exists(g, g in {_cel(groups)})"
    )


def _cel(value: str | list[str]) -> str:
    """A CEL literal: JSON's strings and lists are CEL's."""
    return orjson.dumps(value).decode()
