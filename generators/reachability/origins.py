"""The line that a verdict comes from: of the tenant file, or of the policy's manifest.

Flows, `trace` and the audit report name it. A generated NetworkPolicy leads to the tenant file,
which is what one would edit; objects known only to the API server have no line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from generators.isolation.policies import is_ours
from generators.labels import GRANTS_ANNOTATION
from generators.objects import NetworkPolicy, Origin, policy_of
from generators.tenants.model import TenantConfig

_PART = re.compile(r"(\w+)(?:\[(.*)\])?$")


def origin_of(
    name: str,
    policies: Mapping[str, NetworkPolicy],
    tenants: Mapping[str, str],
    config: TenantConfig | None,
) -> str:
    """`FILE:LINE` of what `name` names, empty where no file is known.

    `name` is a rule or a policy as in verdicts.Judgement; `tenants`: namespace -> tenant.
    """
    owner, part = policy_of(name)
    space, _, item = owner.partition("/")
    if space in ("tenant", "quarantine"):
        return _of_wall(item if space == "tenant" else "", part, config)
    policy = policies.get(owner)
    if policy is None:
        return ""
    if is_ours(policy.labels) and config is not None and tenants.get(space) in config.tenants:
        return _of_wall(tenants[space], "own", config)
    return _text(policy.origin)


def _of_wall(tenant: str, part: str, config: TenantConfig | None) -> str:
    """The tenant's line, or that of the shared component or grant."""
    if config is None:
        return ""
    known = config.tenants.get(tenant)
    found = _PART.match(part)
    kind, item = found.groups() if found is not None else ("", None)
    line = known.line if known is not None else 0
    if kind == "shared":
        line = next((c.line for c in config.shared if c.name == item), line)
    elif kind == "allowFrom" and known is not None:
        for grant in config.consented(tenant):
            if grant.tenant == item and grant.objects:
                return f"{GRANTS_ANNOTATION} of namespaces {', '.join(grant.objects)}"
        line = next((g.line for g in known.allow_from if g.tenant == item), line)
    return _text(Origin(*config.located(line)))


def _text(origin: Origin) -> str:
    return str(origin) if origin.file not in ("", "api-server") and origin.line else ""
