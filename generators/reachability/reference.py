"""The reference evaluator: may this packet pass, and what decides. The executable specification.

The matrix and trace commands ask it, the compiler and the kernel are tested against it. It is
written to be compared with the meaning of NetworkPolicy line by line, not to be fast.

    order of one direction (subject = the pod whose side it is)
    1. the subject is no pod on the pod network (a node, an address)   NOT_ISOLATED
    2. a pod and itself                                                SELF
    3. the pod and its own node, from a local socket or towards it     HOST
    4. ingress: the tenant wall keeps the source out                   TENANT_WALL, UNKNOWN_SENDER
    5. a rule that denies matches, whatever others allow               POLICY_DENY
    6. no policy isolates the subject in this direction                NOT_ISOLATED
    7. a rule without HTTP rules matches                               POLICY_ALLOWED
    8. rules with HTTP rules match: they judge each request together   L7 (verdict REDIRECTED)
    9. none                                                            POLICY_DENIED

Only Cilium's policies deny, and only theirs may have rules without isolating (enableDefaultDeny).
Where these alone speak and deny something, what they spare passes by a rule of that name.

A packet to a Service is judged by its backends, because it reaches one of them: each direction is
that of the backend that fares worst in it, because any of them may be chosen. What leaves is
dropped where HTTP rules of two backends differ: a request is judged before one is chosen.

The wall (mode strict; audit reports and goes on; overridable has none) lets in: own tenant, shared
components, consented grants, and what comes from outside the cluster. An address of the pod ranges
that no pod has, and a node's address that is not the pod's own node (a masked source), cannot be
named and stay outside. A namespace in quarantine has a wall of its own that knows only itself and
shared components, in every mode; in audit it too only reports.

Under audit (mode audit, of the file or of the tenant) no generated policy is written. It is judged
all the same, "on trial": where no other policy isolates the pod, so that it would be what cuts,
its denial is reported with verdict AUDIT and passes.

A namespace with annotation ringfence.io/mode: audit is judged in the same order, but what its pods'
wall and policies would drop is reported with verdict AUDIT and passes. One in quarantine has no
say. Where policies only report, on trial too, HTTP is not judged: it passes at step 8.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from generators.addresses import Family, family
from generators.cluster import (
    Cluster,
    address_owners,
    audited,
    confirmed_namespaces,
    in_pod_range,
    on_trial,
    quarantined,
)
from generators.http import RuleSet
from generators.objects import Direction, NetworkPolicy, Pod, Rule, Service
from generators.reachability.matching import rule_matches
from generators.reachability.packets import (
    EXTERNAL_PREFIX,
    Packet,
    Party,
    Question,
    Route,
    is_hairpin,
    is_own,
    is_own_node,
)
from generators.reachability.protocols import encapsulates, is_unknown
from generators.reachability.services import SERVICE_PREFIX, Backend, ServiceKey, service_map
from generators.reachability.verdicts import (
    Cell,
    Judgement,
    Reason,
    Verdict,
    of_backends,
    worst,
)
from generators.references import resolved
from generators.selectors import selects
from generators.tenants.model import Mode, Port, Tenant


class Entry(Enum):
    """The wall's answer for a source."""

    NO_WALL = "no wall"
    LET_IN = "let in"
    KEPT_OUT = "kept out"


@dataclass(frozen=True, slots=True)
class WallAnswer:
    """The wall's word: by which rule it lets in (None from outside), or why it keeps out."""

    entry: Entry
    reason: Reason = Reason.TENANT_WALL
    rule: str | None = None


_NO_WALL = WallAnswer(Entry.NO_WALL)
_NOT_ISOLATED = Judgement(Verdict.FORWARDED, Reason.NOT_ISOLATED)
_SELF = Judgement(Verdict.FORWARDED, Reason.SELF)
_HOST = Judgement(Verdict.FORWARDED, Reason.HOST)
_UNSPECIFIED = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104 - no socket binds here


