"""A named event as JSON: one line of the observer's API, which Hubble's tools read unchanged.

Additions to that API are in `labels` (tenant, rule, line of the file) and in `judgement`, which
describes the event in the words of a matrix cell; `published` leaves it out for readers that warn
of fields they do not know. Hubble has no name for the tenant wall, so a flow calls its drops
POLICY_DENY, refused by a `Tenant`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from enforcer.datapath.flows import DropReason, EventFlag, FlowRecord, ForwardReason
from enforcer.observe.names import IDENTITY_WORLD, NamedEvent, NamedParty, Speaker
from enforcer.policy.tables import IDENTITY_HOST, IDENTITY_REMOTE_NODE, Dir
from generators.objects import PolicyKind
from generators.reachability.verdicts import Reason, Verdict, for_packets

Flow = dict[str, object]
"""A flow as JSON: only dicts, lists, strings, numbers and booleans inside."""

EVENT_DROP = 1
EVENT_POLICY_VERDICT = 5
POLICY_DENY = ("POLICY_DENY", 181)
NANOSECONDS = 1_000_000_000
PROTOCOLS = {1: "ICMPv4", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
RESERVED = {
    IDENTITY_HOST: "host",
    IDENTITY_WORLD: "world",
    IDENTITY_REMOTE_NODE: "remote-node",
}
TENANT_LABEL = "tenant:name="
RULE_LABEL = "ringfence:rule="
SOURCE_LABEL = "ringfence:source="
JUDGEMENT = "judgement"


def to_flow(seen: NamedEvent, node: str) -> Flow:
    """The flow, outside of it node and time, and the judgement beside it."""
    record = seen.record
    moment = timestamp(record.time)
    drop = isinstance(record.reason, DropReason)
    name, number = _drop_name(record)
    verdict_event = record.verdict is not Verdict.DROPPED
    fingerprint = hashlib.blake2b(repr(record).encode(), digest_size=16).digest()
    flow: Flow = {
        "time": moment,
        "uuid": str(uuid.UUID(bytes=fingerprint, version=4)),
        "verdict": record.verdict.value,
        "IP": {
            "source": record.source,
            "destination": record.destination,
            "ipVersion": f"IPv{record.family}",
        },
        "l4": _l4(record),
        "source": party_values(seen.source),
        "destination": party_values(seen.destination),
        "Type": "L3_L4",
        "node_name": node,
        "event_type": {
            "type": EVENT_POLICY_VERDICT if verdict_event else EVENT_DROP,
            "sub_type": number if drop else 0,
        },
        "traffic_direction": record.direction.name,
        "is_reply": EventFlag.REPLY in record.flags,
        **references(seen.speakers, record.direction, record.verdict, seen.revision),
        **_services(seen),
        **_interface(seen),
        "Summary": _summary(record),
    }
    if drop:
        flow["drop_reason_desc"] = name
    if verdict_event and seen.match:
        flow["policy_match_type"] = int(seen.match)
    if not record.family:
        del flow["IP"]
    return {"flow": flow, "node_name": node, "time": moment, JUDGEMENT: _judgement(seen)}


def published(line: Mapping[str, object]) -> Flow:
    """A line without what Hubble's readers do not know."""
    return {key: value for key, value in line.items() if key != JUDGEMENT}


def lost_events(source: str, count: int, node: str, time: int) -> Flow:
    """The line that reports how many events were lost."""
    lost = {"source": source, "num_events_lost": count}
    return {"lost_events": lost, "node_name": node, "time": timestamp(time)}


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


BROKEN = (DropReason.INVALID_PACKET_DROPPED.name, int(DropReason.INVALID_PACKET_DROPPED))
HUBBLE_NAMES: Mapping[object, tuple[str, int]] = {
    DropReason.TENANT_WALL: POLICY_DENY,
    DropReason.ENCAP_PROHIBITED: ("ENCAPSULATION_TRAFFIC_IS_PROHIBITED", 170),
    DropReason.INVALID_DESTINATION_IP: BROKEN,
    DropReason.INVALID_CHECKSUM: BROKEN,
    DropReason.FORGED: BROKEN,
}
"""Reasons that Hubble does not know, or by another name: its readers refuse unknown ones."""


REASONS: Mapping[object, str] = {ForwardReason.REDIRECTED: Reason.L7.value}
"""As cells of the matrix name them, where that is another word."""


