"""What a tenant file would cut: connections that pass today and would not, and which were used.

Pure; printed by `plan` about a live cluster. Compares two answers to the same questions, the
cluster as it is and as it would be, both by the policies in force in each. Under audit nothing is
cut yet, so what would be cut once audit ends is marked as such.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from generators.documents.json import mapping, text
from generators.errors import InputError, Problem
from generators.objects import Namespace, NetworkPolicy, Pod, Selector
from generators.reachability.protocols import port_text
from generators.reachability.verdicts import Cell, Verdict, decided_by, for_packets
from generators.selectors import matches

Connection = tuple[str, str, str, int]
"""Source and destination as in cells, protocol, port."""
NAMED = 50
"""How many connections are listed."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A connection that passes today; `audited`: it is only reported, as long as audit lasts."""

    connection: Connection
    by: str
    audited: bool
    used: int = 0
    """How many observed flows it has had."""

    def __str__(self) -> str:
        source, destination, protocol, port = self.connection
        used = f", used by {self.used} observed flows" if self.used else ""
        what = "would be cut once audit ends" if self.audited else "cut"
        return f"{what}: {source} -> {destination} {port_text(port, protocol)}, by {self.by}{used}"


def cuts(
    before: Iterable[Cell],
    after: Iterable[Cell],
    used: Mapping[Connection, int],
    declared: Mapping[str, frozenset[tuple[str, int]]],
) -> tuple[Cut, ...]:
    """What passes in `before` and not in `after`, those that were used first.

    `declared`: the ports of each pod that declares any; on others of it nothing is listed, unless
    it was used.
    """
    found: dict[Connection, Cut] = {}
    for old, new in zip(before, after, strict=True):
        if old.verdict is Verdict.DROPPED or for_packets(new.verdict) is Verdict.FORWARDED:
            continue
        if old.verdict is new.verdict:
            continue
        key = new.source, new.destination, new.protocol, new.port
        offered = declared.get(new.destination)
        if offered and (new.protocol, new.port) not in offered and key not in used:
            continue
        audited = new.verdict is Verdict.AUDIT
        found.setdefault(key, Cut(key, decided_by(new), audited, used.get(key, 0)))
    return tuple(sorted(found.values(), key=lambda c: (-c.used, c.audited, c.connection)))


def sentences(found: tuple[Cut, ...], observed: bool) -> Iterator[str]:
    """The lines about the cuts; `observed`: flows were given to compare with."""
    if not found:
        yield "cuts no connection between pods that passes today, on the ports that pods declare"
        return
    if observed:
        used = [cut for cut in found if cut.used]
        what = "connections that pass today and would not"
        yield f"{what}: {len(found)}, of which were used: {len(used)}"
    yield from map(str, found[:NAMED])
    if len(found) > NAMED:
        yield f"and {len(found) - NAMED} more: ringfence matrix -c FILE --kubeconfig KUBECONFIG"


def observed_flows(lines: Iterable[str], file: str) -> Mapping[Connection, int]:
    """Connections in the JSON lines of `ringfence observe -o jsonpb`, or Hubble's; how often each.

    Replies, and ends that are not pods, do not count. InputError for a line that is not a JSON
    object.
    """
    found: Counter[Connection] = Counter()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document: object = json.loads(line)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            what, fix = "is not a JSON object", "give what `ringfence observe -o jsonpb` prints"
            raise InputError([Problem(file, number, "flow", what, fix)])
        flow = mapping(document, "flow") or document
        key = _connection(flow)
        if key is not None and flow.get("is_reply") is not True:
            found[key] += 1
    return found


def _connection(flow: Mapping[str, object]) -> Connection | None:
    ends = []
    for side in ("source", "destination"):
        end = mapping(flow, side)
        namespace, pod = text(end, "namespace"), text(end, "pod_name")
        if not (namespace and pod):
            return None
        ends.append(f"{namespace}/{pod}")
    for protocol, layer in mapping(flow, "l4").items():
        port = layer.get("destination_port") if isinstance(layer, dict) else None
        if isinstance(port, int):
            return ends[0], ends[1], protocol, port
    return None


def selections(
    before: Mapping[str, Namespace],
    after: Mapping[str, Namespace],
    policies: Iterable[NetworkPolicy],
    pods: Iterable[Pod],
) -> Iterator[str]:
    """Policies, and affinities of workloads, that select a namespace by labels that it has only
    before, or only after.
    """
    moved = [n for n in sorted(before) if n in after and before[n].labels != after[n].labels]
    asking = {f"NetworkPolicy {policy.key}": tuple(_selectors(policy)) for policy in policies}
    asking |= {f"the affinity of {_named(pod)}": pod.affinity for pod in pods if pod.affinity}
    for who, selectors in sorted(asking.items()):
        for name in moved:
            was = any(matches(s, before[name].labels) for s in selectors)
            now = any(matches(s, after[name].labels) for s in selectors)
            if was != now:
                word = "selects" if now else "no longer selects"
                yield f"{who} {word} namespace {name}: its labels change"


def _named(pod: Pod) -> str:
    if pod.workload is None:
        return f"Pod {pod.key}"
    return f"{pod.workload.kind} {pod.namespace}/{pod.workload.name}"


def _selectors(policy: NetworkPolicy) -> Iterator[Selector]:
    for rule in (*policy.ingress, *policy.egress):
        for peer in rule.peers or ():
            if peer.namespace_selector is not None:
                yield peer.namespace_selector
