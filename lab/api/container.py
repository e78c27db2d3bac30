"""One container as a process of this host: its own root, user and files, and no image.

Called by `jobs.py`. The root is an overlay of the host's, in a mount namespace that ends with the
process: volumes lie where the pod mounts them, `readOnlyRootFilesystem` is in force, and nothing
of it is seen outside. The programs of "the image" are those of this checkout's environment. The
network is the host's.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from generators.errors import MachineLacks

SOURCES = Path(__file__).resolve().parents[2]
"""The checkout, or where the package is installed."""
PROGRAMS = Path(sys.executable).parent
IMAGE_USER = 65532
"""Who the image's processes are where the pod does not say."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Root(Enum):
    """Whether the process may write outside its volumes."""

    WRITABLE = "rw"
    READ_ONLY = "ro"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host, or one file of it, at a path in the container."""

    source: Path
    target: str
    root: Root = Root.READ_ONLY


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a kubelet would tell the runtime."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    root: Root = Root.WRITABLE
    user: int = IMAGE_USER
    group: int = IMAGE_USER
    directory: str = "/"


def check() -> None:
    """Raise MachineLacks where no container can be started."""
    if os.geteuid() != 0:
        raise MachineLacks("containers need root", "run this as root")


def start(container: ContainerSpec, scratch: Path, log: Path) -> subprocess.Popen[bytes]:
    """Run it, its root at the empty folder `scratch` (which only it sees), its output in `log`.

    It dies with the thread that called this.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount"]
    command += ["--propagation", "private", "sh", "-ec", _script(container, scratch)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={"PATH": f"{PROGRAMS}:{SYSTEM_PATH}", "HOME": "/", **container.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )


def _script(container: ContainerSpec, scratch: Path) -> str:
    """Shell that builds the root and becomes the process in it."""
    lines = [
        # On a tmpfs of this mount namespace, so that nothing is left when the process ends.
        f"mount -t tmpfs none {shlex.quote(str(scratch))}",
        f"cd {shlex.quote(str(scratch))}",
        "mkdir upper work root",
        "mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root",
        "for d in proc dev sys; do mount --rbind /$d root/$d; done",
        # Followed inside: /var/run is an absolute link, which outside means the host's folder.
        'at() { chroot root mkdir -p "$1" && echo "root$(chroot root realpath "$1")"; }',
        *_readable_programs(),
        *(line for mount in container.mounts for line in _bind(mount)),
        *_programs_within(container.mounts),
    ]
    if container.root is Root.READ_ONLY:
        lines.append("mount -o remount,ro root")
    user = f"--reuid {container.user} --regid {container.group} --clear-groups"
    rights = "--bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig KILL"
    inside = f"cd {shlex.quote(container.directory)} && exec setpriv {user} {rights} -- "
    inside += shlex.join(container.command)
    lines.append(f"exec chroot root sh -c {shlex.quote(inside)}")
    return "\n".join(lines)


def _readable_programs() -> list[str]:
    """The environment, also where it lies in a home folder that only its owner may enter."""
    lines: list[str] = []
    for folder in _programs():
        if folder.stat().st_dev != Path("/").stat().st_dev:
            # The overlay shows one file system.
            source = shlex.quote(str(folder))
            lines.append(f'mount --bind {source} "$(at {source})"')
        closed = [p for p in (folder, *folder.parents) if p.stat().st_mode & 0o5 != 0o5]
        lines += [f"chmod o+rx root{shlex.quote(str(parent))}" for parent in closed]
    return lines


def _programs_within(mounts: Sequence[Mount]) -> list[str]:
    """A checkout below /tmp is hidden by a volume there: show it again, within the volume."""
    lines: list[str] = []
    for folder in _programs():
        if any(folder.is_relative_to(mount.target) for mount in mounts):
            source = shlex.quote(str(folder))
            lines.append(f'mount --bind {source} "$(at {source})"')
    return lines


def _programs() -> list[Path]:
    return sorted({SOURCES, PROGRAMS.parent, Path(sys.base_prefix)})


def _bind(mount: Mount) -> list[str]:
    lines = [
        f'target="$(at {shlex.quote(mount.target)})"',
        f'mount --bind {shlex.quote(str(mount.source))} "$target"',
    ]
    if mount.root is Root.READ_ONLY:
        lines.append('mount -o remount,bind,ro "$target"')
    return lines
