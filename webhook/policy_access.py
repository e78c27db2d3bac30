"""What a webhook with policies may do at the API server: only read. `ringfence webhook rules`.

One table, by what the policies read while requests are admitted. What the cluster's policies will
read is not known beforehand: with them it is everything that a context can ask for, also by paths
of the kinds that `--allow-kind` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from generators.kube.documents import Document
from generators.kube.resources import (
    CLUSTER_POLICIES,
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_POLICIES,
    POLICIES,
    ROLE_BINDINGS,
    VALIDATING_WEBHOOKS,
)
from generators.kyverno.model import ApiCallEntry
from generators.kyverno.model import Policy as KyvernoPolicy
from generators.kyverno.usage import Usage, parts, usage
from webhook.background.rights import reading
from webhook.permissions import Rule, bound_role
from webhook.policies import CLUSTER
from webhook.policy_files import PolicyFiles

ROLE = "ringfence-webhook"
_FOLLOW = ("get", "list", "watch")
_ANYTHING = Usage(frozenset({""}), namespaces=True, roles=True)


def rules(sources: Sequence[str], allowed_kinds: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The lines of RBAC; InputError when a path cannot be read."""
    files = PolicyFiles(path for path in sources if path != CLUSTER)
    policies = [each.policy for each in files.in_force.policies]
    cluster = CLUSTER in sources
    wanted = _ANYTHING if cluster else usage(policies)
    calls = cluster or _calls(policies)
    return (
        *(_cluster_rules() if cluster else ()),
        *_reads(wanted, calls),
        *(reading(allowed_kinds) if calls else ()),
    )


def _cluster_rules() -> Iterator[Rule]:
    for resource in (CLUSTER_POLICIES, POLICIES):
        yield Rule(resource, _FOLLOW, "policies of the cluster")
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, DEPLOYMENTS):
        yield Rule(resource, ("list", "watch"), "whether a Kyverno that executes policies runs")


def _reads(wanted: Usage, calls: bool) -> Iterator[Rule]:
    why = "what policies look up"
    if wanted.namespaces or calls:
        yield Rule(NAMESPACES, _FOLLOW, why)
    if calls:
        yield Rule(NETWORK_POLICIES, ("get", "list"), why)
    if wanted.config_maps:
        yield Rule(CONFIG_MAPS, _FOLLOW, why)
    if wanted.roles:
        for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
            yield Rule(resource, ("list", "watch"), why)


def _calls(policies: Iterable[KyvernoPolicy]) -> bool:
    return any(True for policy in policies for _ in parts(policy, ApiCallEntry))


def role_documents(
    namespace: str, sources: Sequence[str], allowed_kinds: Sequence[str] = ()
) -> list[Document]:
    """ServiceAccount, role and binding of a webhook in `namespace`."""
    account: Document = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ROLE, "namespace": namespace},
    }
    found = rules(sources, allowed_kinds)
    subject: Document = {"kind": "ServiceAccount", "name": ROLE, "namespace": namespace}
    return [account, *(bound_role("ClusterRole", ROLE, found, {}, subject) if found else ())]
