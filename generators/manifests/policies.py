"""NetworkPolicy documents -> `NetworkPolicy`, refused where the API server refuses, in its words.

What an API server has stored is always taken: CIDRs with host bits or leading zeros, for example.
Defaults are applied here, so that files mean what they would mean in a cluster.
"""

from __future__ import annotations

from generators.addresses import Network, parse_network
from generators.manifests import names
from generators.manifests.fields import Cursor
from generators.manifests.metadata import check_label, parse_labels, parse_metadata
from generators.objects import (
    Direction,
    IPBlock,
    NetworkPolicy,
    Operator,
    Origin,
    Peer,
    PolicyPort,
    Requirement,
    Rule,
    Selector,
)

_CIDR_WORDS = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_MAX_TYPES = 2
_VALUED = (Operator.IN, Operator.NOT_IN)


def parse_policy(root: Cursor, origin: Origin) -> NetworkPolicy:
    """A policy with defaults applied; problems go to the cursor's report.

    Without `spec` or `podSelector` it selects every pod, as the API server stores it.
    """
    meta = parse_metadata(root, names.dns_subdomain)
    spec = root.part("spec")
    spec.only("podSelector", "policyTypes", "ingress", "egress")
    pod_selector = spec.child("podSelector")
    return NetworkPolicy(
        namespace=meta.namespace,
        name=meta.name,
        pod_selector=parse_selector(pod_selector) if pod_selector else Selector(),
        directions=_directions(spec),
        ingress=_rules(spec, "ingress", "from"),
        egress=_rules(spec, "egress", "to"),
        labels=meta.labels,
        annotations=meta.annotations,
        uid=meta.uid,
        origin=origin,
    )


def _directions(spec: Cursor) -> frozenset[Direction]:
    """`policyTypes`, or the default: Ingress, and Egress when there is an egress rule."""
    types = spec.children("policyTypes")
    if not types:
        egress = [Direction.EGRESS] if spec.children("egress") else []
        return frozenset([Direction.INGRESS, *egress])
    if len(types) > _MAX_TYPES:
        types[0].report.add(
            types[0].line,
            "spec.policyTypes",
            "Invalid value: may not specify more than two policyTypes",
            "name Ingress, Egress or both",
        )
    found = set()
    for item in types:
        text = item.text()
        if text in tuple(Direction):
            found.add(Direction(text))
        else:
            item.fail(
                f'Unsupported value: "{text}": supported values: "Egress", "Ingress"',
                "use one of them",
            )
    return frozenset(found)


def _rules(spec: Cursor, direction: str, peers: str) -> tuple[Rule, ...]:
    rules = []
    for item in spec.children(direction):
        item.only(peers, "ports")
        rules.append(
            Rule(
                peers=tuple(_peer(peer) for peer in item.children(peers)),
                ports=tuple(_port(port) for port in item.children("ports")),
            )
        )
    return tuple(rules)


def _peer(item: Cursor) -> Peer:
    item.only("podSelector", "namespaceSelector", "ipBlock")
    pods, spaces = item.child("podSelector"), item.child("namespaceSelector")
    block = item.child("ipBlock")
    if pods is None and spaces is None and block is None:
        item.fail(
            "Required value: must specify a peer",
            "name a podSelector, namespaceSelector or ipBlock; for everybody leave the list out",
        )
    if block is not None and (pods is not None or spaces is not None):
        item.fail(
            "Forbidden: may not specify both ipBlock and another peer",
            "write two items of the list",
        )
    return Peer(
        pod_selector=parse_selector(pods) if pods else None,
        namespace_selector=parse_selector(spaces) if spaces else None,
        ip_block=_ip_block(block) if block else None,
    )


def parse_selector(item: Cursor) -> Selector:
    """A label selector; requirements are sorted so that equal ones compare equal."""
    item.only("matchLabels", "matchExpressions")
    labels = parse_labels(item.child("matchLabels"))
    found = [Requirement(key, Operator.IN, (value,)) for key, value in labels.items()]
    for expression in item.children("matchExpressions"):
        requirement = _requirement(expression)
        if requirement is not None:
            found.append(requirement)
    return Selector(tuple(sorted(set(found), key=lambda r: (r.key, r.operator, r.values))))


