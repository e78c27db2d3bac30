"""The node agent: inputs -> cluster -> tables -> kernel, again after every change.

`ringfence enforcer run` starts it. What may surprise: it never detaches anything when it ends, and
whatever goes wrong (a bad file, a full map) leaves the last good tables in force. A pod whose
tables cannot be written still gets the programs: without endpoint state they let nothing through.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from enforcer import attach, loader
from enforcer.changes import Inputs as Wanted
from enforcer.compile import Compiler
from enforcer.counts import Counts
from enforcer.endpoints import Found, find_interfaces
from enforcer.identity import Registry
from enforcer.inputs import Manifests, Tenants, Watch
from enforcer.maps import Maps
from enforcer.start import StartMode
from enforcer.state import Board, State
from enforcer.tables import SERVICE_BACKENDS, Tables
from generators.cluster import Cluster, address_owners, from_record
from generators.errors import Refused, RingfenceError
from generators.logs import event
from generators.record import RECORD_NAMESPACE

log = logging.getLogger("ringfence.enforcer")

POLL_SECONDS = 0.05
"""Between two looks at the inputs' stamps."""
RETRY_POLLS = 20
"""What failed is tried again, and interfaces that are gone are noticed, every so many polls."""
COLLECT_SECONDS = 30.0
"""Between two removals of connections that have ended."""
OF_TABLES = ("datapath", "services")
"""Sources of errors that go only when tables are written anew."""

SIOCGIFFLAGS = 0x8913
IFF_UP = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How an agent was started; objects come from `manifests` or from an API server."""

    node: str
    manifests: Path | None
    config: Path | None
    pin_dir: Path
    run_dir: Path
    kubeconfig: Path | None = None
    """None: KUBECONFIG, then the pod's ServiceAccount."""
    start_mode: StartMode = StartMode.STRICT
    cni_conf_dir: Path | None = None
    """Where the node's CNI configuration is; None: nothing is installed there."""
    cni_bin_dir: Path | None = None
    audit_seconds: float = 600.0
    """Between two comparisons of the kernel's maps with the wanted ones."""
    system_namespace: str = RECORD_NAMESPACE
    """Where the controller keeps its record."""


class Busy(Refused):
    """Another agent works on this directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"another agent works with {directory}; stop it first, or give this one directories "
            "of its own with --run-dir and --pin-dir"
        )


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Be the only agent of the run directory and of the pins; the kernel frees both when we die."""
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    loader.ensure_bpffs(settings.pin_dir)
    links = settings.pin_dir / attach.LINKS
    links.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        for directory, named in ((settings.run_dir, settings.run_dir), (links, settings.pin_dir)):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(named) from None
        yield


