"""Namespace, Pod, Node and ConfigMap documents -> values.

Only fields that decisions depend on are looked at; others are the API server's business, so any
version of a Pod can be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from generators.addresses import parse_address, parse_network
from generators.manifests import names, pods
from generators.manifests.fields import Cursor
from generators.manifests.metadata import parse_labels, parse_metadata
from generators.manifests.policies import parse_protocol, parse_selector
from generators.objects import (
    DEFAULT_SERVICE_ACCOUNT,
    NAME_LABEL,
    ConfigMap,
    ContainerPort,
    Labels,
    Namespace,
    Node,
    Origin,
    Pod,
    PodTemplate,
    Selector,
    Workload,
)

_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_RUNNING = "Running"
_NODE_ADDRESSES = ("InternalIP", "ExternalIP")
CRON_JOB = "CronJob"
_TEMPLATE = ("spec", "template")
INTERFACE_ADDRESSES = "ringfence.io/interface-addresses"
"""Annotation of a Node in a file: what an agent would ask its kernel for."""


def parse_namespace(root: Cursor, origin: Origin) -> Namespace:
    """A namespace; its name label is what an API server would make it, whatever is written."""
    meta = parse_metadata(root, names.dns_label)
    status = root.child("status")
    phase = status.string("phase") if status is not None else ""
    return Namespace(
        name=meta.name,
        labels={**meta.labels, NAME_LABEL: meta.name},
        annotations=meta.annotations,
        uid=meta.uid,
        terminating=meta.terminating or phase == "Terminating",
        created=meta.created,
        origin=origin,
    )


def parse_pod(root: Cursor, origin: Origin) -> Pod:
    """A pod. Without `status` it counts as running and has no address yet."""
    meta = parse_metadata(root, names.dns_subdomain)
    spec, status = root.child("spec"), root.child("status")
    phase = _RUNNING
    ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    if status is not None:
        phase = _phase(status)
        ips = _addresses(status, "podIPs", "podIP")
        host_ips = _addresses(status, "hostIPs", "hostIP")
    host_network = spec.child("hostNetwork") if spec is not None else None
    return Pod(
        namespace=meta.namespace,
        name=meta.name,
        labels=meta.labels,
        annotations=meta.annotations,
        ips=ips,
        ports=_ports(spec) if spec is not None else (),
        node=spec.string("nodeName") if spec is not None else "",
        host_ips=host_ips,
        host_network=host_network.boolean() if host_network is not None else False,
        phase=phase,
        terminating=meta.terminating,
        uid=meta.uid,
        created=meta.created,
        workload=_workload(root, meta.labels),
        affinity=tuple(_affinity(spec)) if spec is not None else (),
        service_account=_account(spec),
        origin=origin,
    )


def _account(spec: Cursor | None) -> str:
    """The service account that the API server fills in where none is named."""
    return (spec.string("serviceAccountName") if spec is not None else "") or (
        DEFAULT_SERVICE_ACCOUNT
    )


def parse_workload(root: Cursor, origin: Origin) -> PodTemplate:
    """A Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job or CronJob."""
    meta = parse_metadata(root, names.dns_subdomain)
    kind = root.string("kind")
    template = root
    for part in ("spec", "jobTemplate", "spec", "template") if kind == CRON_JOB else _TEMPLATE:
        inner = template.child(part)
        if inner is None:
            template.fail(f"{part}: Required value", f"add {part}")
            break
        template = inner
    inside = template.child("metadata")
    spec = template.child("spec")
    host_network = spec.child("hostNetwork") if spec is not None else None
    workload = Workload(kind, meta.name)
    pod = Pod(
        namespace=meta.namespace,
        name=f"{kind.lower()}/{meta.name}",
        labels=parse_labels(inside.child("labels")) if inside is not None else {},
        ports=_ports(spec) if spec is not None else (),
        host_network=host_network.boolean() if host_network is not None else False,
        workload=workload,
        affinity=tuple(_affinity(spec)) if spec is not None else (),
        service_account=_account(spec),
        origin=origin,
    )
    return PodTemplate(workload, pod, _workload(root, meta.labels))


def _affinity(spec: Cursor) -> Iterator[Selector]:
    affinity = spec.child("affinity")
    if affinity is None:
        return
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.part(kind)
        preferred = terms.children("preferredDuringSchedulingIgnoredDuringExecution")
        for term in (
            *terms.children("requiredDuringSchedulingIgnoredDuringExecution"),
            *(item.part("podAffinityTerm") for item in preferred),
        ):
            selector = term.child("namespaceSelector")
            if selector is not None:
                yield parse_selector(selector)


def _workload(root: Cursor, labels: Labels) -> Workload | None:
    meta = root.child("metadata")
    owners = meta.children("ownerReferences") if meta is not None else []
    owner = pods.controller_among(owners, _controls)
    if owner is None:
        return None
    return pods.workload_of(owner.string("kind"), owner.string("name"), labels)


def _controls(owner: Cursor) -> bool:
    at = owner.child("controller")
    return at is not None and at.boolean()


def _phase(status: Cursor) -> str:
    at = status.filled("phase")
    if at is None:
        return _RUNNING
    text = at.text()
    if text not in _PHASES:
        at.fail(f'Unsupported value: "{text}"', f"use one of {', '.join(_PHASES)}")
    return text


def _addresses(status: Cursor, plural: str, singular: str) -> tuple[str, ...]:
    """`podIPs: [{ip}]`, and `podIP` where it says more; in that order, each once."""
    found = [ip for item in status.children(plural) if (ip := item.filled("ip")) is not None]
    return pods.each_once(found, status.filled(singular), parse_address_at)


def parse_address_at(at: Cursor) -> str | None:
    """An address in canonical spelling; None after reporting anything else."""
    text = at.text()
    try:
        return str(parse_address(text))
    except ValueError:
        at.fail(
            f'Invalid value: "{text}": must be a valid IP address',
            "write an address such as 10.9.8.7 or 2001:db8::ffff",
        )
        return None


def _ports(spec: Cursor) -> tuple[ContainerPort, ...]:
    ports = []
    for container in pods.with_sidecars(
        spec.children("containers"),
        spec.children("initContainers"),
        lambda c: c.string("restartPolicy"),
    ):
        for item in container.children("ports"):
            number_at = item.child("containerPort")
            number = number_at.integer() if number_at is not None else None
            if number_at is None:
                item.fail("containerPort: Required value", "add containerPort")
            elif number is not None and (wrong := names.port_number(number)) is not None:
                number_at.fail(f"Invalid value: {number}: {wrong}", "use a port number")
            if number is not None:
                ports.append(
                    ContainerPort(
                        number, parse_protocol(item.filled("protocol")), item.string("name")
                    )
                )
    return tuple(ports)


def parse_node(root: Cursor, origin: Origin) -> Node:
    """A node's addresses and the pod ranges that it hands out."""
    meta = parse_metadata(root, names.dns_subdomain)
    status, spec = root.child("status"), root.child("spec")
    ips = []
    for item in status.children("addresses") if status is not None else []:
        address = item.child("address")
        if item.string("type") in _NODE_ADDRESSES and address is not None:
            ips.append(parse_address_at(address))
    return Node(
        name=meta.name,
        ips=tuple(dict.fromkeys(ip for ip in ips if ip is not None)),
        interface_ips=_interface_addresses(root),
        pod_cidrs=_pod_cidrs(spec) if spec is not None else (),
        origin=origin,
    )


