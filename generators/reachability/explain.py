"""Why a cell is what it is: every stage of the chain for one packet, in words.

`ringfence trace` prints it. It asks the evaluator's own predicates, so that it can never tell
another story than the verdict; it only adds which part of a rule did not fit, and what would have
to be written to allow the packet.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.documents.writing import to_yaml
from generators.labels import GRANTS_ANNOTATION
from generators.manifests import Document
from generators.objects import NAME_LABEL, Direction, Pod, PolicyKind
from generators.reachability.matching import rule_matches
from generators.reachability.origins import origin_of
from generators.reachability.packets import EXTERNAL_PREFIX, Packet, Party, Question, Route
from generators.reachability.protocols import WITH_PORTS, port_text
from generators.reachability.reference import Entry, Evaluator
from generators.reachability.ruletexts import describe, why_not
from generators.reachability.verdicts import Cell, Judgement, Reason, Verdict, for_packets
from generators.tenants.assignment import assign_by_name
from generators.tenants.model import Mode

NOT_ASKED = (Reason.SELF, Reason.HOST, Reason.ENCAP_PROHIBITED)
"""Decided before wall and policies."""


@dataclass(frozen=True, slots=True)
class EndNote:
    """Who one end is, and how its namespace came to its tenant."""

    name: str
    address: str
    what: str
    tenant: str | None = None
    assignment: str = ""
    namespace_labels: tuple[tuple[str, str], ...] = ()
    pod_labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RuleNote:
    """One rule of a policy that isolates the pod: whether it matched, and why (not)."""

    rule: str
    matched: bool
    why: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class BackendNote:
    """One backend of the Service that was called, and how the call fares with it."""

    name: str
    address: str
    port: int
    cell: Cell


@dataclass(frozen=True, slots=True)
class Trace:
    """One cell with all that led to it; through a Service: as the worst backend fares."""

    cell: Cell
    source: EndNote
    destination: EndNote
    wall: str
    egress: tuple[RuleNote, ...]
    ingress: tuple[RuleNote, ...]
    to_allow: tuple[str, ...]
    service: str = ""
    backends: tuple[BackendNote, ...] = ()


def trace(evaluator: Evaluator, question: Question) -> Trace:
    """Explain the answer to one question."""
    answers = [(evaluator.answer(question, p), p) for p in evaluator.packets(question)]
    cell = evaluator.cell(question)
    # Where HTTP rules of backends differ, none of them fares as the cell does.
    leaving = next((p for found, p in answers if found.egress == cell.egress), answers[0][1])
    entering = next(p for found, p in answers if found.ingress == cell.ingress)
    packet = leaving if cell.egress.verdict is cell.verdict else entering
    arrived = evaluator.arriving(entering)
    service = evaluator.service(question.destination)
    called = service.key if service is not None and packet.route is Route.SERVICE else ""
    return Trace(
        cell=cell,
        service=called,
        backends=tuple(_backend(*pair) for pair in answers) if called else (),
        source=_end(evaluator, packet.source),
        destination=_end(evaluator, packet.destination),
        wall=_wall(evaluator, arrived, cell.ingress),
        egress=_rules(evaluator, Direction.EGRESS, leaving.source.pod, leaving, cell.egress),
        ingress=_rules(
            evaluator, Direction.INGRESS, entering.destination.pod, arrived, cell.ingress
        ),
        to_allow=_to_allow(evaluator, leaving, arrived, cell),
    )


def _backend(cell: Cell, packet: Packet) -> BackendNote:
    end = packet.destination
    return BackendNote(end.name, end.address, packet.port, cell)


def _end(evaluator: Evaluator, party: Party) -> EndNote:
    pod = evaluator.pods.get(party.name) or party.pod
    if pod is None:
        if party.node is not None:
            return EndNote(
                party.name, party.address, f"address of node {party.node or '(unnamed)'}"
            )
        if party.interface_of:
            nodes = ", ".join(sorted(party.interface_of))
            return EndNote(
                party.name,
                party.address,
                f"address of an interface of node {nodes}, and only there",
            )
        service = evaluator.service(f"{EXTERNAL_PREFIX}{party.address}")
        if service is not None:
            what = f"ClusterIP of Service {service.key}, without a backend for this port"
            return EndNote(party.name, party.address, what)
        return EndNote(party.name, party.address, "an address of no pod and no node")
    what = "pod on its node's network" if pod.host_network else "pod"
    if pod.node:
        what += f" on node {pod.node}"
    reason = ""
    config = evaluator.cluster.config
    if config is not None:
        reason = assign_by_name(config, pod.namespace).reason
        tenant = evaluator.cluster.tenants.get(pod.namespace)
        if pod.namespace in evaluator.quarantined and not config.tied(pod.namespace):
            reason = "in quarantine: it carries a tenant label that no record confirms"
        elif pod.namespace in evaluator.quarantined:
            reason = f"in quarantine: {reason}"
        elif tenant is not None and tenant not in config.tenants:
            reason = f"in quarantine: tenant {tenant} is not in {config.file} any more"
    return EndNote(
        party.name,
        party.address,
        what,
        evaluator.cluster.tenants.get(pod.namespace),
        reason,
        tuple(sorted(evaluator.namespaces[pod.namespace].labels.items())),
        tuple(sorted(pod.labels.items())),
    )


# The wall


def _wall(evaluator: Evaluator, packet: Packet, judgement: Judgement) -> str:
    subject = packet.destination.pod
    if subject is None:
        return "no wall: the destination is not a pod on the pod network"
    if judgement.reason in NOT_ASKED:
        return f"not asked: {judgement.reason.value}"
    if evaluator.cluster.config is None:
        return "no wall: no tenant file was given"
    answer = evaluator.wall(subject, packet)
    match answer.entry:
        case Entry.NO_WALL if evaluator.mode is Mode.OVERRIDABLE:
            return "no wall: mode overridable leaves it to NetworkPolicies"
        case Entry.NO_WALL:
            return f"no wall: namespace {subject.namespace} belongs to no tenant"
        case Entry.LET_IN if answer.rule is None:
            outside = packet.source.node is None
            return "let in: " + (
                "it comes from outside the cluster"
                if outside
                else "masked, and allowMasked is true"
            )
        case Entry.LET_IN:
            return f"let in by {answer.rule}{_agreed(evaluator, answer.rule)}"
        case Entry.KEPT_OUT:
            reported = evaluator.reports_only(subject)
            act = "reported only (mode audit)" if reported else "kept out"
            return f"{act} by {answer.rule}: {_why_kept_out(evaluator, packet, answer.reason)}"


def _agreed(evaluator: Evaluator, rule: str | None) -> str:
    """Where tenants wrote the grant themselves, if they did."""
    cluster = evaluator.cluster
    found = origin_of(rule or "", {}, cluster.tenants, cluster.config)
    return f": both tenants agreed, {found}" if GRANTS_ANNOTATION in found else ""


def _why_kept_out(evaluator: Evaluator, packet: Packet, reason: Reason) -> str:
    source = packet.source
    if reason is Reason.UNKNOWN_SENDER:
        if source.node is not None:
            return "source masked: a node's address does not say which pod is behind it"
        return "no pod has this address of the pod ranges"
    theirs = evaluator.cluster.tenants.get(source.pod.namespace) if source.pod else None
    who = f"tenant {theirs}" if theirs else "a namespace without a tenant"
    return f"the source belongs to {who}: not its own, not shared, no grant for {_port(packet)}"


def _port(packet: Packet) -> str:
    return port_text(packet.port, packet.protocol)


# Rules


def _rules(
    evaluator: Evaluator,
    direction: Direction,
    subject: Pod | None,
    packet: Packet,
    judgement: Judgement,
) -> tuple[RuleNote, ...]:
    if subject is None or judgement.reason in NOT_ASKED:
        return ()
    notes = []
    spaces = evaluator.namespaces
    for policy in evaluator.speaking(direction, subject):
        rules = policy.rules(direction)
        if not rules:
            why = f"it has no {direction.lower()} rules: it isolates and allows nothing"
            notes.append(RuleNote(policy.key, False, why, str(policy.origin)))
        for index, rule in enumerate(rules):
            matched = rule_matches(spaces, direction, policy, rule, packet)
            why = describe(rule) if matched else why_not(spaces, direction, policy, rule, packet)
            name = policy.rule_name(direction, index)
            notes.append(RuleNote(name, matched, why, str(policy.origin)))
        if judgement.rule == (opening := policy.opening(direction)):
            why = "no rule denies it, and without a default deny the rest passes"
            notes.append(RuleNote(opening, True, why, str(policy.origin)))
    return tuple(notes)


# What to add


def _to_allow(
    evaluator: Evaluator, leaving: Packet, arrived: Packet, cell: Cell
) -> tuple[str, ...]:
    """What to write for each direction that does not let the packet through."""
    hints = []
    if cell.egress.reason is Reason.ENCAP_PROHIBITED and leaving.source.pod is not None:
        hints.append(
            "to allow encapsulated packets to nodes, add namespace "
            f"{leaving.source.pod.namespace} to `encapsulation: {{namespaces: {{names: []}}}}` "
            "of the tenant file"
        )
    elif cell.egress.reason is Reason.POLICY_DENY:
        hints.append(_deny_hint(cell.egress))
    elif leaving.source.pod is not None and not _passes(cell.egress):
        hints.append(_policy_hint(evaluator, Direction.EGRESS, leaving.source.pod, leaving))
    subject = arrived.destination.pod
    if subject is None or _passes(cell.ingress):
        return tuple(hints)
    if cell.ingress.reason is Reason.POLICY_DENY:
        hints.append(_deny_hint(cell.ingress))
    elif cell.ingress.reason in (Reason.POLICY_DENIED, Reason.UNKNOWN_L4_PROTOCOL):
        hints.append(_policy_hint(evaluator, Direction.INGRESS, subject, arrived))
    else:
        hints.append(_wall_hint(evaluator, arrived, subject, cell.ingress.reason))
    return tuple(hints)


def _passes(judgement: Judgement) -> bool:
    return for_packets(judgement.verdict) is Verdict.FORWARDED


def _deny_hint(judgement: Judgement) -> str:
    return f"nothing to add: no rule that allows is stronger than {judgement.rule}; narrow that one"


def _policy_hint(evaluator: Evaluator, direction: Direction, subject: Pod, packet: Packet) -> str:
    peer = packet.peer(direction)
    item: Document
    if peer.pod is None:
        bits = 128 if ":" in peer.address else 32
        item = {"ipBlock": {"cidr": f"{peer.address}/{bits}"}}
    else:
        item = {"podSelector": {"matchLabels": dict(sorted(peer.pod.labels.items()))}}
        if peer.pod.namespace != subject.namespace:
            home = {"matchLabels": {NAME_LABEL: peer.pod.namespace}}
            item = {"namespaceSelector": home, **item}
    key = "from" if direction is Direction.INGRESS else "to"
    wanted: Document = {key: [item]}
    if packet.protocol in WITH_PORTS:
        wanted["ports"] = [{"protocol": packet.protocol, "port": packet.port}]
    rule = to_yaml([{direction.lower(): [wanted]}])
    plain = PolicyKind.NETWORK_POLICY
    isolating = (p.key for p in evaluator.isolating(direction, subject) if p.kind is plain)
    named = ", ".join(isolating)
    where = f"to {named} or to another NetworkPolicy" if named else "to a NetworkPolicy"
    return (
        f"to allow {direction.lower()}, add {where} of namespace {subject.namespace} that "
        f"selects {subject.name}:\n{rule.rstrip()}"
    )


def _wall_hint(evaluator: Evaluator, packet: Packet, subject: Pod, reason: Reason) -> str:
    config = evaluator.cluster.config
    file = config.file if config is not None else "the tenant file"
    ours = evaluator.cluster.tenants.get(subject.namespace)
    if reason is Reason.UNKNOWN_SENDER and packet.source.node is not None:
        return (
            f"to allow masked sources, set `allowMasked: true` at tenant {ours} in {file}, or "
            "`hostNetwork: true` at the shared component that they belong to"
        )
    if reason is Reason.UNKNOWN_SENDER:
        return "nothing to add: the address has to belong to a pod first"
    home = packet.source.pod.namespace if packet.source.pod else ""
    theirs = evaluator.cluster.tenants.get(home)
    port = ""
    if packet.protocol in WITH_PORTS:
        port = f", ports: [{{port: {packet.port}, protocol: {packet.protocol}}}]"
    if theirs is None or ours is None:
        return (
            f"to allow it, let a tenant of {file} or `shared` name namespace {home}; "
            "namespaces without a tenant may not enter one"
        )
    if config is not None and all(config.tenant(side).self_service for side in (ours, theirs)):
        on = f":{packet.port}/{packet.protocol}" if port else ""
        return (
            f"to allow it, members of both tenants consent in annotation {GRANTS_ANNOTATION}: "
            f"`{ours} from {theirs}{on}` on a namespace of {ours}, "
            f"`{theirs} to {ours}{on}` on one of {theirs}"
        )
    return (
        f"to allow it, both tenants consent in {file}: `allowFrom: [{{tenant: {theirs}{port}}}]` "
        f"at tenant {ours} and `allowTo: [{{tenant: {ours}{port}}}]` at tenant {theirs}"
    )
