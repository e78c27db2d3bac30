"""What a webhook with policies may do at the API server: only read. `ringfence webhook rules`.

By what the policies read while requests are admitted. What the cluster's policies will
read is not known beforehand: with them it is everything that a context can ask for, also by paths
of the kinds that `--allow-kind` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from generators.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    NAMESPACES,
    NETWORK_POLICIES,
    ROLE_BINDINGS,
)
from generators.kyverno.model import ApiCallEntry
from generators.kyverno.model import Policy as KyvernoPolicy
from generators.kyverno.usage import Usage, parts, usage
from webhook.background.rights import reading
from webhook.kept import STATUS_NAME
from webhook.policies.book import CLUSTER
from webhook.policies.files import PolicyFiles
from webhook.rbac import ADMITTED, FOLLOW, RbacRule, Rights

_ANYTHING = Usage(frozenset({""}), namespaces=True, roles=True)


def rights(sources: Sequence[str], allowed_kinds: Sequence[str] = ()) -> Rights:
    """Everything; InputError when a path cannot be read."""
    anywhere = rules(sources, allowed_kinds)
    known = any(rule.resource is CONFIG_MAPS for rule in anywhere)
    said = RbacRule(CONFIG_MAPS, FOLLOW, "kinds that policies may write", (STATUS_NAME,))
    return Rights(anywhere, () if known or not sources else (said,))


def rules(sources: Sequence[str], allowed_kinds: Sequence[str] = ()) -> tuple[RbacRule, ...]:
    """The lines of RBAC; InputError when a path cannot be read."""
    files = PolicyFiles(path for path in sources if path != CLUSTER)
    policies = [each.policy for each in files.in_force.policies]
    cluster = CLUSTER in sources
    wanted = _ANYTHING if cluster else usage(policies)
    calls = cluster or _calls(policies)
    return (
        *(ADMITTED if cluster else ()),
        *_reads(wanted, calls),
        *(reading(allowed_kinds) if calls else ()),
    )


def _reads(wanted: Usage, calls: bool) -> Iterator[RbacRule]:
    why = "what policies look up"
    if wanted.namespaces or calls:
        yield RbacRule(NAMESPACES, FOLLOW, why)
    if calls:
        yield RbacRule(NETWORK_POLICIES, ("get", "list"), why)
    if wanted.config_maps:
        yield RbacRule(CONFIG_MAPS, FOLLOW, why)
    if wanted.roles:
        for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            yield RbacRule(resource, ("list", "watch"), why)


def _calls(policies: Iterable[KyvernoPolicy]) -> bool:
    return any(True for policy in policies for _ in parts(policy, ApiCallEntry))
