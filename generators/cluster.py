"""The cluster as one value: what the evaluator, the compiler and `plan` decide on.

`Cluster` is made from documents by `from_objects`, or from an API server's caches. Tenancy is in `tenants`,
the record of which namespace belongs to which tenant; labels never prove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from generators.objects import Namespace, NetworkPolicy, Node, Pod
from generators.tenants.model import TenantConfig

DEFAULT_POD_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
"""Pod ranges where nothing names them; pods without `status` get their addresses here."""


@dataclass(frozen=True, slots=True)
class Cluster:
    namespaces: Mapping[str, Namespace] = field(default_factory=dict, hash=False)
    pods: tuple[Pod, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    nodes: tuple[Node, ...] = ()
    config: TenantConfig | None = None
    """The tenant file; None = no tenant wall, NetworkPolicies alone speak."""
    tenants: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Namespace name -> tenant name, from assignment or from the controller's record."""
    pod_cidrs: tuple[str, ...] = DEFAULT_POD_CIDRS
