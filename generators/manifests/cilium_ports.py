"""`toPorts` and `icmps` of Cilium's policies -> ports, as NetworkPolicies have them.

What may surprise: a port without protocol means TCP, UDP and SCTP, but no ICMP; an entry without
ports matches nothing; port 0 is every port, and a range that ends before it begins its first port.
With HTTP rules the protocol has to be TCP, written out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from generators.http import HttpRule
from generators.manifests.cilium_http import parse_http
from generators.manifests.fields import Cursor
from generators.manifests.names import HIGHEST_PORT
from generators.objects import PolicyPort

MOST_PORTS = 40
_TRANSPORTS = ("TCP", "UDP", "SCTP")
_ANY = "ANY"
_WITHOUT_PORTS = ("VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,4}")
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
_NAME_LENGTH = 15
_ICMP: Mapping[str, str] = {"IPv4": "ICMP", "IPv6": "ICMPv6"}
_HIGHEST_TYPE = 255
_TYPES: Mapping[str, Mapping[str, int]] = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
        "RouterRenumbering": 138,
        "ICMPNodeInformationQuery": 139,
        "ICMPNodeInformationResponse": 140,
        "InverseNeighborDiscoverySolicitation": 141,
        "InverseNeighborDiscoveryAdvertisement": 142,
        "HomeAgentAddressDiscoveryRequest": 144,
        "HomeAgentAddressDiscoveryReply": 145,
        "MobilePrefixSolicitation": 146,
        "MobilePrefixAdvertisement": 147,
        "DuplicateAddressRequestCodeSuffix": 157,
        "DuplicateAddressConfirmationCodeSuffix": 158,
        "ExtendedEchoRequest": 160,
    },
}
"""Names that the schema of Cilium's CRDs takes, with the numbers that its agent reads."""

