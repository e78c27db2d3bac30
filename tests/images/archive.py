"""What following.py made, as an archive that container runtimes take: no registry, no engine."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

from lab.api.real.images import ARCHITECTURES
from tests.images.following import Built

LEFT_OUT = ("./proc/*", "./dev/*", "./sys/*", "./tmp/*", "./wheels")


def write(built: Built, tag: str, target: Path) -> None:
    """One layer with the whole root, and the stage's user, environment and command."""
    layer = target.with_name(f"{target.name}.layer")
    command = ["tar", "--create", f"--file={layer}", "--numeric-owner", "--sort=name", "-C"]
    command += [str(built.root), *(f"--exclude={pattern}" for pattern in LEFT_OUT), "."]
    subprocess.run(command, check=True)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Entrypoint": built.entry,
            "Env": [f"{name}={value}" for name, value in built.environment.items()],
            "User": built.user,
            "WorkingDir": built.directory,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    name = f"{digest}/layer.tar"
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": [name]}]
    with tarfile.open(target, "w") as archive:
        archive.add(layer, name)
        for path, document in (("config.json", config), ("manifest.json", manifest)):
            text = json.dumps(document).encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    layer.unlink()
