"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy -> policies, strict.

What Cilium's API types or its agent refuse is refused, and so is each field that nothing here
enforces: a policy is taken as a whole or not at all. docs/cilium-policies.md lists the fields.

What may surprise: a rule without a peer and without ports means nobody, with ports everybody; an
empty list of peers is nobody; a rule closes its direction whatever it allows. A rule that matches
nothing is kept as one whose peer is nobody, so that explanations can show it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from generators.addresses import Network, parse_network
from generators.documents.yaml import plain
from generators.manifests import names
from generators.manifests.cilium_ports import Opening, parse_ports
from generators.manifests.cilium_selectors import parse_endpoints, parse_plain, parse_subject
from generators.manifests.fields import Cursor
from generators.manifests.metadata import Metadata, parse_metadata
from generators.objects import (
    API_SERVER,
    NOBODY,
    CiliumPolicy,
    Direction,
    IPBlock,
    NetworkPolicy,
    NodePeer,
    Origin,
    Peer,
    PolicyKind,
    Rule,
    Selector,
    ServiceReference,
)

_SIDES: Mapping[Direction, str] = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
FIELDS_OF_A_PART = (
    *("endpointSelector", "nodeSelector", "ingress", "ingressDeny", "egress", "egressDeny"),
    *("enableDefaultDeny", "labels", "description", "log"),
)
_LONGEST_LOG = 32
_WORLD = tuple(Peer(ip_block=IPBlock(cidr, outside=True)) for cidr in ("0.0.0.0/0", "::/0"))
_NODES = tuple(Peer(node=node) for node in NodePeer)
_API_SERVER = Peer(service=API_SERVER)
_CLUSTER = (Peer(Selector(), Selector()), *_NODES, _API_SERVER)
ENTITIES: Mapping[str, tuple[Peer, ...]] = {
    "all": (),
    "world": _WORLD,
    "cluster": _CLUSTER,
    "cluster-mesh": _CLUSTER,
    "host": (Peer(node=NodePeer.HOST),),
    "remote-node": (Peer(node=NodePeer.REMOTE_NODE),),
    "kube-apiserver": (_API_SERVER,),
    **dict.fromkeys(("none", "health", "init", "ingress", "unmanaged"), (NOBODY,)),
}
"""Who they are; `all` is everybody. What only Cilium has (health endpoints, ...) is nobody."""
_REFUSED: Mapping[str, str] = {
    "Requires": "Cilium has removed it: put its labels into each selector of {side}Endpoints",
    "Nodes": "name all nodes: {side}Entities: [host, remote-node]",
    "Groups": "list the groups' addresses in {side}CIDRSet",
    "FQDNs": "list the names' addresses in {side}CIDRSet",
}
"""Kinds of peers that nothing here enforces, behind `from` or `to`; what to write instead."""
_EMPTY_IS_ANYBODY = ("FQDNs", "Services", "Groups")


def parse_cilium(root: Cursor, origin: Origin) -> CiliumPolicy:
    """A policy with its parts; problems go to the cursor's report."""
    kind = PolicyKind(root.string("kind"))
    root.only("apiVersion", "kind", "metadata", "spec", "specs", "status")
    meta = parse_metadata(root, names.dns_subdomain)
    namespace = meta.namespace if kind is PolicyKind.CILIUM else ""
    spec, specs = root.child("spec"), root.child("specs")
    written = [("", spec)] if spec is not None else []
    if specs is not None:
        written += [(f"specs[{index}]", item) for index, item in enumerate(specs.items())]
    elif spec is None:
        root.report.add(root.line, "spec", "Required value: the policy is empty", "add spec")
    parts = (_part(item, part, meta, namespace, kind, origin) for part, item in written)
    written_as = plain(root.field)
    document = written_as if isinstance(written_as, dict) else {}
    return CiliumPolicy(namespace, meta.name, kind, tuple(parts), document, origin)


