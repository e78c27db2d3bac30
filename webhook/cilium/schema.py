"""The CustomResourceDefinitions of Cilium's two policy kinds, in a schema of our own.

The API server refuses by it what it can: types, words of which there are few, blocks. It drops no
field, also none that it does not know: what nobody enforces has to be seen to be refused. All the
rest is judged by the reader, which names the field and what to write.
"""

from __future__ import annotations

from collections.abc import Mapping

from generators.documents.json import Document
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_POLICIES,
    Resource,
)
from generators.manifests.cilium import ENTITIES
from generators.manifests.cilium_ports import MOST_PORTS
from generators.manifests.names import HIGHEST_PORT
from generators.objects import Operator
from webhook.definitions import definition, version

Schema = Document
_SHORT: Mapping[Resource, list[str]] = {
    CILIUM_POLICIES: ["cnp", "ciliumnp"],
    CILIUM_CLUSTERWIDE_POLICIES: ["ccnp"],
}
_COLUMNS = (
    ("Age", "date", ".metadata.creationTimestamp"),
    ("Valid", "string", ".status.conditions[?(@.type=='Valid')].status"),
)
_PROTOCOLS = ("TCP", "UDP", "SCTP", "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH", "ANY")
_OPEN = "x-kubernetes-preserve-unknown-fields"
_TEXT: Schema = {"type": "string"}
_SWITCH: Schema = {"type": "boolean"}
_CIDR: Schema = {"type": "string", "format": "cidr"}


def _object(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    found: Schema = {"type": "object", _OPEN: True, "properties": dict(properties)}
    return found | ({"required": list(required)} if required else {})


def _list(of: Schema, most: int = 0) -> Schema:
    return {"type": "array", "items": of} | ({"maxItems": most} if most else {})


def _words(*words: str) -> Schema:
    return {"type": "string", "enum": sorted(words)}


def _one_of(*keys: str) -> list[Schema]:
    return [{"required": [key]} for key in keys]


_SELECTOR = _object(
    matchLabels={"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
    matchExpressions=_list(
        _object(("key", "operator"), key=_TEXT, operator=_words(*Operator), values=_list(_TEXT))
    ),
)
_PORT = _object(
    port=_TEXT,
    endPort={"type": "integer", "minimum": 0, "maximum": HIGHEST_PORT},
    protocol=_words(*_PROTOCOLS),
)
_CIDR_SET = _object(cidr=_CIDR, **{"except": _list(_CIDR)}) | {
    "oneOf": _one_of("cidr", "cidrGroupRef", "cidrGroupSelector")
}
_SERVICE = _object(
    k8sService=_object(serviceName=_TEXT, namespace=_TEXT),
    k8sServiceSelector=_object(("selector",), selector=_SELECTOR, namespace=_TEXT),
)
_ICMP = _object(
    fields=_list(
        _object(
            ("type",),
            family=_words("IPv4", "IPv6"),
            type={"x-kubernetes-int-or-string": True},
        ),
        MOST_PORTS,
    )
)


def _rules(side: str) -> Schema:
    """A list of rules; `side`: from or to."""
    return _list(
        _object(
            **{
                f"{side}Endpoints": _list(_SELECTOR),
                f"{side}Entities": _list(_words(*ENTITIES)),
                f"{side}CIDR": _list(_CIDR),
                f"{side}CIDRSet": _list(_CIDR_SET),
                f"{side}Services": _list(_SERVICE),
                "toPorts": _list(_object(ports=_list(_PORT, MOST_PORTS), rules=_object())),
                "icmps": _list(_ICMP),
            }
        )
    )


_PART: Schema = _object(
    endpointSelector=_SELECTOR,
    nodeSelector=_SELECTOR,
    ingress=_rules("from"),
    ingressDeny=_rules("from"),
    egress=_rules("to"),
    egressDeny=_rules("to"),
    enableDefaultDeny=_object(ingress=_SWITCH, egress=_SWITCH),
    labels=_list(_object(("key",), key=_TEXT, source=_TEXT, value=_TEXT)),
    description=_TEXT,
    log=_object(value={"type": "string", "maxLength": 32}),
) | {
    "oneOf": _one_of("endpointSelector", "nodeSelector"),
    "anyOf": _one_of("ingress", "ingressDeny", "egress", "egressDeny"),
}
_CONDITION = _object(
    ("type", "status"),
    type=_TEXT,
    status=_TEXT,
    reason=_TEXT,
    message=_TEXT,
    lastTransitionTime={"type": "string", "format": "date-time"},
)
_STATUS = _object(
    conditions=_list(_CONDITION)
    | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
)
_POLICY: Schema = {
    "type": "object",
    "required": ["metadata"],
    "properties": {"spec": _PART, "specs": _list(_PART), "status": _STATUS},
    "x-kubernetes-validations": [
        {"rule": "has(self.spec) || has(self.specs)", "message": "spec or specs must be provided"}
    ],
}


def documents() -> tuple[Document, ...]:
    """Both definitions."""
    return tuple(map(_definition, (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES)))


def _definition(resource: Resource) -> Document:
    names = {
        "singular": resource.kind.lower(),
        "shortNames": _SHORT[resource],
        "categories": ["cilium", "ciliumpolicy"],
    }
    return definition(resource, names, [version(resource.version, resource, _COLUMNS, _POLICY)])
