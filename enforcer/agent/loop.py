"""The node agent: changes -> tables -> kernel, one batch after the other.

`ringfence enforcer run` starts it. The loop sleeps until something happens, takes in all that has
happened by then and writes it: a lone change does not wait, and changes during a write are the next
batch. It never detaches anything when it ends, nothing is written before every input has been read
once, and whatever goes wrong (a bad file, a full map, an API server that is away) leaves the last
good tables in force. A pod whose tables cannot be written still gets the programs: without endpoint
state they let nothing through. Only where programs of another version enforce, they stay until the
first tables for the new ones are written.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

from enforcer.agent import excess
from enforcer.agent.attachments import Attachments
from enforcer.agent.backlog import Backlog
from enforcer.agent.collector import Collector
from enforcer.agent.own_addresses import OwnNode
from enforcer.agent.remembered import Lately, Remembered
from enforcer.agent.residents import Residents, links
from enforcer.agent.settings import AgentSettings
from enforcer.agent.state import Board, NodeState
from enforcer.agent.unclaimed import Unclaimed
from enforcer.agent.writer import MapAccess, TableWriter
from enforcer.compiler.compile import Compiler
from enforcer.compiler.views import Computed, Live
from enforcer.datapath.maps import Maps
from enforcer.datapath.neighbours import Findings
from enforcer.datapath.programs import Programs, is_up
from enforcer.http.proxy import Proxy
from enforcer.policy.changes import (
    ArrivalChange,
    InputChange,
    InterfaceChange,
    NamespaceChange,
    NodesChange,
    PodChange,
    PolicyChange,
    ServiceChange,
    ShortcutChange,
    SliceChange,
)
from enforcer.policy.identity import Registry
from enforcer.policy.numbers import Numbers
from enforcer.policy.tables import Table
from enforcer.sources.supply import Supply, Taken
from generators.errors import RingfenceError
from generators.objects import Pod
from generators.process import memory
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

TICK_SECONDS = 1.0
"""What failed is tried again, and interfaces that are gone are noticed, every so often."""
START_SECONDS = 0.05
"""Between two looks at whether all inputs have been read."""
SWITCH_SECONDS = 0.001
"""For so long a thread that reads a long object may keep the loop from going on."""
TELL_SECONDS = 60.0
ROUTINE = (PodChange, ServiceChange, SliceChange)
"""Changes that happen all day and are not worth a line of the log each."""


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What an agent works with."""

    supply: Supply
    maps: Maps
    pins: Path
    board: Board
    attachments: Attachments
    collector: Collector
    proxy: Proxy


