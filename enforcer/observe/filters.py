"""Which flows to show: the filter flags of `hubble observe`, as predicates on lines.

Each flag that may be given is a row of `FILTERS`; a flag given twice means either value, different
flags must all hold, a negated flag must not. What our flows do not carry (DNS names) is refused
with the reason and not ignored, see `REFUSED`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network

from enforcer.datapath.flows import DropReason
from enforcer.observe import fields
from enforcer.observe.fields import End, EventKind, Json
from enforcer.observe.lines import MATCHES
from enforcer.observe.shape import POLICY_DENY, RESERVED, TCP_FLAGS
from generators.documents.json import shown
from generators.errors import RingfenceError
from generators.http import BadPattern, compiled, matches_whole
from generators.reachability.verdicts import Verdict

Predicate = Callable[[Json], bool]
EndTest = Callable[[Json, End], bool]

TYPES = (*(event.value for event in EventKind), "trace")
"""`trace` is a word of the field: we make no such events, so it matches none."""
PROTOCOLS = ("tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6", "http")
MAX_PORT = 65535
MAX_IDENTITY = (1 << 32) - 1


class BadFilter(RingfenceError):
    """A filter's value makes no sense."""

    def __init__(self, flag: str, value: str, wanted: str) -> None:
        super().__init__(f'--{flag} "{value}": {wanted}')


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """One flag: what it takes, what it does; `make` raises ValueError with what it wants."""

    flag: str
    metavar: str
    text: str
    make: Callable[[str], Predicate]


@dataclass(frozen=True, slots=True)
class FlowCondition:
    """A flag with all its values."""

    flag: str
    negated: bool
    anyone: tuple[Predicate, ...]

    def holds(self, line: Json) -> bool:
        """Whether a flow is wanted, as far as this flag goes."""
        return any(predicate(line) for predicate in self.anyone) is not self.negated


def condition(flag: str, values: Sequence[str], *, negated: bool) -> FlowCondition:
    """The condition of a flag; BadFilter where a value makes no sense."""
    predicates = []
    for value in values:
        try:
            predicates.append(FILTERS[flag].make(value))
        except ValueError as error:
            raise BadFilter(flag, value, str(error)) from error
    return FlowCondition(flag, negated, tuple(predicates))


def wanted(line: Json, conditions: Iterable[FlowCondition]) -> bool:
    """Whether a line passes; losses always do: no filter knows what was lost."""
    return "lost_events" in line or all(item.holds(line) for item in conditions)


# Ends


def _pod(value: str) -> EndTest:
    """`prefix`, `namespace/prefix` or `namespace/`."""
    namespace, slash, name = value.rpartition("/")

    def test(line: Json, end: End) -> bool:
        found = shown(line, "flow", end, "pod_name")
        if slash and shown(line, "flow", end, "namespace") != namespace:
            return False
        return found.startswith(name) and bool(found)

    return test


def _service(value: str) -> EndTest:
    """As `_pod`, of the Service's name."""
    namespace, slash, name = value.rpartition("/")

    def test(line: Json, end: End) -> bool:
        near, found = fields.service(line, end)
        return bool(found) and found.startswith(name) and (not slash or near == namespace)

    return test


def _workload(value: str) -> EndTest:
    """`name`, `Kind/name` or `Kind/`."""
    kind, _, name = value.rpartition("/")
    if not kind and not name:
        raise ValueError("wanted NAME, KIND/NAME or KIND/")
    return lambda line, end: any(
        name in ("", shown(found, "name")) and kind in ("", shown(found, "kind"))
        for found in fields.workloads(line, end)
    )


def _namespace(value: str) -> EndTest:
    return lambda line, end: shown(line, "flow", end, "namespace") == value


def _tenant(value: str) -> EndTest:
    return lambda line, end: fields.tenant(line, end) == value


def _label(value: str) -> EndTest:
    """`key=value`, `key!=value`, `key`, `!key`, joined by commas; `source:` before a key counts."""
    tests = [_requirement(part.strip()) for part in value.split(",")]
    return lambda line, end: all(test(_label_map(fields.labels(line, end))) for test in tests)


def _label_map(labels: Iterable[str]) -> Mapping[str, str]:
    """Each label with its source and without."""
    found: dict[str, str] = {}
    for label in labels:
        key, _, value = label.partition("=")
        found[key] = value
        found.setdefault(key.partition(":")[2] or key, value)
    return found


def _requirement(part: str) -> Callable[[Mapping[str, str]], bool]:
    parsed = re.fullmatch(r"(!?)([^!=\s]+)(?:(==?|!=)([^!=\s]*))?", part)
    if parsed is None or (parsed[1] and parsed[3]):
        raise ValueError("wanted KEY=VALUE, KEY!=VALUE, KEY or !KEY, joined by commas")
    absent, key, operator, value = parsed.groups()
    if absent:
        return lambda labels: key not in labels
    if operator is None:
        return lambda labels: key in labels
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _ip(value: str) -> EndTest:
    network = ip_network(value, strict=False)

    def test(line: Json, end: End) -> bool:
        try:
            return ip_address(fields.address(line, end)) in network
        except ValueError:
            return False

    return test