def _drop_name(record: FlowRecord) -> tuple[str, int]:
    return HUBBLE_NAMES.get(record.reason, (record.reason.name, int(record.reason)))


def _judgement(seen: NamedEvent) -> Flow:
    return {
        "verdict": seen.record.verdict.value,
        "reason": REASONS.get(seen.record.reason, seen.record.reason.name),
        "rule": seen.rule,
        "policies": list(seen.policies),
    }


def party_values(party: NamedParty) -> Flow:
    """One end; what is empty is left out."""
    labels = list(party.labels)
    if party.tenant:
        labels.append(f"{TENANT_LABEL}{party.tenant}")
    if party.identity in RESERVED:
        labels.append(f"reserved:{RESERVED[party.identity]}")
    values: Flow = {
        "ID": party.endpoint,
        "identity": party.identity,
        "namespace": party.namespace,
        "labels": sorted(labels),
        "pod_name": party.pod,
    }
    if party.workload is not None:
        values["workloads"] = [{"name": party.workload.name, "kind": party.workload.kind}]
    return {key: value for key, value in values.items() if value}


def _services(seen: NamedEvent) -> Flow:
    """The Service of each end that has one."""
    found: Flow = {}
    for key, service in (
        ("source_service", seen.source_service),
        ("destination_service", seen.destination_service),
    ):
        namespace, slash, name = service.partition("/")
        if slash:
            found[key] = {"name": name, "namespace": namespace}
    return found


def _interface(seen: NamedEvent) -> Flow:
    index = seen.record.ifindex
    if not index:
        return {}
    named = {"name": seen.interface} if seen.interface else {}
    return {"interface": {"index": index, **named}}


def _l4(record: FlowRecord) -> Flow:
    name = PROTOCOLS.get(record.protocol)
    if name is None:
        return {}
    if name.startswith("ICMP"):
        return {name: {"type": record.icmp_type, "code": record.icmp_code}}
    ports: Flow = {
        "source_port": record.source_port,
        "destination_port": record.destination_port,
    }
    if name == "TCP":
        ports["flags"] = {f: True for i, f in enumerate(TCP_FLAGS) if record.tcp_flags >> i & 1}
    return {name: ports}


def _summary(record: FlowRecord) -> str:
    name = PROTOCOLS.get(record.protocol, f"protocol {record.protocol}")
    if not record.family:
        return f"EtherType 0x{record.ethertype:04x}"
    if name == "TCP":
        flags = ", ".join(f for i, f in enumerate(TCP_FLAGS) if record.tcp_flags >> i & 1)
        return f"TCP Flags: {flags or 'none'}"
    if name.startswith("ICMP"):
        return f"{name} type {record.icmp_type} code {record.icmp_code}"
    return name


def references(
    speakers: Sequence[Speaker], direction: Dir, verdict: Verdict, revision: int
) -> Flow:
    """Who let in, or who refused, under Hubble's field for it."""
    passes = for_packets(verdict) is Verdict.FORWARDED
    side = f"{direction.name.lower()}_{'allowed' if passes else 'denied'}_by"
    listed = [_reference(speaker, revision) for speaker in speakers]
    found: Flow = {side: listed} if listed else {}
    texts = sorted({speaker.log for speaker in speakers if speaker.log})
    return found | ({"policy_log": texts} if texts else {})


def _reference(speaker: Speaker, revision: int) -> Flow:
    """`namespace/policy`, `namespace/policy#ingress[0]` or `tenant/NAME#...` as a reference."""
    owner, _, rule = speaker.name.partition("#")
    namespace, _, policy = owner.rpartition("/")
    kinds = {"tenant": "Tenant", "quarantine": "Namespace"}
    if namespace in kinds:
        reference: Flow = {"name": policy, "kind": kinds[namespace]}
    else:
        kind = next(k for k in reversed(PolicyKind) if policy.startswith(k.prefix))
        reference = {"name": policy.removeprefix(kind.prefix), "kind": kind.value}
        reference |= {"namespace": namespace} if namespace else {}
    labels = [f"{RULE_LABEL}{speaker.name}"] if rule else []
    labels += [f"{SOURCE_LABEL}{speaker.origin}"] if speaker.origin else []
    if labels:
        reference["labels"] = labels
    if revision:
        reference["revision"] = revision
    return reference
