"""Our plugin on the node: its program among the others, its entry last in the node's configuration.

The agent installs it at its start and keeps it there, because CNIs rewrite their configuration
when they are updated; `ringfence enforcer uninstall` takes both away. Every file is replaced by a
rename: a runtime reads the old one or the new one. A `.conf` is not changed but set aside under a
name that runtimes do not read, and comes back at the end.
"""

from __future__ import annotations

import fcntl
import filecmp
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enforcer.agent.attachments import Attachments
from enforcer.agent.supervise import Report, Supervised
from enforcer.cni import build, conflist, trial
from enforcer.cni.conflist import BadConflist, PluginEntry
from enforcer.cni.namespaces import FILE as NAMESPACES
from enforcer.cni.server import SOCKET
from enforcer.sources.inotify import FolderWatch
from generators.errors import RingfenceError
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")

ASIDE = ".before-ringfence"
UNFINISHED = ".ringfence-new"
FIGHT, FIGHT_SECONDS = 5, 60.0
"""If our entry is lost this often within this time, another program removes it."""
LOOK_SECONDS = 5.0
"""Look at least this often: replacing a whole directory causes no event."""
DEFAULT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class PluginPlaces:
    """Where the plugin of one agent lives; the runtime sees the same paths."""

    conf_dir: Path
    bin_dir: Path
    run_dir: Path

    @property
    def program(self) -> Path:
        """The plugin's program."""
        return self.bin_dir / build.PLUGIN

    @property
    def leaving(self) -> Path:
        """After the end: a file for each sandbox that was made with the program, and still is."""
        return self.program.with_name(f"{build.PLUGIN}.leaving")

    @property
    def namespaces(self) -> Path:
        """What the plugin reads when no agent answers."""
        return self.conf_dir / NAMESPACES

    def entry(self, seconds: int = DEFAULT_SECONDS) -> PluginEntry:
        """Our entry in the configuration."""
        return PluginEntry(str(self.run_dir / SOCKET), str(self.namespaces), seconds)


class StillRunning(RingfenceError):
    """An agent maintains the plugin on the node; what is removed now would come back."""

    exit_code = 1

    def __init__(self, run_dir: Path) -> None:
        super().__init__(f"an agent runs with {run_dir} and maintains its plugin; stop it first")


class NoConfiguration(RingfenceError):
    """The node has no network configuration where we look."""

    exit_code = 1

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"there is no CNI configuration in {folder}, so no start mode is in force, and new "
            "pods are closed by the watcher alone; if pods run on this node its runtime reads "
            "another directory: name it with --cni-conf-dir (chart: platform, or "
            "enforcer.cni.confDir)"
        )


class WrittenAgain(RingfenceError):
    """Somebody else keeps the configuration as it was."""

    exit_code = 1

    def __init__(self, path: Path, times: int) -> None:
        super().__init__(
            f"{path} was written without our entry {times} times within {FIGHT_SECONDS:.0f} s, and "
            "got it back each time: pods that start in between have no plugin; have its owner "
            "leave it alone (Cilium: cni.exclusive=false)"
        )


class Unwritable(RingfenceError):
    """A directory of the node's CNI cannot be written."""

    exit_code = 1


def install_program(places: PluginPlaces) -> None:
    """Have our program in the node's plugin directory, of this very version."""
    built = build.find()
    try:
        places.bin_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(places.leaving, ignore_errors=True)
        if places.program.exists() and filecmp.cmp(built, places.program, shallow=False):
            return
        unfinished = places.bin_dir / f".{build.PLUGIN}{UNFINISHED}"
        shutil.copyfile(built, unfinished)
        unfinished.chmod(0o755)
        unfinished.replace(places.program)
    except OSError as error:
        raise Unwritable(f"the CNI plugin cannot be installed: {error}") from error
    event(log, "cni_program_installed", path=str(places.program))


def join(places: PluginPlaces, entry: PluginEntry) -> Path | None:
    """Have our entry last in the configuration that runtimes use; the file that was changed.

    The plugin is tried out first: where it cannot be run, the file stays as it is. NoConfiguration
    where there is no file.
    """
    try:
        name = conflist.choose(p.name for p in places.conf_dir.iterdir() if _is_file(p))
        if name is None:
            raise NoConfiguration(places.conf_dir)
        path = places.conf_dir / name
        text = _read(path)
        wanted = conflist.add(text, entry, str(path))
        if wanted == text:
            return None
        target = path.with_name(conflist.list_name(name))
        if target != path:
            _refuse_foreign(target, entry)
        trial.attempt(places.program, wanted, entry, str(path))
        _replace(target, wanted, path)
        if target != path:
            path.replace(path.with_name(path.name + ASIDE))
    except OSError as error:
        raise Unwritable(f"the CNI configuration cannot be changed: {error}") from error
    event(log, "cni_joined", path=str(target))
    return target