def _port(value: str) -> EndTest:
    first, dash, last = value.partition("-")
    low, high = _bounded(first, MAX_PORT), _bounded(last if dash else first, MAX_PORT)

    def test(line: Json, end: End) -> bool:
        found = fields.port(line, end)
        return found.isdecimal() and low <= int(found) <= high

    return test


def _identity(value: str) -> EndTest:
    names = {name: str(number) for number, name in RESERVED.items()}
    wanted_number = names.get(value.removeprefix("reserved:"), value)
    _bounded(wanted_number, MAX_IDENTITY)
    return lambda line, end: shown(line, "flow", end, "identity") == wanted_number


def _bounded(value: str, limit: int) -> int:
    if not value.isdecimal() or int(value) > limit:
        raise ValueError(f"wanted a number up to {limit}")
    return int(value)


# Kinds


def _choice(choices: Iterable[str], of: Callable[[Json], str]) -> Callable[[str], Predicate]:
    known = {choice.upper(): choice for choice in choices}

    def make(value: str) -> Predicate:
        if value.upper() not in known:
            raise ValueError(f"wanted one of {', '.join(known.values())}")
        return lambda line: of(line).upper() == value.upper()

    return make


def _type(value: str) -> Predicate:
    """TYPE or TYPE:SUB, where SUB is a drop reason (name or number) or a match."""
    name, colon, sub = value.partition(":")
    if name not in TYPES:
        raise ValueError(f"wanted one of {', '.join(TYPES)}, perhaps with :SUB")
    if not colon:
        return lambda line: fields.event(line) == name
    if name == EventKind.DROP:
        drop = _drop_reason(sub)
        return lambda line: fields.event(line) is EventKind.DROP and drop(line)
    known = {shown.lower(): match for match, shown in MATCHES.items()}
    if name != EventKind.POLICY_VERDICT or sub.lower() not in known:
        raise ValueError(f"wanted policy-verdict:MATCH with one of {', '.join(known)}")
    matched = known[sub.lower()]
    return lambda line: (
        fields.event(line) is EventKind.POLICY_VERDICT and fields.match(line) is matched
    )


def _drop_reason(value: str) -> Predicate:
    """By name or number; Hubble's POLICY_DENY includes the tenant wall."""
    known = {reason.name: str(int(reason)) for reason in DropReason}
    name = DropReason.TENANT_WALL.name if value.upper() == POLICY_DENY[0] else value.upper()
    if name not in known and value not in known.values():
        raise ValueError(f"wanted one of {', '.join(known)}, or its number")

    def test(line: Json) -> bool:
        reason = fields.reason(line)
        return fields.event(line) is EventKind.DROP and value_or_name in (reason, known.get(reason))

    value_or_name = name if name in known else value
    return test


def _protocol(value: str) -> Predicate:
    name = value.lower()
    if name not in PROTOCOLS:
        raise ValueError(f"wanted one of {', '.join(PROTOCOLS)}")
    return lambda line: (
        fields.protocol(line).lower() == name
        or (name == "icmp" and fields.protocol(line).startswith("ICMP"))
        or (name == "http" and bool(fields.http(line)))
    )


def _http_method(value: str) -> Predicate:
    return lambda line: shown(fields.http(line), "method").upper() == value.upper()


def _http_text(of: Callable[[Json], str]) -> Callable[[str], Predicate]:
    """A part of a request by a regular expression for any piece of it, as Hubble has it."""

    def make(value: str) -> Predicate:
        pattern = f"(?s).*(?:{value}).*"
        try:
            compiled(pattern)
        except BadPattern as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return lambda line: bool(fields.http(line)) and matches_whole(pattern, of(line))

    return make


def _url(line: Json) -> str:
    return shown(fields.http(line), "url")


def _path(line: Json) -> str:
    """With the query."""
    _, slash, path = _url(line).partition("://")[2].partition("/")
    return slash + path


def _http_status(value: str) -> Predicate:
    """`404`, `40+`, `4+`."""
    if re.fullmatch(r"[1-5][0-9]{2}|[1-5][0-9]?\+", value) is None:
        raise ValueError("wanted a status such as 404, or the first digits of some: 4+, 50+")
    wanted_status = value.removesuffix("+")
    return lambda line: shown(fields.http(line), "code").startswith(wanted_status)


def _tcp_flags(value: str) -> Predicate:
    flags = frozenset(part.strip().upper() for part in value.split(","))
    if not flags <= frozenset(TCP_FLAGS):
        raise ValueError(f"wanted some of {', '.join(TCP_FLAGS)}, joined by commas")
    return lambda line: flags <= frozenset(fields.tcp_flags(line))


def _ip_version(value: str) -> Predicate:
    version = value.lower().removeprefix("ip").removeprefix("v")
    if version not in ("4", "6"):
        raise ValueError("wanted 4 or 6")
    return lambda line: shown(line, "flow", "IP", "ipVersion") == f"IPv{version}"


