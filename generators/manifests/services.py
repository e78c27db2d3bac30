"""Service and EndpointSlice documents -> values.

Only what leads from a ClusterIP to its backends is looked at. Headless Services and ExternalNames
are names, not addresses: they are read and then mean nothing to a packet.
"""

from __future__ import annotations

from generators.manifests import names
from generators.manifests.core import parse_address_at
from generators.manifests.fields import Cursor
from generators.manifests.metadata import parse_labels, parse_metadata
from generators.manifests.policies import parse_protocol
from generators.objects import (
    EndpointSlice,
    Origin,
    Readiness,
    Service,
    ServiceKind,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)

_SERVICE_LABEL = "kubernetes.io/service-name"
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_NONE = "None"
_NAMES_ONLY = "FQDN"


def parse_service(root: Cursor, origin: Origin) -> Service:
    """A Service; one without `clusterIP` has no address yet."""
    meta = parse_metadata(root, names.dns_label)
    spec = root.child("spec")
    if spec is None:
        return Service(meta.namespace, meta.name, labels=meta.labels, origin=origin)
    written = _written_addresses(spec)
    kind = _kind(spec, written)
    addresses = written if kind is ServiceKind.CLUSTER_IP else []
    found = (parse_address_at(at) for at in addresses)
    return Service(
        namespace=meta.namespace,
        name=meta.name,
        kind=kind,
        cluster_ips=tuple(dict.fromkeys(ip for ip in found if ip is not None)),
        ports=tuple(port for item in spec.children("ports") if (port := _port(item)) is not None),
        selector=parse_labels(spec.child("selector")),
        labels=meta.labels,
        origin=origin,
    )


def _written_addresses(spec: Cursor) -> list[Cursor]:
    found = spec.children("clusterIPs")
    single = spec.filled("clusterIP")
    return [at for at in [*found, *([single] if single else [])] if at.field.value != ""]


def _kind(spec: Cursor, addresses: list[Cursor]) -> ServiceKind:
    at = spec.filled("type")
    text = at.text() if at is not None else _TYPES[0]
    if at is not None and text not in _TYPES:
        at.fail(f'Unsupported value: "{text}"', f"use one of {', '.join(_TYPES)}")
    if text == ServiceKind.EXTERNAL_NAME:
        return ServiceKind.EXTERNAL_NAME
    if any(at.field.value == _NONE for at in addresses):
        return ServiceKind.HEADLESS
    return ServiceKind.CLUSTER_IP


def _port(item: Cursor) -> ServicePort | None:
    number = _number(item, "port")
    if number is None:
        return None
    target = item.filled("targetPort")
    if target is not None and type(target.field.value) is int and target.field.value == 0:
        target = None  # "not given" to the API server, as is an empty name
    meant: int | str = number
    if target is not None and isinstance(target.field.value, str):
        meant = target.field.value
        if (wrong := names.port_name(meant)) is not None:
            target.fail(f'Invalid value: "{meant}": {wrong}', "use a container port's name")
    elif target is not None:
        meant = _checked(target) or number
    protocol = parse_protocol(item.filled("protocol"))
    return ServicePort(number, protocol, item.string("name"), meant)


def _number(item: Cursor, key: str) -> int | None:
    at = item.child(key)
    if at is None:
        item.report.add(item.line, f"{item.path}.{key}", "Required value", f"add {key}")
        return None
    return _checked(at)


def _checked(at: Cursor) -> int | None:
    number = at.integer()
    if number is not None and (wrong := names.port_number(number)) is not None:
        at.fail(f"Invalid value: {number}: {wrong}", "use a port number")
        return None
    return number


def parse_slice(root: Cursor, origin: Origin) -> EndpointSlice:
    """A slice; its Service is named by label, as its controller writes it."""
    meta = parse_metadata(root, names.dns_subdomain)
    named = root.string("addressType") == _NAMES_ONLY
    ports = []
    for item in root.children("ports"):
        # A port of null means every port, which no Service of ours can have.
        number = _number(item, "port") if item.child("port") is not None else None
        if number is not None:
            protocol = parse_protocol(item.child("protocol"))
            ports.append(SlicePort(number, protocol, item.string("name")))
    return EndpointSlice(
        namespace=meta.namespace,
        name=meta.name,
        service=meta.labels.get(_SERVICE_LABEL, ""),
        endpoints=() if named else tuple(_endpoint(at) for at in root.children("endpoints")),
        ports=tuple(ports),
        origin=origin,
    )


def _endpoint(item: Cursor) -> SliceEndpoint:
    found = (parse_address_at(at) for at in item.children("addresses"))
    return SliceEndpoint(
        addresses=tuple(dict.fromkeys(ip for ip in found if ip is not None)),
        readiness=_readiness(item.child("conditions")),
    )


def _readiness(conditions: Cursor | None) -> Readiness:
    """Missing conditions count as true, as kube-proxy reads them."""
    if conditions is None:
        return Readiness.READY
    ready, serving = conditions.child("ready"), conditions.child("serving")
    if ready is None or ready.boolean():
        return Readiness.READY
    terminating = conditions.child("terminating")
    draining = terminating is not None and terminating.boolean()
    if draining and serving is not None and serving.boolean():
        return Readiness.DRAINING
    return Readiness.NOT_READY
