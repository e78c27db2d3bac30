"""A live cluster for the offline questions: its objects read once, its tenants as recorded.

`plan --kubeconfig` and `matrix --kubeconfig` ask what a tenant file would do to it. Nothing is
written. The creator of a namespace can no longer be seen, so the record and the name decide here; a
label that the controller has not looked at yet proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from generators.cluster import Cluster, declared_namespaces, from_record, known_nodes
from generators.documents.json import key_of
from generators.errors import InputError, InvalidConfig, Problem
from generators.isolation.plan import Wanted, wanted_of
from generators.isolation.policies import is_ours
from generators.isolation.record import agreed, read_record
from generators.kube.client import Client, WatchScope
from generators.kube.config import ApiServer
from generators.kube.errors import Forbidden, NotFound
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_POLICIES,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from generators.labels import RECORD_NAMESPACE
from generators.manifests import Documents, closed_cilium, parse_object
from generators.objects import (
    CiliumPolicy,
    ConfigMap,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Origin,
    Pod,
    Service,
)
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig
from generators.tenants.packed import DIGEST, GUARD_NAME, TEXT, unpacked

API = Origin("api-server")
MOUNTED = "ringfence-tenants"
"""The chart's ConfigMap with the tenant file."""
SHOWN_DIGEST = 12
POLICY_INPUTS = (NAMESPACES, NETWORK_POLICIES, NODES, CONFIG_MAPS)
_OF_CILIUM = (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES)
"""Not served everywhere, and not checked by the API server as its own kinds are."""
ALL_INPUTS = (*POLICY_INPUTS, PODS, SERVICES, ENDPOINT_SLICES, *_OF_CILIUM)


def read_live(kubeconfig: ApiServer, resources: Iterable[Resource] = ALL_INPUTS) -> Documents:
    """The objects of a cluster that decisions depend on; warnings name what is not as written."""
    found: list[object] = []
    warnings: list[str] = []
    with Client.connect(kubeconfig) as client:
        for resource in resources:
            if resource in _OF_CILIUM:
                found += _cilium(client, resource, warnings)
                continue
            home = RECORD_NAMESPACE if resource is CONFIG_MAPS else ""
            for page in client.pages(resource, WatchScope(namespace=home)):
                found += [parse_object(document, API) for document in page.items]
    return Documents(
        namespaces=tuple(o for o in found if isinstance(o, Namespace)),
        pods=tuple(o for o in found if isinstance(o, Pod)),
        policies=tuple(o for o in found if isinstance(o, NetworkPolicy)),
        nodes=tuple(o for o in found if isinstance(o, Node)),
        config_maps=tuple(o for o in found if isinstance(o, ConfigMap)),
        services=tuple(o for o in found if isinstance(o, Service)),
        slices=tuple(o for o in found if isinstance(o, EndpointSlice)),
        cilium_policies=tuple(o for o in found if isinstance(o, CiliumPolicy)),
        warnings=tuple(warnings),
    )


def _cilium(client: Client, resource: Resource, warnings: list[str]) -> list[object]:
    """Policies of one of Cilium's kinds; invalid ones as agents hold them: closed."""
    found: list[object] = []
    try:
        documents = client.list_all(resource)
    except NotFound:
        return found
    except Forbidden as error:
        warnings.append(f"{error}; the answer is without {resource.kind} objects")
        return found
    for document in documents:
        try:
            found.append(parse_object(document, API))
        except InputError as error:
            what = "is invalid, and allows nothing to what it selects"
            warnings.append(f"{resource.kind} {key_of(document)} {what}: {error.brief()}")
            found.append(closed_cilium(document, API))
    return found


def wanted_live(config: TenantConfig, documents: Documents) -> tuple[Wanted, ...]:
    """What the controller would want of the cluster under this tenant file."""
    record = read_record(documents.config_maps)
    namespaces = declared_namespaces(documents).values()
    config = agreed(config, namespaces, record)
    return wanted_of(config, namespaces, lambda n: record.get(n.uid), known_nodes(documents))


