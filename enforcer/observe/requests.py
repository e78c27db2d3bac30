"""HTTP requests that the proxy judged, with names put to them, as flows of type L7.

The proxy says what it did (`HttpRecord`, see answers/access_log.py); who the ends are, and which
policy spoke, is known here. One flow a request, when it is over: so it has the answer's code and
the time that it took, though it is of Hubble's type REQUEST, whose verdict tells what became of it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from enforcer.observe.names import Directory, NamedParty, Speaker
from enforcer.observe.shape import JUDGEMENT, Flow, party_values, references, timestamp
from enforcer.policy.tables import Dir
from generators.http import policy_rule_of
from generators.reachability.verdicts import Verdict

EVENT_L7 = 129
"""Cilium's number for what a proxy logs."""
REASON = "L7"
LONGEST_URL = 2_048
"""A longer one is cut: a line of flows stays below 64 KiB."""


@dataclass(frozen=True, slots=True)
class HttpRecord:
    """What the proxy says of one request; times in nanoseconds."""

    time: int
    direction: Dir
    source: str
    source_port: int
    destination: str
    destination_port: int
    method: str
    path: str
    host: str
    protocol: str
    code: int
    latency: int
    rule: str = ""
    """The HTTP rule that let it pass; empty: none did."""

    @property
    def verdict(self) -> Verdict:
        """What became of the request."""
        return Verdict.FORWARDED if self.rule else Verdict.DROPPED

    @property
    def url(self) -> str:
        """As its client would write it."""
        return f"http://{self.host or self.destination}{self.path}"[:LONGEST_URL]


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """A request with names; `policies` are those that isolate its pod."""

    record: HttpRecord
    source: NamedParty
    destination: NamedParty
    policies: tuple[str, ...] = ()
    speakers: tuple[Speaker, ...] = ()
    revision: int = 0

    @property
    def local(self) -> NamedParty:
        """The end whose policies judged it."""
        return self.destination if self.record.direction is Dir.INGRESS else self.source


def see(directory: Directory, record: HttpRecord) -> NamedRequest:
    """Put names to a request."""
    unknown = NamedParty()
    source = directory.party(record.source) or unknown
    destination = directory.party(record.destination) or unknown
    own = record.destination if record.direction is Dir.INGRESS else record.source
    policies = directory.isolating_at(own, record.direction)
    names = (policy_rule_of(record.rule),) if record.rule else policies
    speakers = tuple(map(directory.speaker, names))
    return NamedRequest(record, source, destination, policies, speakers, directory.revision)


def to_flow(seen: NamedRequest, node: str) -> Flow:
    """The flow, outside of it node and time, and the judgement beside it."""
    record = seen.record
    moment = timestamp(record.time)
    fingerprint = hashlib.blake2b(repr(record).encode(), digest_size=16).digest()
    version = 6 if ":" in record.source else 4
    flow: Flow = {
        "time": moment,
        "uuid": str(uuid.UUID(bytes=fingerprint, version=4)),
        "verdict": record.verdict.value,
        "IP": {
            "source": record.source,
            "destination": record.destination,
            "ipVersion": f"IPv{version}",
        },
        "l4": {
            "TCP": {
                "source_port": record.source_port,
                "destination_port": record.destination_port,
            }
        },
        "source": party_values(seen.source),
        "destination": party_values(seen.destination),
        "Type": "L7",
        "node_name": node,
        "event_type": {"type": EVENT_L7, "sub_type": 0},
        "traffic_direction": record.direction.name,
        "is_reply": False,
        "l7": {
            "type": "REQUEST",
            "latency_ns": str(record.latency),
            "http": {
                "code": record.code,
                "method": record.method,
                "url": record.url,
                "protocol": record.protocol,
            },
        },
        **references(seen.speakers, record.direction, record.verdict, seen.revision),
        "Summary": f"{record.protocol} {record.code} {record.latency // 1_000_000}ms "
        f"({record.method} {record.url})",
    }
    judgement = {
        "verdict": record.verdict.value,
        "reason": REASON,
        "rule": record.rule or None,
        "policies": list(seen.policies),
    }
    return {"flow": flow, "node_name": node, "time": moment, JUDGEMENT: judgement}
