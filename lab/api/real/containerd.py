"""A real node's container runtime: how it is started, and the images that it has."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.api.real import images, programs
from lab.api.real.parts import Parts
from lab.parts import LabFailed

CTR_SECONDS = 120


def command(parts: Parts) -> tuple[str, ...]:
    """Its command line."""
    folder = programs.debian("containerd", "usr/bin")
    path = f"PATH={folder}:/usr/sbin:/usr/bin:/sbin:/bin"
    config = f"--config={parts.folder}/containerd.toml"
    return ("/usr/bin/env", path, str(folder / "containerd"), config)


def _ctr(parts: Parts, *words: str) -> subprocess.CompletedProcess[str]:
    program = programs.debian("containerd", "usr/bin/ctr")
    return subprocess.run(
        [program, "--address", str(parts.socket), "--namespace", "k8s.io", *words],
        capture_output=True,
        text=True,
        timeout=CTR_SECONDS,
        check=False,
    )


def answers(parts: Parts) -> bool:
    """Whether it takes requests."""
    return parts.socket.exists() and _ctr(parts, "version").returncode == 0


def load_own(parts: Parts) -> None:
    """What every node has: the pause image, the responder and the cluster's DNS."""
    own: dict[str, tuple[Path, tuple[str, ...]]] = {
        images.PAUSE: (programs.responder(), ("pause",)),
        images.RESPONDER: (programs.responder(), ()),
        images.COREDNS: (programs.coredns(), ()),
    }
    archive = parts.folder / "image.tar"
    for tag, (program, words) in own.items():
        images.write(archive, tag, (f"/{program.name}", *words), {program.name: program})
        load(parts, archive)
    archive.unlink()


def load(parts: Parts, archive: Path) -> None:
    """Give the node an image; LabFailed with containerd's words when it does not take it."""
    done = _ctr(parts, "images", "import", str(archive))
    if done.returncode != 0:
        raise LabFailed(f"{parts.node.name} does not take {archive}: {done.stderr.strip()}")