class Evaluator:
    """Answers questions about one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.namespaces = confirmed_namespaces(cluster)
        self.quarantined = quarantined(cluster)
        self.audited = audited(cluster)
        self.owners = address_owners(cluster.pods)
        self.trials = on_trial(cluster)
        tried = {policy.key: policy for policy in self.trials.values()}
        given = {policy.key: policy for policy in cluster.policies} | tried
        self.policies: dict[str, list[NetworkPolicy]] = {}
        for policy in sorted(given.values(), key=lambda p: p.key):
            meant = resolved(policy, cluster.services, cluster.slices)
            self.policies.setdefault(policy.namespace, []).append(meant)
        self.pods = {pod.key: pod for pod in cluster.pods}
        self.services = service_map(cluster.services, cluster.slices, cluster.pods)
        self.virtual = {ip: service for service in cluster.services for ip in service.cluster_ips}
        self.node_addresses = {ip: node.name for node in cluster.nodes for ip in node.ips}
        for pod in cluster.pods:
            if pod.host_network and not pod.terminal:
                self.node_addresses.update((ip, pod.node) for ip in pod.ips)
        self.interface_addresses: dict[str, frozenset[str]] = {}
        for node in cluster.nodes:
            for ip in node.interface_ips:
                others = self.interface_addresses.get(ip, frozenset())
                self.interface_addresses[ip] = others | {node.name}

    def cell(self, question: Question) -> Cell:
        """The answer to one question; LookupError when an end has no address of that family."""
        answers = [self.answer(question, packet) for packet in self.packets(question)]
        egress = of_backends(answer.egress for answer in answers)
        return cell_of(question, egress, worst(answer.ingress for answer in answers))

    def answer(self, question: Question, packet: Packet) -> Cell:
        """The answer as far as one of the question's packets goes."""
        return cell_of(question, self.egress(packet), self.ingress(packet))

    def packets(self, question: Question) -> tuple[Packet, ...]:
        """The packet that a question is about; to a Service one for each backend."""
        direct = self.leaving(question)
        backends = self.backends(direct)
        if not backends:
            return (direct,)
        return tuple(
            replace(
                direct,
                destination=self.at_address(self._name_of(backend.address), backend.address),
                port=backend.port,
                route=Route.SERVICE,
            )
            for backend in backends
        )

    def leaving(self, question: Question) -> Packet:
        """The packet as it leaves its source: a Service is still a plain address."""
        source = self.party(question.source, question.family)
        destination = self.party(question.destination, question.family)
        return Packet(source, destination, question.protocol, question.port)

    def backends(self, packet: Packet) -> tuple[Backend, ...]:
        """What is behind the destination, when it is a Service's; none of an address in use."""
        destination = packet.destination
        if destination.pod is not None or destination.node is not None:
            return ()
        if packet.source.pod is not None and is_own_node(packet.source.pod, destination):
            return ()
        key = ServiceKey(destination.address, packet.port, packet.protocol)
        return self.services.get(key, ())

    def service(self, name: str) -> Service | None:
        """The Service that `svc/NS/NAME` or its ClusterIP names."""
        for address in self.virtual:
            found = self.virtual[address]
            if name in (f"{SERVICE_PREFIX}{found.key}", f"{EXTERNAL_PREFIX}{address}"):
                return found
        return None

    def party(self, name: str, of: Family) -> Party:
        """The end that `ns/pod`, `svc/ns/service` or `ip/ADDR` names."""
        pod = self.pods.get(name)
        if pod is None and name.startswith(SERVICE_PREFIX):
            service = self.service(name)
            for address in service.cluster_ips if service is not None else ():
                if family(address) is of:
                    return self.at_address(name, address)
            raise LookupError(f"{name} has no {of} address")
        if pod is None:
            return self.at_address(name, name.removeprefix(EXTERNAL_PREFIX))
        for address in pod.ips:
            if family(address) is not of or pod.terminal:
                continue
            if pod.host_network:
                return replace(self.at_address(name, address), node=pod.node)
            if self.owners[address].key == pod.key:
                return Party(name, address, pod=pod)
        raise LookupError(f"{name} has no {of} address")

    def _name_of(self, address: str) -> str:
        pod = self.owners.get(address)
        return pod.key if pod is not None else f"{EXTERNAL_PREFIX}{address}"

    def at_address(self, name: str, address: str) -> Party:
        """The owner of an address: a pod, a node, or something outside."""
        pod = self.owners.get(address)
        if pod is not None:
            return Party(name, address, pod)
        node, interface_of = self.node_addresses.get(address), self.interface_addresses
        return Party(name, address, None, node, interface_of.get(address, frozenset()))

    def arriving(self, packet: Packet) -> Packet:
        """The packet as the destination sees it: a hairpin wears the address of the pod's node."""
        pod = packet.destination.pod
        if pod is None or not is_hairpin(packet):
            return packet
        of = family(packet.source.address)
        own = (ip for ip, name in self.node_addresses.items() if name == pod.node)
        address = next((ip for ip in own if family(ip) is of), _UNSPECIFIED[of])
        source = Party(f"{EXTERNAL_PREFIX}{address}", address, node=pod.node)
        return replace(packet, source=source)

    def egress(self, packet: Packet) -> Judgement:
        """The source's side."""
        subject = packet.source.pod
        if subject is None:
            return _NOT_ISOLATED
        if is_own(packet):
            return _SELF
        if self._is_prohibited(subject, packet):
            return Judgement(Verdict.DROPPED, Reason.ENCAP_PROHIBITED)
        if packet.route is Route.SERVICE and not self._is_cut(Direction.EGRESS, subject):
            # Nobody has to look behind the Service.
            return _NOT_ISOLATED
        if is_own_node(subject, packet.destination):
            return _HOST
        return self._meant(subject, self._by_policies(Direction.EGRESS, subject, packet))

    def _is_prohibited(self, subject: Pod, packet: Packet) -> bool:
        """Whether the packet carries others to a node, in whatever mode."""
        is_node = packet.destination.node is not None or is_own_node(subject, packet.destination)
        if not is_node or packet.route is Route.SERVICE:
            return False
        config = self.cluster.config
        allowed = config is not None and subject.namespace in config.encapsulating
        return encapsulates(packet.protocol, packet.port) and not allowed

    def ingress(self, packet: Packet) -> Judgement:
        """The destination's side: the tenant wall, then its policies."""
        subject = packet.destination.pod
        if subject is None:
            return _NOT_ISOLATED
        if is_own(packet):
            return _SELF
        if not is_hairpin(packet) and is_own_node(subject, packet.source):
            return _HOST
        packet = self.arriving(packet)
        judged = self._by_policies(Direction.INGRESS, subject, packet)
        wall = self.wall(subject, packet)
        if wall.entry is not Entry.KEPT_OUT:
            return self._meant(subject, judged)
        kept_out = Judgement(Verdict.DROPPED, wall.reason, wall.rule, judged.policies)
        if not self.reports_only(subject):
            return kept_out
        if judged.verdict is not Verdict.DROPPED or subject.namespace in self.audited:
            return replace(kept_out, verdict=Verdict.AUDIT)
        return judged

    def reports_only(self, subject: Pod) -> bool:
        """Whether the wall around a pod only reports."""
        config, name = self.cluster.config, subject.namespace
        audits = config is not None and config.audits(self.cluster.tenants.get(name))
        return audits or name in self.audited

    def _meant(self, subject: Pod, judged: Judgement) -> Judgement:
        """The verdict on a pod; in a namespace under audit a drop is only reported."""
        if judged.verdict is Verdict.DROPPED and subject.namespace in self.audited:
            return replace(judged, verdict=Verdict.AUDIT)
        return judged

    # The tenant wall

    @property
    def mode(self) -> Mode:
        """How the wall acts; without a tenant file there is none."""
        config = self.cluster.config
        return config.mode if config is not None else Mode.OVERRIDABLE

    def wall(self, subject: Pod, packet: Packet) -> WallAnswer:
        """Whether the wall around the subject's namespace lets the packet's source in."""
        if self.cluster.config is None:
            return _NO_WALL
        if subject.namespace in self.quarantined:
            return self._entry(f"quarantine/{subject.namespace}", None, subject, packet)
        name = self.cluster.tenants.get(subject.namespace)
        if name is None or self.mode is Mode.OVERRIDABLE:
            return _NO_WALL
        tenant = self.cluster.config.tenants.get(name, Tenant(name))
        return self._entry(f"tenant/{name}", tenant, subject, packet)

    def _entry(self, name: str, tenant: Tenant | None, subject: Pod, packet: Packet) -> WallAnswer:
        source = packet.source
        masked = source.pod is None and source.node is not None
        nobody = source.pod is None and source.node is None
        if nobody and in_pod_range(self.cluster, source.address):
            return WallAnswer(Entry.KEPT_OUT, Reason.UNKNOWN_SENDER, f"{name}#wall")
        if nobody or (masked and tenant is not None and tenant.allow_masked):
            return WallAnswer(Entry.LET_IN)
        rule = self._wall_rule(tenant, subject, packet)
        if rule is not None:
            return WallAnswer(Entry.LET_IN, rule=f"{name}#{rule}")
        reason = Reason.UNKNOWN_SENDER if masked else Reason.TENANT_WALL
        return WallAnswer(Entry.KEPT_OUT, reason, f"{name}#wall")

    def _wall_rule(self, tenant: Tenant | None, subject: Pod, packet: Packet) -> str | None:
        """The wall's first rule that names the source; `tenant` None = quarantine."""
        config, pod = self.cluster.config, packet.source.pod
        if config is None:
            return None
        if pod is not None and self._one_of_us(tenant, subject, pod):
            return "own"
        for component in config.shared:
            if pod is None:
                lives_there = component.host_network
            else:
                lives_there = pod.namespace in component.namespaces
            if lives_there and _wall_port(component.ports, packet):
                return f"shared[{component.name}]"
        theirs = self.cluster.tenants.get(pod.namespace) if pod is not None else None
        if tenant is not None and tenant.name in config.tenants and theirs is not None:
            for grant in config.consented(tenant.name):
                if grant.tenant == theirs and _wall_port(grant.ports, packet):
                    return f"allowFrom[{theirs}]"
        return None

    def _one_of_us(self, tenant: Tenant | None, subject: Pod, pod: Pod) -> bool:
        if tenant is None:
            return pod.namespace == subject.namespace
        return self.cluster.tenants.get(pod.namespace) == tenant.name

    # Policies

    def speaking(self, direction: Direction, subject: Pod) -> tuple[NetworkPolicy, ...]:
        """The policies that have a say on a pod in a direction, by name.

        One on trial does not count beside others: it could only add to what they allow.
        """
        labels = self.namespaces[subject.namespace].labels
        near = (*self.policies.get(subject.namespace, ()), *self.policies.get("", ()))
        found = tuple(p for p in near if p.speaks(direction) and selects(p, subject, labels))
        if direction is Direction.EGRESS or subject.namespace in self.audited:
            return found
        trial = self.trials.get(subject.namespace)
        others = tuple(policy for policy in found if policy is not trial)
        return others if any(direction in policy.directions for policy in others) else found

    def isolating(self, direction: Direction, subject: Pod) -> tuple[NetworkPolicy, ...]:
        """Those of them that isolate the pod."""
        return tuple(p for p in self.speaking(direction, subject) if direction in p.directions)

    def _is_cut(self, direction: Direction, subject: Pod) -> bool:
        """Whether a policy isolates the pod or denies something."""
        return any(
            direction in policy.directions or any(rule.deny for rule in policy.rules(direction))
            for policy in self.speaking(direction, subject)
        )

    def matching_rules(
        self,
        direction: Direction,
        policies: Iterable[NetworkPolicy],
        packet: Packet,
        *,
        deny: bool = False,
    ) -> tuple[tuple[str, Rule], ...]:
        """All rules that allow it, or deny it, with names, in policy order; any is a true answer.

        Where HTTP is judged at some ports of a rule, several have its name.
        """
        return tuple(
            (policy.rule_name(direction, index), rule)
            for policy in policies
            for index, rule in enumerate(policy.rules(direction))
            if rule.deny is deny and rule_matches(self.namespaces, direction, policy, rule, packet)
        )

    def rule_set(self, direction: Direction, subject: Pod, packet: Packet) -> RuleSet | None:
        """What judges requests on a connection that no rule allows without looking at them."""
        rules = self.matching_rules(direction, self.speaking(direction, subject), packet)
        if not rules or not all(rule.http for _, rule in rules):
            return None
        named = tuple((f"{name}.{http.name}", http) for name, rule in rules for http in rule.http)
        return RuleSet(direction.value, rules[0][0], named)

    def _by_policies(self, direction: Direction, subject: Pod, packet: Packet) -> Judgement:
        speaking = self.speaking(direction, subject)
        policies = tuple(policy for policy in speaking if direction in policy.directions)
        names = tuple(policy.key for policy in policies)
        denying = self.matching_rules(direction, speaking, packet, deny=True)
        if denying:
            return Judgement(Verdict.DROPPED, Reason.POLICY_DENY, denying[0][0], names)
        if not policies:
            return _spared(direction, speaking)
        tried = policies == (self.trials.get(subject.namespace),)
        reports = subject.namespace in self.audited or tried
        rules = self.matching_rules(direction, speaking, packet)
        http = self.rule_set(direction, subject, packet)
        if http is not None and not reports:
            return Judgement(Verdict.REDIRECTED, Reason.L7, http.rule, names, http)
        if rules:
            first = next((name for name, rule in rules if not rule.http), rules[0][0])
            return Judgement(Verdict.FORWARDED, Reason.POLICY_ALLOWED, first, names)
        reason = Reason.POLICY_DENIED
        if is_unknown(packet.protocol):
            reason = Reason.UNKNOWN_L4_PROTOCOL
        return Judgement(Verdict.AUDIT if tried else Verdict.DROPPED, reason, None, names)


def _spared(direction: Direction, policies: Iterable[NetworkPolicy]) -> Judgement:
    """What no rule denies, where nothing isolates; `policies` have a say all the same."""
    denying = (p for p in policies if any(rule.deny for rule in p.rules(direction)))
    first = next(denying, None)
    if first is None:
        return _NOT_ISOLATED
    return Judgement(Verdict.FORWARDED, Reason.POLICY_ALLOWED, first.opening(direction))


def _wall_port(ports: tuple[Port, ...], packet: Packet) -> bool:
    return not ports or any(
        wanted.protocol == packet.protocol
        and (wanted.port is None or wanted.port <= packet.port <= (wanted.end_port or wanted.port))
        for wanted in ports
    )


def cell_of(question: Question, egress: Judgement, ingress: Judgement) -> Cell:
    """The answer that two directions make: as the worse of them fares."""
    return Cell(
        question.source,
        question.destination,
        question.protocol,
        question.port,
        question.family,
        worst((egress, ingress)).verdict,
        egress,
        ingress,
    )
