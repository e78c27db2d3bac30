"""Transport protocols by the names that questions and answers use, and their IANA numbers.

Shared by all engines. NetworkPolicy knows TCP, UDP and SCTP; everything else has no ports and
passes an isolated pod only by a rule without `ports`. `ICMP` is a ping: ICMPv4 or ICMPv6, whatever
the cell's family is. `IP/47` is any other protocol by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from generators.addresses import Family

if TYPE_CHECKING:
    from generators.objects import ContainerPort

WITH_PORTS: Mapping[str, int] = {"TCP": 6, "UDP": 17, "SCTP": 132}
PORT_PROTOCOLS: Mapping[int, str] = {number: name for name, number in WITH_PORTS.items()}
ICMP = "ICMP"
ICMP_NUMBERS: Mapping[Family, int] = {Family.IPV4: 1, Family.IPV6: 58}
ICMP_PROTOCOLS: Mapping[Family, str] = {Family.IPV4: "ICMP", Family.IPV6: "ICMPv6"}
"""By these names rules about types of messages call them."""
ECHO_REQUEST: Mapping[Family, int] = {Family.IPV4: 8, Family.IPV6: 128}
"""The type of a ping, which is what a question about ICMP asks about."""
NO_PORT = 0
"""The port of a question about a protocol without ports."""

_NUMBERED = re.compile(r"IP/([0-9]{1,3})")
_LAST = 255
_HEADERS = frozenset({0, 43, 44, 59, 60})
"""Extension headers of IPv6: what follows them is the protocol."""
CARRIER_NUMBERS = frozenset({4, 41, 47, 50, 51, 97, 115})
"""IP in IP, GRE, ESP, AH, EtherIP, L2TP."""
_CARRIERS = frozenset(f"IP/{value}" for value in CARRIER_NUMBERS)
TUNNEL_PORTS = (4789, 6081, 8472, 51820)
"""UDP ports of VXLAN, Geneve, VXLAN as Linux first had it, and WireGuard."""


def portless(text: str) -> str | None:
    """The protocol without ports that `ICMP` or `IP/47` names; None where it names none."""
    name = text.upper()
    if name == ICMP:
        return ICMP
    found = _NUMBERED.fullmatch(name)
    if found is None:
        return None
    value = int(found[1])
    if value in ICMP_NUMBERS.values():
        return ICMP
    known = value > _LAST or value in _HEADERS or value in PORT_PROTOCOLS
    return None if known else f"IP/{value}"


def named_port(ports: Iterable[ContainerPort], name: int | str | None, protocol: str) -> int | None:
    """The number behind a port's name; the first container that declares it wins."""
    for port in ports:
        if port.name == name and port.protocol == protocol:
            return port.port
    return None


def number(protocol: str, of: Family) -> int:
    """The IANA number of a protocol, as packets of the family carry it."""
    if protocol == ICMP:
        return ICMP_NUMBERS[of]
    if protocol in WITH_PORTS:
        return WITH_PORTS[protocol]
    return int(protocol.removeprefix("IP/"))


def encapsulates(protocol: str, port: int) -> bool:
    """Whether packets carry packets, which a node that they are sent to may unpack."""
    return protocol in _CARRIERS or (protocol == "UDP" and port in TUNNEL_PORTS)


def is_unknown(protocol: str) -> bool:
    """Whether it is neither one with ports nor ICMP: drops of it have a reason of their own."""
    return protocol != ICMP and protocol not in WITH_PORTS


def port_text(port: int, protocol: str) -> str:
    """`80/TCP`; the protocol alone where it has no ports."""
    return f"{port}/{protocol}" if protocol in WITH_PORTS else protocol
