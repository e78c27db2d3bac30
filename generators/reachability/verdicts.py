"""The answer to "may this packet pass, and what decides": the words all three engines share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from generators.http import RuleSet


class Verdict(StrEnum):
    """AUDIT passes: it marks what the wall would have dropped. REDIRECTED goes to the proxy, which
    answers each request by HTTP rules.

    In the order of `enum verdict` of bpf/lib/drop_reasons.h.
    """

    FORWARDED = "FORWARDED"
    DROPPED = "DROPPED"
    AUDIT = "AUDIT"
    REDIRECTED = "REDIRECTED"


VERDICTS = tuple(Verdict)
"""By number."""
WORST_FIRST = (Verdict.DROPPED, Verdict.REDIRECTED, Verdict.AUDIT, Verdict.FORWARDED)
"""Of several answers for one packet the worst one counts."""
ACTIONS = {
    Verdict.FORWARDED: "allow",
    Verdict.DROPPED: "deny",
    Verdict.AUDIT: "audit",
    Verdict.REDIRECTED: "redirect",
}
"""As metrics name them."""


class Reason(StrEnum):
    """Why one direction got its verdict; drop reasons carry Cilium's name where one fits."""

    SELF = "SELF"  # a pod and itself: outside the reach of policy
    HOST = "HOST"  # the pod's own node, from a local socket; or a pod towards its own node
    NOT_ISOLATED = "NOT_ISOLATED"
    POLICY_ALLOWED = "POLICY_ALLOWED"
    L7 = "L7"  # only rules allow it that judge each request
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
    isolate the pod, sorted. Of REDIRECTED `rule` is the first of those that judge, and `http` what
    they let pass.
    """

    verdict: Verdict
    reason: Reason
    rule: str | None = None
    policies: tuple[str, ...] = ()
    http: RuleSet | None = None


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


def for_packets(verdict: Verdict) -> Verdict:
    """What becomes of packets: a connection that is redirected opens, and then requests are judged.

    What documents say, whose readers knew three verdicts before there were HTTP rules.
    """
    return Verdict.FORWARDED if verdict is Verdict.REDIRECTED else verdict


def meets(verdict: Verdict, expected: str) -> bool:
    """Whether a verdict is the expected one."""
    return expected in (verdict.value, for_packets(verdict).value)


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """The first of the worst verdict."""
    return min(judgements, key=_rank)


def _rank(judgement: Judgement) -> int:
    return WORST_FIRST.index(judgement.verdict)


def of_backends(judgements: Iterable[Judgement]) -> Judgement:
    """The same of what leaves, in order of the backends that may be chosen for it.

    A request is judged before one is chosen, so two of them may not differ in what judges it.
    """
    answers = iter(judgements)
    found = next(answers)
    for judgement in answers:
        if found.verdict is Verdict.DROPPED:
            break
        if found.http is not None and judgement.http not in (None, found.http):
            return Judgement(Verdict.DROPPED, Reason.POLICY_DENIED, None, found.policies)
        found = min(found, judgement, key=_rank)
    return found


def decided_by(cell: Cell) -> str:
    """The rule that a verdict is due to, or the policies or the reason where no rule is."""
    side = cell.ingress if cell.ingress.verdict is cell.verdict else cell.egress
    return side.rule or ", ".join(side.policies) or side.reason.value