def leave(places: PluginPlaces) -> None:
    """Take our entry out of every configuration, bring back what was set aside, and remove the
    program, unless another agent's entry still names it or a sandbox was made with it: that one may
    be deleted with its former configuration. What is left answers success, and is removed with the
    last.
    """
    _refuse_while_running(places.run_dir)
    entry = places.entry()
    used = False
    for path in sorted(places.conf_dir.glob(f"*{conflist.LIST_SUFFIX}")):
        text = _read(path)
        try:
            without = conflist.remove(text, entry.socket, str(path))
        except BadConflist:
            continue  # never read by a runtime, so never ours
        used = used or f'"{conflist.PLUGIN_TYPE}"' in without
        if without != text and not _bring_back(path, without):
            _replace(path, without, path)
    for leftover in (places.namespaces, *places.conf_dir.glob(f"*{UNFINISHED}")):
        leftover.unlink(missing_ok=True)
    if not used:
        _leave_program(places, [a.container for a in Attachments(places.run_dir).snapshot()])


def _leave_program(places: PluginPlaces, sandboxes: Sequence[str]) -> None:
    shutil.rmtree(places.leaving, ignore_errors=True)
    if not sandboxes:
        places.program.unlink(missing_ok=True)
        return
    places.leaving.mkdir(mode=0o700)
    for container in sandboxes:
        (places.leaving / container).touch()
    event(log, "cni_program_left", path=str(places.program), sandboxes=len(sandboxes))


def _refuse_while_running(run_dir: Path) -> None:
    """The agent holds the lock of its run directory as long as it lives."""
    try:
        descriptor = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StillRunning(run_dir) from None
    finally:
        os.close(descriptor)


def _bring_back(path: Path, without: str) -> bool:
    """Undo the change from a single configuration to a list, unless the list was changed since."""
    for suffix in conflist.SINGLE_SUFFIXES:
        single = path.with_suffix(suffix)
        aside = single.with_name(single.name + ASIDE)
        if not aside.exists():
            continue
        if conflist.is_list_of(without, _read(aside)):
            aside.replace(single)
            path.unlink()
            return True
        aside.unlink()
    return False


def _refuse_foreign(target: Path, entry: PluginEntry) -> None:
    if target.exists() and f'"{conflist.PLUGIN_TYPE}"' not in _read(target):
        raise BadConflist(
            f"{target} exists beside the single configuration of that name; remove the unused one"
        )


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="surrogateescape")


def _is_file(path: Path) -> bool:
    """A link that leads nowhere from here is one, too: the runtime may see further."""
    return path.is_file() or path.is_symlink()


def _replace(path: Path, text: str, like: Path) -> None:
    """Write a file as a whole; links keep leading to it."""
    path = path.resolve()
    unfinished = path.with_name(path.name + UNFINISHED)
    unfinished.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    shutil.copymode(like, unfinished)
    unfinished.replace(path)


class PluginKeeper:
    """Keeps plugin and entry on the node; a thread of the agent's process.

    Failures go to `report` and are retried.
    """

    def __init__(
        self, places: PluginPlaces, report: Report, seconds: int = DEFAULT_SECONDS
    ) -> None:
        self._places = places
        self._entry = places.entry(seconds)
        self._part = Supervised("cni", "new pods start without the CNI plugin", report)
        self._changed = threading.Event()
        self._watch = FolderWatch(flat=[places.conf_dir])
        self._joined: deque[tuple[float, Path]] = deque(maxlen=FIGHT)

    def start(self) -> None:
        """Install and join; raises only where there is no plugin to install."""
        build.find()
        self.keep()
        self._watch.start(self._changed.set)

    def run(self, stop: threading.Event) -> None:
        """Keep it there until stopped."""
        while not stop.is_set():
            if self._changed.wait(LOOK_SECONDS):
                self._changed.clear()
            if not stop.is_set():
                self.keep()
        self._watch.stop()

    def wake(self) -> None:
        """Look now."""
        self._changed.set()

    def keep(self) -> None:
        """Put back what is missing."""
        self._part.attempt(self._put_back)

    def _put_back(self) -> None:
        install_program(self._places)  # first, because the entry names it
        joined = join(self._places, self._entry)
        now = time.monotonic()
        if joined is not None:
            self._joined.append((now, joined))
        while self._joined and now - self._joined[0][0] > FIGHT_SECONDS:
            self._joined.popleft()
        if len(self._joined) == FIGHT:
            raise WrittenAgain(self._joined[-1][1], FIGHT)