def _part(
    spec: Cursor, part: str, meta: Metadata, namespace: str, kind: PolicyKind, origin: Origin
) -> NetworkPolicy:
    spec.only(*FIELDS_OF_A_PART)
    pods, namespaces = parse_selected(spec, namespace)
    log = _remarks(spec)
    rules = {
        d: (*parse_rules(spec, d, namespace), *parse_rules(spec, d, namespace, deny=True))
        for d in _SIDES
    }
    if not any(rules.values()):
        spec.fail(
            "must have at least one of ingress, ingressDeny, egress and egressDeny",
            "add a rule; `ingress: [{}]` lets nobody in",
        )
    switch = spec.part("enableDefaultDeny")
    switch.only("ingress", "egress")
    off = {d for d in _SIDES if (at := switch.child(d.lower())) is not None and not at.boolean()}
    return NetworkPolicy(
        namespace=namespace,
        name=meta.name,
        pod_selector=pods,
        directions=frozenset(d for d in _SIDES if rules[d] and d not in off),
        ingress=rules[Direction.INGRESS],
        egress=rules[Direction.EGRESS],
        annotations=meta.annotations,
        uid=meta.uid,
        kind=kind,
        part=part,
        log=log,
        namespace_selector=namespaces,
        origin=origin,
    )


def parse_selected(spec: Cursor, namespace: str) -> tuple[Selector, Selector | None]:
    """Pods that a part is about, and their namespaces."""
    nodes, at = spec.child("nodeSelector"), spec.child("endpointSelector")
    if nodes is not None:
        nodes.fail(
            "nodeSelector is not supported: nodes themselves are not enforced",
            "select pods with endpointSelector, or guard nodes by their own firewall",
        )
    elif at is None:
        spec.fail("endpointSelector: Required value", "add it; {} selects every pod")
    return parse_subject(at, namespace) if at is not None else (Selector(), None)


def _remarks(spec: Cursor) -> str:
    """Check fields that decide nothing; what flows are to be marked with."""
    spec.string("description")
    for label in spec.children("labels"):
        label.only("key", "source", "value")
        if not label.string("key"):
            label.fail("key: Required value", "add key")
        label.string("source")
        label.string("value")
    log = spec.part("log")
    log.only("value")
    text = log.string("value")
    if len(text) > _LONGEST_LOG or any(unicodedata.category(c).startswith("C") for c in text):
        log.fail(f"value: must be at most {_LONGEST_LOG} printable characters", "shorten the text")
    return text


def parse_rules(
    spec: Cursor, direction: Direction, namespace: str, *, deny: bool = False
) -> Iterable[Rule]:
    """The rules of one of a part's four lists."""
    key = f"{direction.lower()}{'Deny' if deny else ''}"
    for index, item in enumerate(spec.children(key)):
        if item.field.value is None:
            item.fail("Invalid value: null: must be an object", "write {} or remove it")
        yield from _rule(item, f"{key}[{index}]", direction, namespace, deny=deny)


def _rule(
    item: Cursor, name: str, direction: Direction, namespace: str, *, deny: bool
) -> Iterable[Rule]:
    """One rule; where HTTP is judged at some of its ports, one for these and one for the others."""
    side = _SIDES[direction]
    kinds = ["Endpoints", "Entities", "CIDR", "CIDRSet", "Nodes", "Groups", "Requires"]
    if direction is Direction.EGRESS:
        kinds += ["Services", *(() if deny else ("FQDNs",))]
    allowed = () if deny else ("authentication",)
    item.only(*(side + kind for kind in kinds), "toPorts", "icmps", *allowed)
    if (at := item.child("authentication")) is not None:
        at.fail("authentication is not supported", "let a mesh or the applications authenticate")
    for kind in set(kinds) & _REFUSED.keys():
        at = item.child(side + kind)
        if at is not None and at.items():
            at.fail(f"{side}{kind} is not supported", _REFUSED[kind].format(side=side))
    given = {kind: at for kind in kinds if (at := item.child(side + kind)) is not None}
    given.pop("Requires", None)
    filled = [kind for kind, at in given.items() if at.items()]
    if "Services" in filled and len(given) > 1:
        item.fail(f"{side}Services may not stand beside an empty list", "remove the empty list")
    if len(filled) > 1:
        what = f"{side}{filled[0]} may not stand beside {side}{filled[1]}"
        item.fail(what, "write two rules")
    ports = parse_ports(item, deny=deny)
    peers = _peers(given, namespace)
    if peers is None:
        peers = () if ports is not None else (NOBODY,)
    if ports == ():
        peers = (NOBODY,)
    for opening in ports or (Opening(()),):
        yield Rule(peers, opening.ports, deny, name, opening.http)


