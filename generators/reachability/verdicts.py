"""The answer to "may this packet pass, and what decides": the words all three engines share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """AUDIT passes: it marks what the wall would have dropped.

    In the order of `enum verdict` of bpf/lib/drop_reasons.h.
    """

    FORWARDED = "FORWARDED"
    DROPPED = "DROPPED"
    AUDIT = "AUDIT"


VERDICTS = tuple(Verdict)
"""By number."""
WORST_FIRST = (Verdict.DROPPED, Verdict.AUDIT, Verdict.FORWARDED)
"""Of several answers for one packet the worst one counts."""
ACTIONS = {Verdict.FORWARDED: "allow", Verdict.DROPPED: "deny", Verdict.AUDIT: "audit"}
"""As metrics name them."""


class Reason(StrEnum):
    """Why one direction got its verdict; drop reasons carry Cilium's name where one fits."""

    SELF = "SELF"  # a pod and itself: outside the reach of policy
    HOST = "HOST"  # the pod's own node, from a local socket; or a pod towards its own node
    NOT_ISOLATED = "NOT_ISOLATED"
    POLICY_ALLOWED = "POLICY_ALLOWED"
    POLICY_DENIED = "POLICY_DENIED"  # no rule allows it
    POLICY_DENY = "POLICY_DENY"  # a rule denies it
    TENANT_WALL = "TENANT_WALL"
    ENCAP_PROHIBITED = "ENCAP_PROHIBITED"  # a pod's encapsulated packet towards a node
    UNKNOWN_L4_PROTOCOL = "UNKNOWN_L4_PROTOCOL"  # POLICY_DENIED of a protocol that has no rules
    UNKNOWN_SENDER = "UNKNOWN_SENDER"  # in-cluster address that no cache knows, or a masked source


@dataclass(frozen=True, slots=True)
class Judgement:
    """One direction's verdict.

    `rule` is `namespace/policy#direction[index]` (direction `ingress` or `egress`; of Cilium's
    policies also `ingressDeny` or `egressDeny`, see `NetworkPolicy.rule_name`) or a rule of the
    wall: `tenant/NAME#own`, `tenant/NAME#shared[COMPONENT]`, `tenant/NAME#allowFrom[TENANT]`,
    `tenant/NAME#wall` for what none of them lets in. `policies` are the NetworkPolicies that
    isolate the pod, sorted.
    """

    verdict: Verdict
    reason: Reason
    rule: str | None = None
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One question of the matrix and its answer; the ends are `ns/pod` or `ip/ADDR`."""

    source: str
    destination: str
    protocol: str
    port: int
    family: str
    verdict: Verdict
    egress: Judgement
    ingress: Judgement


def decided_by(cell: Cell) -> str:
    """The rule that a verdict is due to, or the policies or the reason where no rule is."""
    side = cell.ingress if cell.ingress.verdict is cell.verdict else cell.egress
    return side.rule or ", ".join(side.policies) or side.reason.value
