"""What a user means by an end of a question: a pod, many pods, a Service, an address.

Asked by `matrix.py` for `--from` and `--to`, and by files of expectations. A pod's exact name comes
before any other reading of a text, so that a pod `tenant/a` can still be asked about.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from generators.addresses import Family, family, parse_address
from generators.cluster import Cluster, address_owners
from generators.errors import RingfenceError
from generators.objects import Pod, Workload
from generators.reachability.packets import EXTERNAL_PREFIX
from generators.reachability.services import SERVICE_PREFIX
from generators.selectors import BadSelector, matches, parse

Families = Mapping[str, frozenset[Family]]
"""Ends as cells name them, with the address families that each has."""

TENANT_PREFIX = "tenant/"
"""All pods of a tenant: `tenant/NAME`."""
SHARED_PREFIX = "shared/"
"""All pods of a shared component: `shared/NAME`."""
NOBODYS = f"{TENANT_PREFIX}-"
"""All pods that belong to no tenant and to no shared component."""
_KINDS = {
    **{"deploy": "deployment", "deployments": "deployment", "rs": "replicaset"},
    **{"sts": "statefulset", "statefulsets": "statefulset", "ds": "daemonset"},
    **{"daemonsets": "daemonset", "cj": "cronjob", "cronjobs": "cronjob", "jobs": "job"},
    **{"replicasets": "replicaset", "rc": "replicationcontroller"},
}
"""Workloads as kubectl takes them."""
_SHOWN = 8


class BadQuestion(RingfenceError):
    """The question cannot be asked: what is wrong with it, and what would work."""


def ends(cluster: Cluster) -> dict[str, frozenset[Family]]:
    """The pods that can be asked about, by `ns/pod`, with the families that they have."""
    owners = address_owners(cluster.pods)
    found: dict[str, frozenset[Family]] = {}
    for pod in cluster.pods:
        if pod.terminal:
            continue
        own = (ip for ip in pod.ips if pod.host_network or owners[ip].key == pod.key)
        families = frozenset(family(ip) for ip in own)
        if families:
            found[pod.key] = families
    return dict(sorted(found.items()))


def workload_key(namespace: str, workload: Workload) -> str:
    """`NAMESPACE/deployment/NAME`."""
    return f"{namespace}/{workload.kind.lower()}/{workload.name}"


def owner_key(cluster: Cluster, namespace: str) -> str:
    """Whose a namespace is, as `--from` takes it: `tenant/NAME`, `shared/NAME` or `tenant/-`."""
    if tenant := cluster.tenants.get(namespace):
        return TENANT_PREFIX + tenant
    component = cluster.config.component(namespace) if cluster.config is not None else None
    return NOBODYS if component is None else SHARED_PREFIX + component.name


def external(address: str) -> str:
    """`ip/ADDR` in canonical spelling, of an address given with or without the prefix."""
    text = address.removeprefix(EXTERNAL_PREFIX)
    try:
        return f"{EXTERNAL_PREFIX}{parse_address(text)}"
    except ValueError:
        raise BadQuestion(f'"{address}" is no IP address; write one without a prefix') from None


def named_ends(cluster: Cluster, text: str) -> Families:
    """All ends that a text means; BadQuestion, with what is near, where there are none.

    `NS/POD`, `NS/deployment/NAME`, `NS`, `tenant/T`, `shared/COMPONENT`, labels as `kubectl -l`
    takes them (`app=web`, `NS:app=web`), `svc/NS/NAME`, an address.
    """
    if text.startswith(SERVICE_PREFIX) and text.count("/") > 1:
        return {text: _service_families(cluster, text)}
    pods = ends(cluster)
    if text in pods:
        return {text: pods[text]}
    if text.startswith(EXTERNAL_PREFIX):
        return _outside(text)
    labelled = _labelled(cluster, text)
    found = labelled if labelled is not None else _group(cluster, text)
    if found is None:
        if "/" not in text and _is_address(text):
            return _outside(text)
        raise BadQuestion(_unknown(cluster, text, pods))
    chosen = {pod.key: pods[pod.key] for pod in found if pod.key in pods}
    if not chosen:
        raise BadQuestion(f"{text} has no pod with an address; ask about a running one")
    return chosen


def one_end(cluster: Cluster, text: str) -> tuple[str, frozenset[Family]]:
    """The one end that a text means, for a question about it alone.

    A workload is asked about by its first pod: its pods are alike to policies.
    """
    found = named_ends(cluster, text)
    by_name = {pod.key: pod for pod in cluster.pods}
    behind = {
        (pod.namespace, pod.workload) if pod and pod.workload else name
        for name in found
        for pod in [by_name.get(name)]
    }
    if len(behind) > 1:
        raise BadQuestion(f"{text} is {len(found)} pods, ask about one of them: {_some(found)}")
    return next(iter(found.items()))


def _outside(text: str) -> Families:
    address = external(text)
    return {address: frozenset([family(address.removeprefix(EXTERNAL_PREFIX))])}


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _labelled(cluster: Cluster, text: str) -> list[Pod] | None:
    """The pods whose labels a text asks for; None where it asks for none."""
    namespace, colon, selector = text.partition(":")
    if not colon:
        namespace, selector = "", text
        if not any(sign in text for sign in ("=", "!", "(")):
            return None
    elif _is_address(text):
        return None
    try:
        wanted = parse(selector)
    except BadSelector as error:
        raise BadQuestion(f'"{text}": {error}') from None
    if namespace and namespace not in cluster.namespaces:
        raise BadQuestion(_no_such("namespace", namespace, cluster.namespaces))
    found = [
        pod
        for pod in cluster.pods
        if (not namespace or pod.namespace == namespace) and matches(wanted, pod.labels)
    ]
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise BadQuestion(f"no pod{where} has labels {selector}")
    return found


def _group(cluster: Cluster, text: str) -> list[Pod] | None:
    """The pods of a namespace, workload, tenant or shared component; None of anything else."""
    first, _, rest = text.partition("/")
    if not rest:
        known = text in cluster.namespaces
        return [pod for pod in cluster.pods if pod.namespace == text] if known else None
    kind, _, name = rest.partition("/")
    if name:
        kind = _KINDS.get(kind.lower(), kind.lower())
        wanted = f"{first}/{kind}/{name}"
        found = [
            pod
            for pod in cluster.pods
            if pod.workload is not None and workload_key(pod.namespace, pod.workload) == wanted
        ]
        return found or None
    if text.startswith((TENANT_PREFIX, SHARED_PREFIX)):
        found = [p for p in cluster.pods if owner_key(cluster, p.namespace) == text]
        return found if found or _is_owner(cluster, text) else None
    return None


def _is_owner(cluster: Cluster, text: str) -> bool:
    """Whether the tenant file knows a tenant or shared component of that name."""
    if cluster.config is None:
        return False
    known = {TENANT_PREFIX + name for name in cluster.config.tenants}
    return text in known | {SHARED_PREFIX + part.name for part in cluster.config.shared}


def _service_families(cluster: Cluster, name: str) -> frozenset[Family]:
    services = {SERVICE_PREFIX + service.key: service for service in cluster.services}
    if name not in services:
        raise BadQuestion(_no_such("Service", name, services))
    families = frozenset(family(ip) for ip in services[name].cluster_ips)
    if not families:
        kind = services[name].kind
        raise BadQuestion(f"Service {name} has no ClusterIP ({kind}); ask about its pods")
    return families


def _unknown(cluster: Cluster, text: str, pods: Families) -> str:
    if text.startswith(TENANT_PREFIX):
        if cluster.config is None:
            return f"there is no {text}: tenants come from a tenant file; give it with -c FILE"
        tenants = (TENANT_PREFIX + name for name in cluster.config.tenants)
        return _no_such("tenant", text, tenants)
    if "/" not in text and cluster.config is not None:
        shared = {component.name for component in cluster.config.shared}
        for prefix, named in ((TENANT_PREFIX, cluster.config.tenants), (SHARED_PREFIX, shared)):
            if text in named:
                return f'there is no namespace {text}; did you mean "{prefix}{text}"?'
    if "/" not in text:
        return _no_such("namespace or address", text, cluster.namespaces)
    workloads = {workload_key(p.namespace, p.workload) for p in cluster.pods if p.workload}
    namespace, _, name = text.partition("/")
    of_that_name = [key for key in sorted(workloads) if key.split("/")[::2] == [namespace, name]]
    if of_that_name:
        return f'there is no pod {text}; did you mean "{of_that_name[0]}"?'
    hidden = next((pod for pod in cluster.pods if pod.key == text), None)
    if hidden is not None:
        why = f"is {hidden.phase}" if hidden.terminal else "has no address"
        return f"pod {text} {why}; ask about a running one"
    return _no_such("pod", text, {*pods, *workloads})


def _no_such(what: str, text: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(text, names, n=1)
    meant = f'; did you mean "{near[0]}"?' if near else ""
    return f"there is no {what} {text}; there are: {_some(names)}{meant}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:_SHOWN]) or "none"
    return f"{shown}, and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else shown