class Agent:
    """One node's enforcement; `step` does what there is to do."""

    def __init__(
        self, settings: Settings, maps: Maps, counts: Counts, pins: Path, board: Board
    ) -> None:
        self._settings = settings
        self._maps = maps
        self._counts = counts
        self._pins = pins
        self._board = board
        if settings.manifests is None:
            raise Refused("objects come from --manifests DIR")
        self._watch = Watch(settings.manifests, settings.config)
        self._seen = (Manifests(), Tenants())
        self._good: tuple[Manifests | None, Tenants | None] = (None, None)
        self._cluster: Cluster | None = None
        self._written: Cluster | None = None
        self._errors: dict[str, str] = {}
        kernel = maps.read()
        self._compiler = Compiler(settings.node, Registry.following(kernel))
        self._unsure = True
        """The kernel may hold something else than was last committed."""
        self._fresh = not kernel.endpoints
        self._interfaces = set(kernel.endpoints)
        self._found: Found | None = None
        self._attached: dict[int, str] = {}
        self._failed = False
        self._retired = False

    def run(self, stop: Event) -> None:
        """Step until told to stop; what is in force stays in force."""
        polls, collected = 0, time.monotonic()
        while not stop.wait(POLL_SECONDS if polls else 0):
            changed = self._watch.changed()
            if changed:
                self._read()
            self.step(changed=changed, retry=polls % RETRY_POLLS == 0)
            polls += 1
            if time.monotonic() - collected > COLLECT_SECONDS:
                self._maps.collect()
                collected = time.monotonic()

    def step(self, *, changed: bool, retry: bool) -> None:
        """Make the kernel agree with the last good inputs, if anything is new, and publish."""
        if self._cluster is None:
            self._show(self._unchanged())
            return
        if retry:
            self._forget_interfaces()
        found = find_interfaces(self._cluster.pods, self._settings.node, _ifindex)
        same = self._cluster is self._written and found == self._found
        if same and not (retry and self._failed):
            if changed:
                self._show(self._unchanged())
            return
        self._found, self._written = found, self._cluster
        if self._fresh:
            self._fresh = False
            self._compiler.grace = frozenset(i for i in found.interfaces.values() if _is_up(i))
        errors = dict(self._errors)
        tables = self._board.state.tables
        try:
            tables = self._write(self._cluster, found)
            errors |= _closed_services(tables)
        except RingfenceError as error:
            errors["datapath"] = str(error)
        unenforced = dict(found.missing)
        for key, ifindex in found.interfaces.items():
            problem = self._attach(ifindex)
            if problem or ifindex not in tables.endpoints:
                unenforced[key] = problem or "closed: its policy could not be written, see errors"
        self._failed = "datapath" in errors or unenforced.keys() != found.missing.keys()
        self._retire(unenforced)
        self._show(self._result(self._cluster, found, tables, errors, unenforced))

    def _read(self) -> None:
        """Look at the inputs; what is bad is reported, and the last good one kept."""
        manifests, tenants = self._seen = self._watch.manifests(), self._watch.tenants()
        errors = {
            source: str(error)
            for source, error in (("manifests", manifests.error), ("config", tenants.error))
            if error is not None
        }
        good = (
            manifests if manifests.documents is not None else self._good[0],
            tenants if tenants.error is None else self._good[1],
        )
        try:
            if good != self._good:
                self._cluster = _cluster(*good) or self._cluster
                self._good = good
        except RingfenceError as error:
            errors["manifests"] = str(error)
        self._errors = errors

    def _write(self, cluster: Cluster, found: Found) -> Tables:
        """Compile and write; the tables that are now in force."""
        compiler = self._compiler
        compiler.become(Wanted(cluster, found.interfaces))
        if self._unsure:
            compiler.resync(self._maps.read())
            self._unsure = False
        writes = compiler.plan()
        gone = compiler.leaving()
        try:
            self._maps.apply(writes)
        except RingfenceError:
            self._unsure = True
            raise
        compiler.commit()
        if gone:
            self._counts.forget(gone)
        desired = compiler.tables()
        self._interfaces |= desired.endpoints.keys()
        return desired

    def _attach(self, ifindex: int) -> str:
        """Put the programs on an interface once; why that failed, or nothing."""
        if ifindex in self._attached:
            return ""
        try:
            self._attached[ifindex] = str(attach.attach(self._pins, ifindex))
        except RingfenceError as error:
            event(log, "attach_failed", logging.ERROR, ifindex=ifindex, error=str(error))
            return str(error)
        event(log, "attached", ifindex=ifindex, mode=self._attached[ifindex])
        return ""

    def _forget_interfaces(self) -> None:
        """Remove the pins of interfaces that are gone; one that is still there stays closed."""
        for ifindex in [i for i in self._interfaces | self._attached.keys() if not _exists(i)]:
            attach.forget(self._pins, ifindex)
            self._attached.pop(ifindex, None)
            self._interfaces.discard(ifindex)

    def _retire(self, unenforced: Mapping[str, str]) -> None:
        """Drop the pins of older programs as soon as nothing runs them any more."""
        if not self._retired and not unenforced:
            attach.retire(self._pins)
            self._retired = True

    def _unchanged(self) -> State:
        """What is in force stays as it is; only the inputs that were looked at are others."""
        manifests, tenants = self._seen
        return replace(
            self._board.state,
            seen_manifests=manifests.digest,
            seen_config=tenants.digest,
            errors=self._errors
            | {k: v for k, v in self._board.state.errors.items() if k in OF_TABLES},
        )

    def _result(
        self,
        cluster: Cluster,
        found: Found,
        tables: Tables,
        errors: Mapping[str, str],
        unenforced: Mapping[str, str],
    ) -> State:
        manifests, tenants = self._seen
        local = {pod.key: pod for pod in cluster.pods if pod.key in found.interfaces}
        return State(
            revision=self._board.state.revision + (0 if "datapath" in errors else 1),
            seen_manifests=manifests.digest,
            seen_config=tenants.digest,
            errors=errors,
            tables=tables,
            pods={ifindex: local[key] for key, ifindex in found.interfaces.items()},
            owners=address_owners(cluster.pods),
            namespaces=cluster.namespaces,
            tenants=cluster.tenants,
            nodes={ip: node.name for node in cluster.nodes for ip in node.ips},
            mode=cluster.config.mode if cluster.config is not None else None,
            config=cluster.config,
            cluster=lambda: cluster,
            attached=dict(self._attached),
            unenforced=unenforced,
        )

    def _show(self, state: State) -> None:
        before = self._board.state
        if state == before:
            return
        if state.errors != before.errors:
            for source, error in sorted(state.errors.items()):
                event(log, "input_refused", logging.ERROR, source=source, error=error)
        if state.revision != before.revision:
            event(
                log,
                "policy_in_force",
                revision=state.revision,
                endpoints=len(state.tables.endpoints),
                entries=len(state.tables.policy) + len(state.tables.ranges),
                unenforced=len(state.unenforced),
            )
        self._board.publish(state)


def _cluster(manifests: Manifests | None, tenants: Tenants | None) -> Cluster | None:
    """The cluster that good inputs describe; None while one of them is missing."""
    if manifests is None or manifests.documents is None or tenants is None:
        return None
    return from_record(manifests.documents, tenants.config)


def _closed_services(tables: Tables) -> dict[str, str]:
    """An error about Services that no isolated pod of the node may call; none without them."""
    closed = [f"{k.address}:{k.port}/{k.protocol}" for k, b in tables.services.items() if not b]
    if not closed:
        return {}
    told = f"calls from isolated pods to {', '.join(sorted(closed))} are closed: policies tell "
    told += f"more than {SERVICE_BACKENDS} kinds of backends apart there; use fewer kinds"
    return {"services": told}


def _ifindex(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _is_up(ifindex: int) -> bool:
    """Whether the link is up: then its pod may have connections from before us."""
    try:
        name = socket.if_indextoname(ifindex).encode()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            answer = fcntl.ioctl(asked, SIOCGIFFLAGS, struct.pack("16sH14x", name, 0))
    except OSError:
        return False
    flags: int = struct.unpack("16sH14x", answer)[1]
    return bool(flags & IFF_UP)


def _exists(ifindex: int) -> bool:
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True