class Agent:
    """One node's enforcement; `run` in one thread, `wake` from any."""

    def __init__(self, settings: AgentSettings, parts: AgentParts) -> None:
        self._settings = settings
        self._parts = parts
        self._woken = threading.Event()
        self._tick_at = 0.0
        kernel = parts.maps.read()
        self._fresh = not kernel.endpoints
        self._registry = Registry.following(kernel, time.monotonic_ns())
        self._numbers = Numbers(settings.run_dir, parts.maps.name)
        self._numbers.promise(self._registry)
        self._saved: tuple[int, ...] = ()
        self._compiler = Compiler(
            settings.node,
            self._registry,
            limits=parts.maps.capacity(),
            start_mode=settings.start_mode,
        )
        self._residents = Residents(settings.node, partial(links, settings.cni_cache_dir))
        self._own_node = OwnNode(settings.node)
        self._programs = Programs(parts.pins, kernel.endpoints)
        self._unclaimed = Unclaimed(self._programs, self._residents, settings.watch_interfaces)
        self._remembered = Remembered(settings.run_dir)
        self._backlog = Backlog(settings.node, self._compiler)
        self._lately = Lately()
        self._unenforced: dict[str, str] = {}
        self._in_force: dict[str, int] = {}
        self._pods: dict[int, Pod] = {}
        """Local pods by interface."""
        self._state = self._first_state()
        self._writer = TableWriter(
            self._compiler,
            MapAccess(parts.maps.read, parts.maps.apply, parts.proxy.prepare),
            self._state.tally,
            parts.collector.forget,
        )
        self._began = False
        self._is_set_aside = False
        self._attachments_changed = True
        self._waiting_since: float | None = None
        self._datapath_error = ""
        self._neighbours = Findings()
        self._reported: dict[str, str] = {}
        """By parts beside the loop; see `report`."""
        self._audit_at = time.monotonic() + settings.audit_seconds
        self._batches = self._writes = 0  # since the last line that told of them
        self._told_until = 0.0

    def _first_state(self) -> NodeState:
        """With views of all that changes."""
        compiler, before = self._compiler, self._parts.board.state
        return replace(
            before,
            tables=compiler.view(),
            pods=Live(self._pods),
            owners=compiler.owners(),
            namespaces=Live(compiler.known.namespaces),
            tenants=Live(compiler.known.record),
            walled=compiler.walled(),
            policies=compiler.policies(),
            attached=self._programs.attached,
            in_force=Live(self._in_force),
            sources=Computed(self._parts.supply.sources()),
            cluster=compiler.cluster,
            serving=compiler.serving,
            usage=Computed({t.value: partial(compiler.usage, t) for t in Table}),
        )

    def wake(self) -> None:
        """Have the loop look at everything."""
        self._woken.set()

    def report(self, source: str, error: str) -> None:
        """What a part beside the loop cannot do, for status and readiness; empty: it can again."""
        self._reported[source] = error
        self._woken.set()

    def have_addresses(self, addresses: tuple[str, ...]) -> None:
        """These are the node's from now on."""
        self._own_node.have(addresses)
        self._woken.set()

    def have_neighbours(self, found: Findings) -> None:
        """These programs of others are on the node's interfaces from now on."""
        self._neighbours = found
        self._woken.set()

    def look_around(self) -> None:
        """Have the loop look for interfaces again, too."""
        self._tick_at = 0.0
        self._woken.set()

    def run(self, stop: Event) -> None:
        """Work until stopped (and woken); what is in force stays in force.

        PinsGone if the pins were removed: there is nothing left to work with.
        """
        sys.setswitchinterval(SWITCH_SECONDS)
        self._parts.attachments.subscribe(self._attached)
        self._parts.collector.start()
        self._parts.supply.start(self.wake)
        try:
            while not stop.is_set():
                self._woken.clear()
                self._turn()
                now = time.monotonic()
                self._woken.wait(self._backlog.due(now, max(0.0, self._tick_at - now)))
        finally:
            self._parts.supply.stop()
            self._parts.collector.stop()
            if self._began:
                self._save()

    def _save(self) -> None:
        """What the next agent is to know."""
        self._remembered.save(self._compiler.neighbourhood())
        registry = self._registry
        given = (registry.identities.next, registry.groups.next, registry.rules.next)
        if given != self._saved:
            self._numbers.save(registry, self._compiler.names())
            self._saved = given

    def _attached(self) -> None:
        self._attachments_changed = True
        self._woken.set()

    # --- one turn -------------------------------------------------------------------------------

    def _turn(self) -> None:
        tick = time.monotonic() >= self._tick_at
        if tick:
            pause = TICK_SECONDS if self._began else START_SECONDS
            self._tick_at = time.monotonic() + pause
        taken = self._parts.supply.take()
        if not self._began and not taken.changes:
            self._publish()
            return
        local = tuple(self._local(taken, tick=tick))
        turn = time.monotonic()
        if self._began and self._settings.manifests is None:
            local = self._backlog.admit(local, turn)
        changes = self._lately.follow(local, self._state.policies)
        self._begin(changes)
        if self._waiting_since is None:
            self._waiting_since = taken.since
        failed = bool(self._datapath_error)
        if changes:
            self._compiler.apply(changes)
        if changes or (failed and tick):
            self._write(changes)
        if self._backlog.took(changes, turn, time.monotonic()):
            gc.freeze()  # as in `_set_aside`: what a long policy brought stays
        self._set_aside()
        if tick or failed != bool(self._datapath_error):
            everybody = (self._residents.pods, self._in_force, self._unenforced)
            self._settle(dict.fromkeys(key for keys in everybody for key in keys))
            self._unclaimed.keep(self._state.walled)
            self._retire()
        else:
            self._settle(_touched(changes))
        self._publish()
        if tick:
            self._keep_house()

    def _local(self, taken: Taken, *, tick: bool) -> Iterator[InputChange]:
        """What happened, as it is on this node."""
        changes: Iterable[InputChange] = taken.changes
        if not self._began:
            changes = self._remembered.outlived(changes)
        if self._attachments_changed:
            # First the flag: what comes meanwhile is looked at in the next turn.
            self._attachments_changed = False
            yield from self._residents.attach(self._parts.attachments.snapshot())
        yield from self._own_node.follow(self._residents.follow(changes))
        if self._neighbours.shortcut != self._compiler.known.shortcut:
            yield ShortcutChange(self._neighbours.shortcut)
        if tick:
            yield from self._residents.look_again()

    def _begin(self, changes: Iterable[InputChange]) -> None:
        """Before the first of all writes."""
        if self._began:
            return
        self._began = True
        if self._fresh:
            found = self._residents.interfaces.values()
            self._compiler.known.grace = frozenset(i for i in found if is_up(i))
        event(log, "inputs_read", changes=sum(1 for _ in changes))

    def _set_aside(self) -> None:
        """Once: what was read first stays, and is not to be searched for garbage again and again.

        A walk over a hundred thousand pods holds up the change that happens to come then. What the
        reading needed goes back to the machine.
        """
        if not self._is_set_aside:
            self._is_set_aside = True
            registry = self._registry
            promised = (registry.identities, registry.groups, registry.rules, registry.cidrs)
            for numbering in promised:
                numbering.settle()
            gc.collect()
            gc.freeze()
            memory.give_back()

    def _write(self, changes: tuple[InputChange, ...]) -> None:
        """Bring it into force; a failure leaves it to be tried again."""
        began = time.monotonic()
        try:
            writes = self._writer.write()
        except RingfenceError as error:
            self._datapath_error = str(error)
            return
        now = time.monotonic()
        self._datapath_error = ""
        delays = self._state.delays
        delays.observe("write", now - began)
        if self._waiting_since is not None:
            delays.observe(
                "manifests" if self._settings.manifests else "k8s", now - self._waiting_since
            )
            self._waiting_since = None
        if not self._state.ready:
            self._programs.catch_up()
        self._state = replace(self._state, revision=self._state.revision + 1)
        for change in changes:
            if isinstance(change, NodesChange):
                nodes = {
                    ip: node.name
                    for node in change.nodes
                    for ip in (*node.ips, *node.interface_ips)
                }
                told = {node.name: node.ips for node in change.nodes}
                self._state = replace(self._state, nodes=nodes, node_addresses=told)
            elif self._is_remembered(change):
                self._remembered.touch()
        if not all(isinstance(change, ROUTINE) for change in changes):
            self._tell(writes)

    def _is_remembered(self, change: InputChange) -> bool:
        match change:
            case PolicyChange(key, _) | InterfaceChange(key, _) | PodChange(key, _):
                name, _, _ = key.partition("/")
            case NamespaceChange(name, _):
                pass
            case _:
                return False
        # The last pod takes its namespace out of the file, and is no inhabitant any more.
        return self._remembered.holds(name) or (
            not isinstance(change, PodChange) and self._compiler.is_inhabited(name)
        )

    def _settle(self, pods: Iterable[str]) -> None:
        """Attach the programs to the interfaces of these pods, and report problems."""
        for key in pods:
            ifindex = self._residents.interfaces.get(key)
            before = self._in_force.pop(key, None)
            problem = self._residents.missing.get(key, "")
            if before is not None and before != ifindex and self._is_of(before, key):
                del self._pods[before]
            if ifindex is not None:
                self._pods[ifindex] = self._compiler.known.pods[key]
                problem = self._enforce(ifindex)
                if not problem:
                    self._in_force[key] = ifindex
            self._unenforced.pop(key, None)
            if problem:
                self._unenforced[key] = problem

    def _enforce(self, ifindex: int) -> str:
        """Programs on one interface; why its pod is not under enforcement, or nothing."""
        if not self._state.ready and self._programs.runs_another_version(ifindex):
            return "as before the upgrade: its tables could not be rewritten, see errors"
        problem = self._programs.put_on(ifindex)
        if not problem and ifindex not in self._state.tables.endpoints:
            problem = "closed: its policy could not be written, see errors"
        return problem

    def _is_of(self, ifindex: int, key: str) -> bool:
        pod = self._pods.get(ifindex)
        return pod is not None and pod.key == key

    def _retire(self) -> None:
        if not self._unenforced and not self._datapath_error:
            self._programs.retire_old()

    def _keep_house(self) -> None:
        """Once a tick, and never before what happened is in force."""
        self._programs.forget_gone(self._residents.present)
        self._programs.put_back()
        self._save()
        if time.monotonic() < self._audit_at:
            return
        try:
            self._compiler.reconsider()
            self._writer.write()
            self._writer.audit()
        except RingfenceError as error:
            self._datapath_error = str(error)
        audited = self._writer.audited
        if audited.drift:
            event(log, "drift_corrected", logging.ERROR, **audited.drift)
        memory.give_back()
        self._audit_at = time.monotonic() + self._settings.audit_seconds
        self._publish()

    # --- what is told ---------------------------------------------------------------------------

    def _publish(self) -> None:
        health = self._parts.supply.health()
        errors = dict(health.errors)
        if self._datapath_error:
            errors["datapath"] = self._datapath_error
        errors |= {source: error for source, error in dict(self._reported).items() if error}
        config = self._compiler.known.config
        self._state = replace(
            self._state,
            seen_manifests=health.seen.manifests,
            seen_config=health.seen.config,
            errors=errors,
            notices=health.notices,
            mode=config.mode if config is not None else None,
            config=config,
            walls_turned=self._compiler.walls_turned,
            unenforced=dict(self._unenforced),
            excess={**self._compiler.excess(), **self._writer.excess()},
            neighbours=self._neighbours,
            refused=tuple(self._compiler.allotment.refused.values()),
            audit=self._writer.audited,
            proxy=self._parts.proxy.state,
        )
        before = self._parts.board.state
        if self._state == before:
            return
        if errors != before.errors:
            for source, error in sorted(errors.items()):
                event(log, "input_refused", logging.ERROR, source=source, error=error)
        excess.report(before, self._state)
        self._parts.board.publish(self._state)

    def _tell(self, writes: int) -> None:
        """A line a minute at most, whatever comes in."""
        self._batches, self._writes = self._batches + 1, self._writes + writes
        if time.monotonic() < self._told_until:
            return
        event(
            log,
            "policy_in_force",
            revision=self._state.revision,
            endpoints=len(self._state.tables.endpoints),
            batches=self._batches,
            writes=self._writes,
        )
        self._batches = self._writes = 0
        self._told_until = time.monotonic() + TELL_SECONDS


def _touched(changes: Iterable[InputChange]) -> Mapping[str, None]:
    """The pods whose own place may have changed."""
    found: dict[str, None] = {}
    for change in changes:
        match change:
            case PodChange(key, _) | InterfaceChange(key, _) | ArrivalChange(key, _):
                found[key] = None
    return found