def _policy(value: str) -> Predicate:
    """A rule, a policy (`namespace/name`) or `tenant/NAME`, whatever it decided."""

    def test(line: Json) -> bool:
        names = [name for name, _ in fields.deciders(line)]
        return value in names or value in [name.partition("#")[0] for name in names]

    return test


ENDS: Mapping[str, tuple[str, str, Callable[[str], EndTest]]] = {
    "pod": ("[NAMESPACE/]PREFIX", "pods by name prefix, or NAMESPACE/", _pod),
    "namespace": ("NAME", "pods of a namespace", _namespace),
    "service": ("[NAMESPACE/]PREFIX", "a Service by its address or its backends", _service),
    "workload": ("[KIND/]NAME", "pods that a workload runs: Deployment/web", _workload),
    "tenant": ("NAME", "pods of a tenant", _tenant),
    "label": ("KEY=VALUE,...", "pods by labels", _label),
    "ip": ("ADDRESS|CIDR", "an address or a block", _ip),
    "port": ("PORT[-PORT]", "a port or a range", _port),
    "identity": ("NUMBER|NAME", "an identity, or host, world, remote-node", _identity),
}
"""Flags about one end: plain for either, with `from-` and `to-` for that one."""


def _of_ends() -> Iterable[FlowFilter]:
    for flag, (metavar, text, make) in ENDS.items():
        sides = (
            ("", "Either end: ", tuple(End)),
            ("from-", "Source: ", (End.SOURCE,)),
            ("to-", "Destination: ", (End.DESTINATION,)),
        )
        for prefix, title, ends in sides:
            yield FlowFilter(f"{prefix}{flag}", metavar, f"{title}{text}.", _at(ends, make))


def _at(ends: tuple[End, ...], make: Callable[[str], EndTest]) -> Callable[[str], Predicate]:
    def made(value: str) -> Predicate:
        test = make(value)
        return lambda line: any(test(line, end) for end in ends)

    return made


def _pattern(of: Callable[[Json], str]) -> Callable[[str], Predicate]:
    return lambda value: lambda line: fnmatchcase(of(line), value)


FILTERS: Mapping[str, FlowFilter] = {
    item.flag: item
    for item in (
        *_of_ends(),
        FlowFilter(
            "verdict",
            "VERDICT",
            "FORWARDED, DROPPED, AUDIT or REDIRECTED.",
            _choice(Verdict, lambda line: shown(line, "flow", "verdict")),
        ),
        FlowFilter("type", "TYPE[:SUB]", "drop, policy-verdict, l7; drop:POLICY_DENIED.", _type),
        FlowFilter("protocol", "NAME", "tcp, udp, sctp, icmp, icmpv4, icmpv6, http.", _protocol),
        FlowFilter("http-method", "METHOD", "Method of an HTTP request: GET, PUT.", _http_method),
        FlowFilter("http-path", "REGEX", "Path of an HTTP request, or a piece.", _http_text(_path)),
        FlowFilter(
            "http-status", "STATUS", "Status of its answer: 403, 5+ for all 5xx.", _http_status
        ),
        FlowFilter("http-url", "REGEX", "URL of an HTTP request, or a piece.", _http_text(_url)),
        FlowFilter("tcp-flags", "FLAG,...", "Flags that must all be set.", _tcp_flags),
        FlowFilter(
            "traffic-direction",
            "DIRECTION",
            "ingress or egress, seen from the pod.",
            _choice(("ingress", "egress"), lambda line: shown(line, "flow", "traffic_direction")),
        ),
        FlowFilter(
            "drop-reason-desc", "REASON", "Reason: POLICY_DENIED, TENANT_WALL, ...", _drop_reason
        ),
        FlowFilter("ip-version", "4|6", "Family of the addresses.", _ip_version),
        FlowFilter(
            "policy", "NAME", "What decided: NAMESPACE/POLICY, tenant/NAME, a rule.", _policy
        ),
        FlowFilter(
            "node-name",
            "PATTERN",
            "Node that saw it; * and ? are wildcards.",
            _pattern(lambda line: shown(line, "node_name")),
        ),
        FlowFilter(
            "interface",
            "NAME",
            "Interface of the node that saw it.",
            lambda value: lambda line: shown(line, "flow", "interface", "name") == value,
        ),
        FlowFilter(
            "uuid",
            "UUID",
            "One flow.",
            lambda value: lambda line: shown(line, "flow", "uuid") == value,
        ),
    )
}

REFUSED: Mapping[str, str] = {
    **{
        f"{prefix}{flag}": why
        for prefix in ("", "from-", "to-")
        for flag, why in (
            ("fqdn", "flows do not carry DNS names; filter by --ip"),
            ("cluster", "there is one cluster; filter by --node-name"),
        )
    },
    "http-header": "flows carry no headers of requests; filter by --http-path or --http-status",
    "trace-id": "flows carry no trace ids; filter by --http-path",
    "cel-expression": "expressions are not supported; combine the other filters",
}
"""Hubble's flags that ask for what our flows do not carry, and what to do instead."""
