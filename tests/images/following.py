"""Follows a Dockerfile step by step in folders: what `docker build` would do, without an engine.

`apt-get install` becomes the files of the packages named and of what they need (debian.py); every
other RUN is run as it stands, in the stage's folder as root, and pip finds the packages of the lock
files in a folder. The result can be started as a
container would be: read-only, as a user, with some capabilities.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.images import debian
from tests.images.dockerfile import Dockerfile, Instruction, Stage
from tests.testbed.build import cache_root

CHECKOUT = Path(__file__).resolve().parents[2]

APT = re.compile(
    r"apt-get update && apt-get install -y --no-install-recommends (?P<packages>[^&]+?)"
    r" && rm -rf /var/lib/apt/lists/\*( && (?P<rest>.+))?"
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOCKS = ("requirements.lock", "requirements-build.lock")
"""Of the images, and of a machine that only runs the command."""


@cache
def wheels(*names: str) -> Path:
    """All that lock files name, downloaded once and kept for later runs."""
    locks = [CHECKOUT / name for name in names]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in locks)).hexdigest()[:16]
    folder = cache_root() / f"wheels-{digest}"
    if not folder.exists():
        unfinished = cache_root() / f"{folder.name}.{os.getpid()}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--dest", str(unfinished)]
        command += [f"--requirement={path}" for path in locks]
        subprocess.run(command, check=True)
        unfinished.replace(folder)
    return folder


@dataclass(slots=True)
class Built:
    """One stage: its folder, environment and what it starts."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)

    def start(
        self,
        *arguments: str,
        binds: Mapping[Path, str] | None = None,
        capabilities: Sequence[str] = (),
        entry: Sequence[str] | None = None,
    ) -> list[str]:
        """The command line of a container with a read-only root and an empty /tmp."""
        user, _, group = self.user.partition(":")
        bounds = ",".join(["-all", *(f"+{c.lower()}" for c in capabilities)])
        rights = f"--bounding-set={bounds} --no-new-privs"
        inside = f"exec setpriv --reuid={user} --regid={group} --clear-groups {rights} -- "
        inside += shlex.join([*(self.entry if entry is None else entry), *arguments])
        lines = [*_devices(self.root), f"mount -t tmpfs none {self.root}/tmp"]
        lines += [
            f"mount --rbind {host} {self.root}{inner}" for host, inner in (binds or {}).items()
        ]
        lines += [f"mount -o remount,bind,ro {self.root}"]
        lines += [_enter(self.root, self.environment, inside)]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(lines)]


def _devices(root: Path) -> list[str]:
    # The folder is made a mount, so that it can be closed for writing.
    return [f"mount --bind {root} {root}"] + [
        f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev", "sys")
    ]


def _enter(root: Path, environment: Mapping[str, str], script: str) -> str:
    variables = {"PATH": PATH, "HOME": "/", **environment}
    assigned = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
    return f"exec env -i {assigned} chroot {root} sh -ec {shlex.quote(script)}"


def follow(file: Dockerfile, checkout: Path, folder: Path) -> Built:
    """Every stage in order; the last one is what would be shipped."""
    base = folder / "base"
    base.mkdir()
    debian.unpack(debian.base(), base)
    built: dict[str, Built] = {}
    for stage in file.stages:
        # Files are shared by hard links: no step changes one in place.
        shutil.copytree(base, folder / stage.name, symlinks=True, copy_function=os.link)
        built[stage.name] = _stage(stage, checkout, folder / stage.name, built)
    return built[file.last.name]


def _stage(stage: Stage, checkout: Path, root: Path, others: Mapping[str, Built]) -> Built:
    made = Built(root)
    for name in ("proc", "dev", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for instruction in stage.instructions:
        _do(instruction, made, checkout, others)
    return made


def _do(step: Instruction, made: Built, checkout: Path, others: Mapping[str, Built]) -> None:
    match step.name:
        case "ARG":
            name, _, value = step.text.partition("=")
            made.environment[name] = value
        case "ENV":
            made.environment |= dict(word.split("=", 1) for word in step.words)
        case "WORKDIR":
            made.directory = step.text
            (made.root / step.text[1:]).mkdir(parents=True, exist_ok=True)
        case "COPY":
            if step.flags:
                _copy(others[step.flags["from"]].root, step.words, made, no_files, os.link)
            else:
                _copy(checkout, step.words, made, LEFT_OUT, shutil.copy2)
        case "USER":
            made.user = step.text
        case "ENTRYPOINT":
            made.entry = step.words
        case "RUN":
            _run(step.text, made)
        case other:
            raise AssertionError(f"line {step.line}: {other} is not followed")


def no_files(folder: str, names: list[str]) -> set[str]:
    return set()


LEFT_OUT = shutil.ignore_patterns("__pycache__", "ringfence-cni")
"""By .dockerignore."""


def _copy(
    source: Path,
    words: list[str],
    made: Built,
    ignored: Callable[[str, list[str]], set[str]],
    how: Callable[[str, str], object],
) -> None:
    *names, target = words
    place = Path(os.path.normpath(Path(made.directory) / target))
    for name in names:
        found = source / name.lstrip("/")
        inner = place / found.name if target.endswith("/") else place
        destination = made.root / str(inner).lstrip("/")
        destination.parent.mkdir(parents=True, exist_ok=True)
        if found.is_dir():
            shutil.copytree(
                found,
                destination,
                symlinks=True,
                ignore=ignored,
                copy_function=how,
                dirs_exist_ok=True,
            )
        else:
            shutil.copy(found, destination)


def _run(text: str, made: Built) -> None:
    script = text
    if match := APT.fullmatch(text):
        words = [_filled(w, made.environment) for w in match["packages"].split()]
        debian.unpack(debian.closure(debian.check_pin(word) for word in words), made.root)
        script = match["rest"] or "true"
    folder = wheels(*LOCKS)
    given = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_NO_COMPILE": "1"}
    lines = _devices(made.root)
    shared = f"{made.root}/wheels"
    lines += [f"mkdir -p {shared}", f"mount --bind {folder} {shared}"]
    inside = f"cd {made.directory}\n{script}"
    lines += [_enter(made.root, made.environment | given, inside)]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"RUN {text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def _filled(word: str, environment: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda m: environment[m[1]], word)