@dataclass(frozen=True, slots=True)
class Installed:
    """What a cluster knows about its tenants: the file in force, and a sentence about it."""

    config: TenantConfig | None
    said: str


def installed(documents: Documents) -> Installed:
    """By which tenant file a cluster goes: the one in force, else the one that is mounted.

    InputError where namespaces are recorded and no file is to be found: every answer would be of a
    cluster without tenants.
    """
    guard, mount = f"{RECORD_NAMESPACE}/{GUARD_NAME}", f"{RECORD_NAMESPACE}/{MOUNTED}"
    now, mounted = in_force(documents, guard), _mounted(documents, mount)
    if now is not None and mounted is not None and mounted.digest != now.digest:
        what = f"tenants by the file in force (ConfigMap {guard}, {_short(now)})"
        return Installed(now, f"{what}; ConfigMap {mount} holds another one, {_short(mounted)}")
    for config, name in ((now, guard), (mounted, mount)):
        if config is not None:
            return Installed(config, f"tenants by the record and ConfigMap {name}")
    if read_record(documents.config_maps):
        what = "namespaces are recorded for tenants, but neither this one nor the file in force"
        where = f"ConfigMaps {mount} and {guard}"
        raise InputError([Problem(where, 0, "tenants.yaml", what, "give the file with -c FILE")])
    said = f"no tenants: nothing is recorded in namespace {RECORD_NAMESPACE}"
    return Installed(None, f"{said}; only NetworkPolicies count")


def differing(config: TenantConfig, documents: Documents) -> tuple[str, ...]:
    """Notes that a tenant file is not the one in force in the cluster."""
    now = in_force(documents, "") or _mounted(documents, "")
    if now is None or now.digest == config.digest:
        return ()
    what = f"{config.file} ({_short(config)}) is not the tenant file in force ({_short(now)})"
    return (f"{what}: the answer shows what it would change",)


def _mounted(documents: Documents, file: str) -> TenantConfig | None:
    """The file in the chart's ConfigMap, if it is right."""
    named = (m for m in documents.config_maps if m.name == MOUNTED)
    data = next(
        (m.data.get("tenants.yaml") for m in named if m.namespace == RECORD_NAMESPACE), None
    )
    try:
        return None if data is None else parse_tenants(data.encode(), file)
    except (InputError, InvalidConfig):
        return None


def _short(config: TenantConfig) -> str:
    return config.digest[:SHOWN_DIGEST]


def in_force(documents: Documents, file: str) -> TenantConfig | None:
    """The tenant file that the controller goes by; `file`: what messages call it."""
    home, name = RECORD_NAMESPACE, GUARD_NAME
    found = [m for m in documents.config_maps if (m.namespace, m.name) == (home, name)]
    data = found[0].data if found else {}
    return unpacked(data.get(TEXT, ""), data.get(DIGEST, ""), file)


def tenants_live(documents: Documents) -> Mapping[str, str]:
    """Namespace -> tenant as the controller has recorded it."""
    record = read_record(documents.config_maps)
    return {n.name: record[n.uid].tenant for n in documents.namespaces if n.uid in record}


def cluster_under(config: TenantConfig | None, documents: Documents) -> Cluster:
    """The cluster as it would be once the controller has followed this tenant file."""
    if config is None:
        return from_record(documents)
    config = agreed(config, documents.namespaces, read_record(documents.config_maps))
    wanted = wanted_live(config, documents)
    labelled = {w.item.name: w.item for w in wanted if isinstance(w.item, Namespace)}
    policies = [w.item for w in wanted if isinstance(w.item, NetworkPolicy)]
    generated = {policy.key for policy in policies}
    kept = [p for p in documents.policies if not is_ours(p.labels) and p.key not in generated]
    tenants = {
        name: namespace.labels[config.label_key]
        for name, namespace in labelled.items()
        if config.label_key in namespace.labels
    }
    under = replace(
        documents,
        namespaces=tuple(labelled.get(n.name, n) for n in documents.namespaces),
        policies=(*kept, *policies),
    )
    return replace(from_record(under, None), config=config, tenants=tenants)