_LATER: Mapping[str, str] = {
    "listener": "remove it, or leave these connections to a proxy of your own",
    "terminatingTLS": "end TLS in the application or at an ingress",
    "originatingTLS": "begin TLS in the application",
    "serverNames": "allow the servers' addresses in toCIDRSet",
}
_RULES: Mapping[str, str] = {
    "dns": "allow port 53 without rules, and the servers' addresses in toCIDRSet",
    "kafka": "use the broker's own ACLs; Cilium has removed these rules as well",
    "l7": "allow the port without rules",
    "l7proto": "allow the port without rules",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """Ports that a rule is about, and the HTTP rules that judge there; () = plain packets."""

    ports: tuple[PolicyPort, ...]
    http: tuple[HttpRule, ...] = ()


def parse_ports(item: Cursor, *, deny: bool) -> tuple[Opening, ...] | None:
    """What a rule is about; () = it matches nothing, None = whatever the port is."""
    written, messages = item.children("toPorts"), item.children("icmps")
    if written and messages:
        item.fail("icmps may not stand beside toPorts", "write two rules")
    plain: list[PolicyPort] = []
    found: list[Opening] = []
    for index, entry in enumerate(written):
        opening = _entry(entry, index, deny=deny)
        if opening.http and opening.ports:
            found.append(opening)
        elif not opening.http:
            plain += opening.ports
    for entry in messages:
        plain += _messages(entry)
    if plain:
        found.insert(0, Opening(tuple(dict.fromkeys(plain))))
    return tuple(found) if written or messages else None


def _entry(item: Cursor, index: int, *, deny: bool) -> Opening:
    item.only("ports", *(() if deny else ("rules", *_LATER)))
    for key, fix in _LATER.items():
        at = item.child(key)
        if at is not None:
            at.fail(f"{key} is not supported", fix)
    http = _http(item, f"toPorts[{index}].rules.http")
    ports = item.children("ports")
    if len(ports) > MOST_PORTS:
        item.fail(f"ports: {len(ports)} are too many, the most is {MOST_PORTS}", "split the rule")
    found = tuple(dict.fromkeys(port for at in ports for port in _port(at)))
    if http:
        _check_judged(ports, found)
    return Opening(found, http)


def _http(item: Cursor, place: str) -> tuple[HttpRule, ...]:
    """The HTTP rules of an entry; rules of other kinds are refused."""
    rules = item.child("rules")
    if rules is None:
        return ()
    given = [key for key, at in rules.entries() if at.field.value is not None]
    if len(given) != 1:
        rules.fail("must have exactly one of http and dns", "write an entry of toPorts for each")
    for key, at in rules.entries():
        if key in _RULES and at.field.value != ():
            at.fail(f"{key} rules are not supported", _RULES[key])
    rules.only("http", *_RULES)
    http = rules.child("http")
    return parse_http(http, place) if http is not None else ()


def _check_judged(written: Sequence[Cursor], found: Sequence[PolicyPort]) -> None:
    """HTTP is judged at TCP ports that are written out."""
    for at in written:
        if at.string("protocol") != "TCP":
            at.fail("protocol: must be TCP beside HTTP rules", "write protocol: TCP")
    if any(port.port is None for port in found):
        at = written[0]
        at.fail("port: 0 may not stand beside HTTP rules", "write the ports that speak HTTP")


def _port(item: Cursor) -> list[PolicyPort]:
    item.only("port", "endPort", "protocol")
    at = item.child("port")
    text = at.text() if at is not None else ""
    end = _end(item)
    protocols = _protocols(item)
    if at is None or not text:
        item.fail("port: Required value", 'add port: "NUMBER" or a name; "0" is every port')
    elif _NAME.fullmatch(text) and len(text) <= _NAME_LENGTH:
        # Names of container ports are in small letters.
        return [PolicyPort(protocol, text.lower(), end or None) for protocol in protocols]
    elif not _NUMBER.fullmatch(text) or int(text) > HIGHEST_PORT:
        at.fail(
            f'Invalid value: "{text}": is no port number and no port name',
            f"write 0 to {HIGHEST_PORT} without leading zeros, or a name of at most {_NAME_LENGTH} "
            "letters, digits and inner dashes",
        )
    else:
        number = int(text)
        last = end if end > number else None
        return [PolicyPort(p, number or None, last if number else None) for p in protocols]
    return []


def _end(item: Cursor) -> int:
    at = item.child("endPort")
    end = at.integer() if at is not None else 0
    if at is not None and end is not None and not 0 <= end <= HIGHEST_PORT:
        at.fail(f"Invalid value: {end}: must be 0 to {HIGHEST_PORT}", "use a port number")
    return end or 0


def _protocols(item: Cursor) -> tuple[str, ...]:
    at = item.child("protocol")
    text = at.text() if at is not None else _ANY
    if text == _ANY:
        return _TRANSPORTS
    if text in _TRANSPORTS:
        return (text,)
    if at is not None and text in _WITHOUT_PORTS:
        at.fail(f"protocol {text} is not supported", "a rule without toPorts lets it through")
    elif at is not None:
        upper = text.upper()
        fix = f'write "{upper}"' if upper in (*_TRANSPORTS, _ANY) else "use TCP, UDP, SCTP or ANY"
        at.fail(f'Unsupported value: "{text}"', fix)
    return ()


def _messages(item: Cursor) -> list[PolicyPort]:
    """One item of `icmps`: its fields are alternatives."""
    item.only("fields")
    fields = item.children("fields")
    if len(fields) > MOST_PORTS:
        item.fail(f"fields: {len(fields)} are too many, the most is {MOST_PORTS}", "split the rule")
    return [port for at in fields for port in _message(at)]


def _message(item: Cursor) -> list[PolicyPort]:
    item.only("family", "type")
    family = item.string("family", "IPv4")
    at = item.child("type")
    if family not in _ICMP:
        item.fail(f'family: Unsupported value: "{family}"', "use IPv4 or IPv6")
        return []
    if at is None:
        item.fail("type: Required value", "add the type's number or name")
        return []
    number = _type(at, family)
    # A number without a type never matches; as a text it is refused.
    return [] if number is None or number > _HIGHEST_TYPE else [PolicyPort(_ICMP[family], number)]


def _type(at: Cursor, family: str) -> int | None:
    value = at.field.value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = value if isinstance(value, str) else ""
    if _NUMBER.fullmatch(text) and int(text) <= _HIGHEST_TYPE:
        return int(text)
    if text in _TYPES[family]:
        return _TYPES[family][text]
    at.fail(
        f"Invalid value: {at.shown()}: is no type of ICMP for {family}",
        f"write 0 to {_HIGHEST_TYPE}, or a name such as EchoRequest",
    )
    return None
