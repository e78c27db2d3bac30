"""A real node's view of this machine: the same files, except where a node writes.

`python -m lab.api.real.view ROOT READY FROM:TO...` is a process of the lab for as long as its node
lives. It has a mount and a pid namespace of its own: /etc, /var, /opt and the kernel's settings
that a kubelet makes are copies that remember what is written to them, /run is empty, FROM is seen
as TO, all else is the machine's. So two nodes both have their /var/lib/kubelet and /etc/cni/net.d,
as on machines of their own, and nothing of it is on this one. When the process ends, by whatever
signal, all processes of the node end with it and all its mounts are gone: the kernel sees to both.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
from pathlib import Path

from lab.processes import Process

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18
PR_SET_PDEATHSIG = 1
COPIED = ("etc", "opt", "var")
LAYERS = ".layers"
SHARED_SYS = ("cgroup", "bpf")
"""Below /sys/fs: cgroups are the kubelet's, pins the agent's."""
SETTINGS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
"""Below /proc/sys: every kubelet makes them at its start, for the whole machine."""

_libc = ctypes.CDLL(None, use_errno=True)


def inside(view: Process, *command: str, folder: str = "/") -> tuple[str, ...]:
    """The command line that runs a command with the node's view and among its processes; it ends
    with the process that is started.
    """
    spaces = f"/proc/{view.pid}/ns"
    return (
        *("/usr/bin/nsenter", f"--mount={spaces}/mnt", f"--pid={spaces}/pid_for_children"),
        *(f"--wdns={folder}", "--", "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", *command),
    )


def main() -> None:
    """Make the view and keep it until killed."""
    parser = argparse.ArgumentParser(description="keep the view of one real node")
    parser.add_argument("root", type=Path, help="an empty folder of the machine")
    parser.add_argument("ready", type=Path, help="made when the view is there")
    parser.add_argument("shown", nargs="+", metavar="FROM:TO")
    asked = parser.parse_args()
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWPID), "unshare")
    child = os.fork()
    if child == 0:
        _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
        _build(asked.root, [tuple(pair.split(":")) for pair in asked.shown])
        asked.ready.touch()
        # The first process of a pid namespace is the parent of whatever others leave behind;
        # a signal that is ignored stays so for the program that follows.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.execv("/bin/sleep", ["sleep", "infinity"])  # noqa: S606  nothing of it is given
    os.waitpid(child, 0)


def _build(root: Path, shown: list[tuple[str, ...]]) -> None:
    """Put the view together below `root` and make that the root of this mount namespace."""
    _mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    _mount("ringfence-lab", root, "tmpfs", 0, "mode=755")
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        target = root / entry.name
        if entry.is_symlink():
            target.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            target.mkdir()
            _fill(root, entry.name)
    for source, there in shown:
        target = root / there.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        _mount(source, target, "", MS_BIND)
    os.chdir(root)
    subprocess.run(["/usr/sbin/pivot_root", ".", "."], check=True)
    subprocess.run(["/bin/umount", "--lazy", "."], check=True)
    os.chdir("/")


def _fill(root: Path, name: str) -> None:
    """One folder of the machine's root, as the node sees it."""
    target, machine = root / name, Path("/", name)
    if name == "proc":
        _mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        for setting in (s for s in SETTINGS if (machine / "sys" / s).exists()):
            copy = root / LAYERS / "sys" / setting
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((machine / "sys" / setting).read_text())
            _mount(str(copy), target / "sys" / setting, "", MS_BIND)
    elif name == "run":
        _mount("run", target, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    elif name == "sys":
        # Made anew, so that it shows the network namespace of the node.
        _mount("sys", target, "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        for shared in SHARED_SYS:
            below = Path("fs", shared)
            if (machine / below).is_dir():
                _mount(str(machine / below), target / below, "", MS_BIND | MS_REC)
    elif name in COPIED:
        upper, work = (root / LAYERS / name / kind for kind in ("upper", "work"))
        for folder in (upper, work):
            folder.mkdir(parents=True)
        options = f"lowerdir={machine},upperdir={upper},workdir={work}"
        _mount("overlay", target, "overlay", 0, options)
    else:
        _mount(str(machine), target, "", MS_BIND | MS_REC)


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    words = (source.encode(), bytes(target), kind.encode() or None)
    _check(_libc.mount(*words, flags, options.encode() or None), f"mount {target}")


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


if __name__ == "__main__":
    main()
