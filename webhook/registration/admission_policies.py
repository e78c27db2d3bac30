"""The ValidatingAdmissionPolicies: what holds without any of our pods, in CEL.

Pure. The API server evaluates them before the webhook, so their messages are the webhook's
(serving/validate.py), word for word; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from generators.documents.json import Document
from generators.kube.resources import ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS
from generators.kube.resources import CLUSTER_NETWORK_POLICIES as WALLS
from generators.labels import MANAGED_BY, MANAGER, MODE_ANNOTATION
from generators.tenants.assignment import MASTERS, reserved
from generators.tenants.model import TenantConfig
from webhook.registration.configuration import (
    LABEL_POLICY,
    NETWORK_POLICY,
    WantedRegistration,
    cel,
    named,
    rule,
    same,
)
from webhook.serving.validate import CLEANERS

_WRITES = ("CREATE", "UPDATE", "DELETE")
MOST_LINES = 500
"""With more tenants, lines are not named: the expression would grow with the file."""


@dataclass(frozen=True, slots=True)
class _Validation:
    """What must hold, and the message of a refusal; both are CEL."""

    expression: str
    message: str

    def document(self) -> Document:
        return {
            "expression": self.expression,
            "messageExpression": self.message,
            "reason": "Forbidden",
        }


def policies(config: TenantConfig, controller: str) -> tuple[WantedRegistration, ...]:
    """The policies, each before its binding."""
    label = _policy(
        LABEL_POLICY,
        [rule("", ("namespaces", "namespaces/finalize", "namespaces/status"), ("UPDATE",))],
        {},
        _label_variables(config, controller),
        [*_retired(config, controller), _label(config), _mode(config)],
    )
    generated = _policy(
        NETWORK_POLICY,
        [
            rule("networking.k8s.io", ("networkpolicies",), _WRITES, True),
            rule(WALLS.group, (WALLS.plural,), _WRITES, version=WALLS.version),
        ],
        {"matchLabels": {MANAGED_BY: MANAGER}},
        [("trusted", _trusted(config, controller))],
        [_generated(config)],
    )
    return (label, _binding(LABEL_POLICY), generated, _binding(NETWORK_POLICY))


def _label_variables(config: TenantConfig, controller: str) -> list[tuple[str, str]]:
    key, file = config.label_key, config.file
    few = len(config.tenants) <= MOST_LINES
    lines = {t.name: f" ({file}:{t.line})" for t in config.tenants.values() if few}
    nobodys = config.protected_namespaces.union(*(c.namespaces for c in config.shared))
    why = {name: text for name in sorted(nobodys) if (text := reserved(config, name))}
    was, now = "variables.was", "variables.now"
    attempt = (
        f"!{was}.hasValue() ? {cel(f'adding label {key}=')} + {now}.value() : "
        f"!{now}.hasValue() ? {cel(f'removing label {key}=')} + {was}.value() : "
        f"{cel(f'changing label {key} from ')} + {was}.value() + ' to ' + {now}.value()"
    )
    owner = (
        f"!{was}.hasValue() ? 'it belongs to no tenant' : 'it belongs to tenant ' + {was}.value()"
        f" + ({was}.value() in variables.lines ? variables.lines[{was}.value()] : '')"
    )
    return [
        ("trusted", _trusted(config, controller)),
        ("was", f"oldObject.metadata.?labels[?{cel(key)}]"),
        ("now", f"object.metadata.?labels[?{cel(key)}]"),
        ("lines", cel(lines)),
        ("nobodys", cel(why)),
        ("attempt", attempt),
        ("owner", owner),
    ]


def _label(config: TenantConfig) -> _Validation:
    """The tenant label stays as it is."""
    file = config.file
    ours = cel(f", and only admins of {file} may change that; ")
    fix = cel("undo this change of the label or ask an admin")
    leave = cel(f"; it belongs to no tenant of {file}; leave the label out")
    name = "object.metadata.name"
    return _Validation(
        "variables.trusted || (variables.was.hasValue() == variables.now.hasValue()"
        " && variables.was.orValue('') == variables.now.orValue(''))",
        f"variables.now.hasValue() && {name} in variables.nobodys"
        f" ? variables.attempt + ' is refused: ' + variables.nobodys[{name}] + {leave}"
        f" : 'namespace \"' + {name} + '\": ' + variables.attempt + ' is refused: '"
        f" + variables.owner + {ours} + {fix}",
    )


def _mode(config: TenantConfig) -> _Validation:
    """Only admins decide who is audited only."""
    why = f"only admins of {config.file} may change whether a namespace is audited only"
    said = cel(f'": annotation {MODE_ANNOTATION} is refused: {why}; ask an admin')
    return _Validation(
        f"variables.trusted || {same(MODE_ANNOTATION)}",
        f"'namespace \"' + object.metadata.name + {said}",
    )


def _retired(config: TenantConfig, controller: str) -> list[_Validation]:
    """Former keys of the tenant label may only go. The controller only removes them; its dry runs
    must reach the webhook."""
    found = []
    for key in sorted(config.retired_label_keys):
        field = f"metadata.?labels[?{cel(key)}]"
        why = f" is refused: {config.file} has retired that key"
        fix = f"the tenant label is {config.label_key}; leave {key} out"
        found.append(
            _Validation(
                f"request.userInfo.username == {cel(controller)} || !object.{field}.hasValue()"
                f" || object.{field} == oldObject.{field}",
                f"{cel(f'label {key}=')} + object.{field}.orValue('') + {cel(f'{why}; {fix}')}",
            )
        )
    return found


def _generated(config: TenantConfig) -> _Validation:
    """Generated policies are Ringfence's."""
    home = "request.?namespace.orValue('')"
    subject = f"request.kind.kind + ' ' + ({home} == '' ? '' : {home} + '/') + request.name"
    why = f" is generated from {config.file} and must not be changed or deleted"
    fix = "add a NetworkPolicy of your own beside it, or ask an admin to change the tenant file"
    stray = f": label {MANAGED_BY}={MANAGER} marks generated policies; leave that label out"
    ours = f"oldObject.metadata.?labels[?{cel(MANAGED_BY)}].orValue('') == {cel(MANAGER)}"
    return _Validation(
        f"variables.trusted || (request.operation == 'DELETE'"
        f" && request.userInfo.username in {cel(sorted(CLEANERS))})",
        f"{subject} + (oldObject != null && {ours} ? {cel(f'{why}; {fix}')} : {cel(stray)})",
    )


def _trusted(config: TenantConfig, controller: str) -> str:
    """Admins and the controller."""
    admins = config.admins
    users = sorted({*admins.users, *admins.service_accounts, controller})
    groups = sorted({*admins.groups, MASTERS})
    return (
        f"request.userInfo.username in {cel(users)} || "
        f"request.userInfo.?groups.orValue([]).exists(g, g in {cel(groups)})"
    )


def _policy(
    name: str,
    rules: list[Document],
    selector: Document,
    variables: Iterable[tuple[str, str]],
    validations: Iterable[_Validation],
) -> WantedRegistration:
    spec: Document = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": {},
            "objectSelector": selector,
            "resourceRules": rules,
        },
        "variables": [{"name": key, "expression": value} for key, value in variables],
        "validations": [each.document() for each in validations],
    }
    return WantedRegistration(
        ADMISSION_POLICIES, named(ADMISSION_POLICIES, name) | {"spec": spec}, "spec"
    )


def _binding(name: str) -> WantedRegistration:
    document = named(ADMISSION_POLICY_BINDINGS, name)
    document["spec"] = {"policyName": name, "validationActions": ["Deny"]}
    return WantedRegistration(ADMISSION_POLICY_BINDINGS, document, "spec")