def _interface_addresses(root: Cursor) -> tuple[str, ...]:
    meta = root.child("metadata")
    annotations = meta.child("annotations") if meta is not None else None
    at = annotations.child(INTERFACE_ADDRESSES) if annotations is not None else None
    if at is None:
        return ()
    try:
        found = [str(parse_address(part.strip())) for part in at.text().split(",")]
    except ValueError:
        at.fail(f'Invalid value: "{at.text()}": must be IP addresses', "write ADDRESS[,ADDRESS...]")
        return ()
    return tuple(dict.fromkeys(found))


def _pod_cidrs(spec: Cursor) -> tuple[str, ...]:
    found = spec.children("podCIDRs")
    single = spec.filled("podCIDR")
    if single is not None:
        found.append(single)
    cidrs = []
    for at in found:
        text = at.text()
        try:
            cidrs.append(str(parse_network(text)))
        except ValueError:
            at.fail(f'Invalid value: "{text}": must be a valid CIDR value', "write ADDRESS/PREFIX")
    return tuple(dict.fromkeys(cidrs))


def parse_config_map(root: Cursor, origin: Origin) -> ConfigMap:
    """A ConfigMap's text data, as it is."""
    meta = parse_metadata(root, names.dns_subdomain)
    data = root.child("data")
    return ConfigMap(
        namespace=meta.namespace,
        name=meta.name,
        data={key: at.source_text() for key, at in data.entries()} if data is not None else {},
        labels=meta.labels,
        origin=origin,
    )
