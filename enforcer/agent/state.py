"""What the agent shows others: one frozen value, replaced as a whole after each step.

The agent's loop publishes it, the control socket and the metrics read it without locks; callers
that wait for an input to be in force wait on `Board`. Mappings that grow with the cluster are live
views, not copies, so that publishing costs the same on a node of any cluster; an older state shows
what is in force now. Views may be read from every thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enforcer.agent.delays import Delays, Tally
from enforcer.datapath.neighbours import Findings
from enforcer.http.proxy import ProxyState
from enforcer.policy.services import Serving
from enforcer.policy.tables import Tables
from enforcer.sources.supply import InputState
from enforcer.writes.budgets import Refusal, RoomUsage
from generators.cluster import Cluster
from generators.objects import Namespace, NetworkPolicy, Pod
from generators.tenants.model import Mode, TenantConfig


@dataclass(frozen=True, slots=True)
class Audit:
    """What the comparisons of the kernel's maps with the wanted ones found."""

    runs: int = 0
    corrections: int = 0
    """Entries that were set right, of all runs."""
    drift: Mapping[str, int] = field(default_factory=dict)
    """Entries that were wrong in the last run, by map; empty when all were right."""
    at: float | None = None
    """When the last run ended, by `time.monotonic`."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """The node as of the last step."""

    revision: int = 0
    """Counts the inputs that came into force."""
    seen_manifests: str | None = None
    """Digest of the manifests that were last looked at; None before any were there."""
    seen_config: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    """What was refused of the inputs last looked at, by source; the last good stays in force."""
    notices: tuple[str, ...] = ()
    """What is not as people may expect, though every input is in force."""
    tables: Tables = field(default_factory=Tables)
    """What is in force."""
    pods: Mapping[int, Pod] = field(default_factory=dict)
    """Local pods by the ifindex of their interface."""
    owners: Mapping[str, Pod] = field(default_factory=dict)
    """Pods of the cluster by address."""
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    walled: Mapping[str, bool] = field(default_factory=dict)
    """The known namespaces: whether a wall that drops is around their pods."""
    walls_turned: int = 0
    """Counts the changes of `walled`."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Node names by address; of this node also those that only its interfaces have."""
    node_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node name, as the Node objects tell everybody."""
    mode: Mode | None = None
    """Of the tenant wall; None without a tenant file."""
    attached: Mapping[int, str] = field(default_factory=dict)
    """How the programs hang on each interface: tcx or clsact."""
    unenforced: Mapping[str, str] = field(default_factory=dict)
    """Local pods that are not under enforcement, with the reason."""
    policies: Mapping[str, NetworkPolicy] = field(default_factory=dict)
    """NetworkPolicies of the cluster by `namespace/name`, those kept for dying pods included."""
    sources: Mapping[str, InputState] = field(default_factory=dict)
    """By kind; always as of now, not as of this state."""
    audit: Audit = Audit()
    delays: Delays = field(default_factory=Delays)
    """From a change to the datapath; the same object in every state."""
    tally: Tally = field(default_factory=Tally)
    """What the agent has done so far; the same object in every state."""
    in_force: Mapping[str, int] = field(default_factory=dict)
    """Local pods that are fully enforced, `namespace/pod` -> ifindex of the interface."""
    config: TenantConfig | None = None
    """The tenant file in force; lines of the file travel with its values."""
    cluster: Callable[[], Cluster | None] = field(default=lambda: None, compare=False)
    """The objects that all of it was made from, assembled on demand: takes time."""
    excess: Mapping[str, str] = field(default_factory=dict)
    """What is closed because it found no room, or cannot be expressed in a map; by what it is."""
    neighbours: Findings = field(default_factory=Findings)
    """Programs of others on the interfaces of this node."""
    refused: tuple[Refusal, ...] = ()
    """Policies that are not enforced as written."""
    usage: Mapping[str, RoomUsage] = field(default_factory=dict)
    """Who uses what of each map; as of now."""
    serving: Callable[[str], tuple[Serving, ...]] = field(default=lambda _: (), compare=False)
    """The Services that an address belongs to, as theirs or as a backend's; always as of now."""

    proxy: ProxyState = field(default_factory=ProxyState)
    """Of HTTP rules."""

    @property
    def ready(self) -> bool:
        """Whether anything of ours is in force."""
        return self.revision > 0


class Board:
    """Where the state is published."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = NodeState()

    @property
    def state(self) -> NodeState:
        """The last published state."""
        return self._state

    def publish(self, state: NodeState) -> None:
        """Replace the state and wake who waits."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def wait(self, condition: Callable[[NodeState], bool], seconds: float) -> NodeState | None:
        """The first state that satisfies the condition; None when none does in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._state):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    return self._state if condition(self._state) else None
            return self._state