def _peers(given: Mapping[str, Cursor], namespace: str) -> tuple[Peer, ...] | None:
    """Whom a rule is about; () = everybody, None = it does not say."""
    found: list[Peer] = []
    says = nobody = everybody = False
    for kind, at in given.items():
        items = at.items()
        nobody = nobody or (not items and kind not in _EMPTY_IS_ANYBODY)
        says = says or bool(items)
        for item in items:
            if item.field.value is None:
                item.fail("Invalid value: null", "remove it")
            peers = tuple(_peer(item, kind, namespace))
            everybody = everybody or (kind == "Entities" and not peers)
            found += peers
    if nobody:
        return (NOBODY,)
    if everybody:
        return ()
    return tuple(dict.fromkeys(found)) if says else None


def _peer(item: Cursor, kind: str, namespace: str) -> Iterable[Peer]:
    """Whom one item of a list of peers means; of entities () is everybody."""
    match kind:
        case "Entities":
            return _entity(item, item.text())
        case "Endpoints":
            peer = parse_endpoints(item, namespace)
            # `reserved:all` is an entity that Cilium has no label for: everybody is never meant.
            return _entity(item, peer) or (NOBODY,) if isinstance(peer, str) else (peer,)
        case "CIDR":
            network = _network(item)
            return (_block(network),) if network is not None else ()
        case "CIDRSet":
            return _cidr_set(item)
        case "Services":
            return (_service(item),)
        case _:
            return ()


def _entity(item: Cursor, name: str) -> tuple[Peer, ...]:
    if name not in ENTITIES:
        item.fail(f'Unsupported value: "{name}"', f"use one of {', '.join(sorted(ENTITIES))}")
        return (NOBODY,)
    return ENTITIES[name]


def _cidr_set(item: Cursor) -> Iterable[Peer]:
    item.only("cidr", "except", "cidrGroupRef", "cidrGroupSelector")
    for key in ("cidrGroupRef", "cidrGroupSelector"):
        if (at := item.child(key)) is not None:
            what = f"{key} is not supported: CiliumCIDRGroups are not read"
            at.fail(what, "list the group's blocks as cidr")
            return ()
    at = item.child("cidr")
    if at is None:
        item.fail("cidr: Required value", "write ADDRESS/PREFIX")
        return ()
    network = _network(at)
    holes = [(hole, _network(hole)) for hole in item.children("except")]
    if network is None:
        return ()
    inside = []
    for hole, part in holes:
        if part is not None and not _contains(network, part):
            hole.fail(f"Invalid value: {hole.shown()}: is not inside {network}", "correct it")
        elif part is not None:
            inside.append(str(part))
    return (_block(network, inside),)


def _network(item: Cursor) -> Network | None:
    text = item.text()
    try:
        if "/" in text:
            return parse_network(text)
    except ValueError:
        pass
    item.fail(f'Invalid value: "{text}": is no CIDR', "write ADDRESS/PREFIX")
    return None


def _contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and (
        inner.prefixlen >= outer.prefixlen and inner.network_address in outer
    )


def _block(network: Network, holes: Iterable[str] = ()) -> Peer:
    block = IPBlock(str(network), tuple(sorted(set(holes))), outside=True)
    return Peer(ip_block=block)


def _service(item: Cursor) -> Peer:
    item.only("k8sService", "k8sServiceSelector")
    named, selected = item.child("k8sService"), item.child("k8sServiceSelector")
    if (named is None) == (selected is None):
        item.fail("must have exactly one of k8sService and k8sServiceSelector", "write one")
        return NOBODY
    if named is not None:
        named.only("serviceName", "namespace")
        name, home = named.string("serviceName"), named.string("namespace")
        return Peer(service=ServiceReference(home, name))
    at = selected.child("selector") if selected is not None else None
    if selected is None or at is None:
        item.fail("k8sServiceSelector.selector: Required value", "add it")
        return NOBODY
    selected.only("selector", "namespace")
    home = selected.string("namespace")
    return Peer(service=ServiceReference(home, None, parse_plain(at)))