def _requirement(item: Cursor) -> Requirement | None:
    item.only("key", "operator", "values")
    key, operator = item.string("key"), item.string("operator")
    values = [value.text() for value in item.children("values")]
    check_label(item, key, "")
    for value in values:
        check_label(item, key, value)
    if operator not in tuple(Operator):
        item.fail(
            f'Invalid value: "{operator}": not a valid selector operator',
            "use In, NotIn, Exists or DoesNotExist",
        )
        return None
    if Operator(operator) in _VALUED and not values:
        item.fail(
            "values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "list the values",
        )
    if Operator(operator) not in _VALUED and values:
        item.fail(
            "values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            "remove the values",
        )
    return Requirement(key, Operator(operator), tuple(sorted(set(values))))


def _ip_block(item: Cursor) -> IPBlock | None:
    item.only("cidr", "except")
    cidr = item.child("cidr")
    if cidr is None or cidr.field.value == "":
        item.report.add(item.line, f"{item.path}.cidr", "Required value", "write ADDRESS/PREFIX")
        return None
    network = _network(cidr)
    excepts = [(at, _network(at)) for at in item.children("except")]
    if network is None:
        return None
    inside = []
    for at, hole in excepts:
        if hole is None:
            continue
        if hole.version != network.version or not _strictly_inside(hole, network):
            at.fail(
                f"Invalid value: {at.shown()}: must be a strict subset of `cidr`",
                f"name a smaller block inside {network}",
            )
        inside.append(str(hole))
    return IPBlock(str(network), tuple(sorted(set(inside))))


def _network(item: Cursor) -> Network | None:
    text = item.text()
    try:
        return parse_network(text)
    except ValueError:
        item.fail(f'Invalid value: "{text}": {_CIDR_WORDS}', "write ADDRESS/PREFIX")
        return None


def _strictly_inside(inner: Network, outer: Network) -> bool:
    return (
        inner.prefixlen > outer.prefixlen
        and int(outer.network_address) <= int(inner.network_address)
        and int(inner.network_address) <= int(outer.broadcast_address)
    )


def _port(item: Cursor) -> PolicyPort:
    item.only("protocol", "port", "endPort")
    protocol = parse_protocol(item.child("protocol"))
    port_at, end_at = item.child("port"), item.child("endPort")
    port: int | str | None = None
    if port_at is not None:
        port = _port_value(port_at)
    end = end_at.integer() if end_at is not None else None
    if end_at is not None and end is not None:
        _check_end(end_at, end, port, port_at is not None)
    return PolicyPort(protocol, port, end)


def parse_protocol(at: Cursor | None) -> str:
    """`protocol` of a port, TCP when it is absent.

    Empty means the same on Services and containers, and is refused elsewhere.
    """
    if at is None:
        return names.DEFAULT_PROTOCOL
    text = at.text()
    if text not in names.PROTOCOLS:
        at.fail(
            f'Unsupported value: "{text}": supported values: "SCTP", "TCP", "UDP"',
            f'write "{text.upper()}"' if text.upper() in names.PROTOCOLS else "use one of them",
        )
    return text


def _port_value(at: Cursor) -> int | str | None:
    if isinstance(at.field.value, str):
        text = at.field.value
        if (wrong := names.port_name(text)) is not None:
            fix = (
                "write the number without quotes"
                if text.isdigit()
                else "use a container port's name"
            )
            at.fail(f'Invalid value: "{text}": {wrong}', fix)
        return text
    number = at.integer()
    if number is not None and (wrong := names.port_number(number)) is not None:
        at.fail(f"Invalid value: {number}: {wrong}", "use a port number")
    return number


def _check_end(at: Cursor, end: int, port: int | str | None, given: bool) -> None:
    if not given:
        at.fail(
            f"Invalid value: {end}: may not be specified when `port` is not specified", "add port"
        )
    elif isinstance(port, str):
        at.fail(
            f"Invalid value: {end}: may not be specified when `port` is non-numeric", "use a number"
        )
    elif port is not None and end < port:
        at.fail(f"Invalid value: {end}: must be greater than or equal to `port`", "swap the two")
    if (wrong := names.port_number(end)) is not None:
        at.fail(f"Invalid value: {end}: {wrong}", "use a port number")
