"""Compile the C, load it once per node and pin what comes out: the only importer of bcc.

`ensure_loaded` is what the agent calls; it uses the pins of an earlier load when they fit, or runs
this module as a short-lived process, because a process that has compiled keeps some 140 MB. What
the compiler made is kept as bytecode, so that the next load of that source takes no compiler.
Programs and maps lie in a directory named after the hash of source and layout, made under another
name and renamed when complete: a half-loaded directory is never used, and a failed load leaves the
pins of the last good one in force.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Protocol, cast

from enforcer.datapath import bytecode, kernel, upgrade
from enforcer.datapath.maps import map_sizes
from enforcer.policy.tables import CAPACITY, Table
from generators.errors import MachineLacks, RingfenceError

log = logging.getLogger("ringfence.enforcer")

LAYOUT_VERSION = 2
PROGRAMS = ("to_pod", "from_pod")
MAPS = (
    "ep_map",
    "addr_map",
    "cidr_map",
    "pol_map",
    "rng_map",
    "svc_map",
    "ct_map",
    "idle_map",
    "frag_map",
    "tenure_map",
    "stats_map",
    "lost_map",
    "share_map",
    "quota_map",
    "nobody_map",
    "tunnel_map",
    "again_map",
    "meta_map",
    "events",
)
MAIN_UNIT = "ringfence.c"
BPF_FS = Path("/sys/fs/bpf")
CACHE = Path("/var/cache/ringfence")
"""Of bytecode; removing it costs a compilation."""
LOAD_TIMEOUT = 120.0
UNFINISHED = "loading-"
HOW_BCC = "run `make setup`, or apt-get install python3-bpfcc linux-headers-amd64"

WARNINGS = """#pragma clang diagnostic error "-Wall"
#pragma clang diagnostic error "-Wextra"
"""
"""Enabled after bcc's and the kernel's headers, whose warnings we cannot fix."""

_INCLUDE = re.compile(r'^#include "(?P<path>[^"]+)"$')


MACROS: Mapping[Table, str] = {
    Table.POLICY: "MAX_POLICY",
    Table.RANGES: "MAX_RANGES",
    Table.CIDRS: "MAX_CIDRS",
    Table.SERVICES: "MAX_SERVICES",
    Table.ADDRESSES: "MAX_ADDRESSES",
    Table.ENDPOINTS: "MAX_ENDPOINTS",
}
"""What bpf/lib/maps.h calls the size of each map."""


class LoadError(RingfenceError):
    """The programs did not compile, or the verifier refused them; earlier pins are untouched."""

    exit_code = 1


class _Function(Protocol):
    fd: int


class _Table(Protocol):
    map_fd: int


class _Module(Protocol):
    """What we use of bcc.BPF."""

    def load_func(self, name: bytes, prog_type: int) -> _Function: ...
    def dump_func(self, name: bytes) -> bytes: ...
    def __getitem__(self, name: bytes) -> _Table: ...


class _Bcc(Protocol):
    SCHED_CLS: int

    def __call__(self, *, text: bytes) -> _Module: ...


def source_dir() -> Path:
    """Where the C lies: inside an installed wheel, or beside the package in a checkout."""
    packaged = Path(str(files("enforcer"))) / "bpf"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / "bpf"


def expand_source(directory: Path) -> str:
    """The main unit with our own headers put in their place.

    bcc rewrites map accesses only in the text it is given, not in what that text includes.
    """
    lines = [WARNINGS]
    main = (directory / MAIN_UNIT).read_text()
    for number, line in enumerate(main.splitlines(), start=1):
        match = _INCLUDE.match(line)
        if match is None:
            lines.append(line)
            continue
        included = (directory / match["path"]).read_text()
        lines += [f'#line 1 "bpf/{match["path"]}"', included]
        lines.append(f'#line {number + 1} "bpf/{MAIN_UNIT}"')
    return "\n".join(lines) + "\n"


def sized_source(sizes: Mapping[Table, int]) -> str:
    """The source with maps of these sizes; those that are not named keep their own."""
    source = expand_source(source_dir())
    for table, size in sizes.items():
        line = re.compile(rf"^#define {MACROS[table]} \d+$", re.MULTILINE)
        source = line.sub(f"#define {MACROS[table]} {size}", source, count=1)
    return source


def source_hash(source: str) -> bytes:
    """Identifies code and layout: names the pin directory, and lies in meta_map."""
    return hashlib.sha256(f"{LAYOUT_VERSION}\n{source}".encode()).digest()


def version_name(digest: bytes) -> str:
    """Name of the pin directory for one source."""
    return f"v{LAYOUT_VERSION}-{digest.hex()[:12]}"


def ensure_bpffs(path: Path) -> None:
    """Have `path` on a bpf filesystem: mount one on /sys/fs/bpf where it is missing, and say so."""
    if not path.is_relative_to(BPF_FS):
        raise MachineLacks(
            f"{path} is not below {BPF_FS}", f"choose a pin directory below {BPF_FS}"
        )
    if _is_bpffs():
        return
    command = ["/bin/mount", "-t", "bpf", "bpf", str(BPF_FS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise MachineLacks(
            f"cannot mount the bpf filesystem on {BPF_FS}: {result.stderr.strip()}",
            "boot a kernel with CONFIG_BPF_SYSCALL=y and let this process mount",
        )
    log.info("bpffs_mounted path=%s", BPF_FS)


def _is_bpffs() -> bool:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        if where == str(BPF_FS) and kind == "bpf":
            return True
    return False


def find_loaded(pin_dir: Path, sizes: Mapping[Table, int] = CAPACITY) -> Path | None:
    """The pins of the present source below `pin_dir`, if complete and of that source."""
    digest = source_hash(sized_source(sizes))
    path = pin_dir / version_name(digest)
    if not path.is_dir():
        return None
    try:
        with kernel.open_pin(path / "meta_map") as meta:
            stored = kernel.map_lookup(meta.fd, bytes(4), len(digest))
        for name in (*PROGRAMS, *MAPS):
            kernel.open_pin(path / name).close()
    except kernel.KernelError as error:
        log.warning("pins_unusable path=%s error=%s", path, error)
        return None
    return path if stored == digest else None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One at a time; the lock is on the directory itself, for bpffs knows no files."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_root() -> None:
    """Raise MachineLacks for everybody but root."""
    if os.geteuid() != 0:
        raise MachineLacks("eBPF needs root", "run this as root (sudo)")


def check_machine() -> None:
    """Raise MachineLacks for the first thing that is missing here to load programs."""
    check_root()
    if importlib.util.find_spec("bcc") is None:
        raise MachineLacks("the Python module bcc is not installed", HOW_BCC)
    # The image carries headers of its own and says so in the variable that bcc reads.
    given = os.environ.get("BCC_KERNEL_SOURCE")
    build = Path(given) if given else Path("/lib/modules") / platform.release() / "build"
    if not build.is_dir() and not Path("/sys/kernel/kheaders.tar.xz").exists():
        raise MachineLacks(
            f"no kernel headers at {build}",
            f"{HOW_BCC}, then link {build.parent} to the folder of installed headers",
        )


def ensure_loaded(pin_dir: Path, sizes: Mapping[Table, int] = CAPACITY) -> Path:
    """The directory of pinned programs and maps for the present source; loads them if need be."""
    check_root()  # before anything is made: the bpf filesystem lets everybody make directories
    ensure_bpffs(pin_dir)
    pin_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(pin_dir):
        loaded = find_loaded(pin_dir, sizes)
        if loaded is None:
            check_machine()
            _run_loader(pin_dir, sizes)
            loaded = find_loaded(pin_dir, sizes)
        if loaded is None:
            raise LoadError(f"the loader left no usable pins below {pin_dir}; see its log")
        # At every start: the one before may have ended before all interfaces had changed over.
        for older in sorted(path for path in pin_dir.glob("v*") if path != loaded):
            upgrade.take_over(older, loaded)
    return loaded


def _run_loader(pin_dir: Path, sizes: Mapping[Table, int]) -> None:
    command = [sys.executable, "-m", "enforcer.datapath.loader", "--pin-dir", str(pin_dir)]
    command += [f"--map-size={table.value}={size}" for table, size in sizes.items()]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=LOAD_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(
            f"loading took more than {LOAD_TIMEOUT:.0f} s; is the machine busy?"
        ) from error
    if result.returncode == 0:
        log.info("programs_loaded pin_dir=%s", pin_dir)
        return
    said = (result.stderr or result.stdout).strip()
    if result.returncode == MachineLacks.exit_code:
        what, _, how = said.splitlines()[-1].partition("; ")
        raise MachineLacks(what, how or HOW_BCC)
    raise LoadError(f"loading the programs failed:\n{said}")


def _bcc() -> _Bcc:
    try:
        module = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise MachineLacks(f"the Python module bcc cannot be used ({error})", HOW_BCC) from error
    if not hasattr(module, "BPF"):
        raise MachineLacks("the module bcc found is an unrelated package of PyPI", HOW_BCC)
    return cast(_Bcc, module.BPF)


def _compile(source: str) -> Mapping[str, int]:
    """Descriptors of all programs and maps, by name. They live as long as this process."""
    bcc, path = _bcc(), _cache_file(source)
    with ExitStack() as alone:
        kept = bytecode.kept(path)
        if kept is None:
            # One compiler at a time: who waited for it takes what it kept.
            with suppress(OSError):  # where nothing can be kept there is nothing to wait for
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                alone.enter_context(_locked(path.parent))
            kept = bytecode.kept(path)
        if kept is not None:
            try:
                return bytecode.load(kept, _keep_alive)
            except (kernel.KernelError, KeyError) as error:
                log.warning("bytecode_refused path=%s error=%s", path, error)
        return _compile_anew(bcc, source, path)


def _compile_anew(bcc: _Bcc, source: str, path: Path) -> Mapping[str, int]:
    try:
        module = bcc(text=source.encode())
        programs = {n: module.load_func(n.encode(), bcc.SCHED_CLS).fd for n in PROGRAMS}
        maps = {n: module[n.encode()].map_fd for n in MAPS}
        codes = {n: module.dump_func(n.encode()) for n in PROGRAMS}
    except Exception as error:
        # bcc raises bare Exception; clang and the verifier have already written to stderr.
        raise LoadError(f"{error}") from error
    _keep_alive.callback(lambda: module)  # whose end would close them
    bytecode.keep(bytecode.read_off(codes, maps), path)
    return programs | maps


def _cache_file(source: str) -> Path:
    """What the compiler makes of a source depends on the compiler and on the kernel's headers."""
    made_by = (source, importlib.import_module("bcc").__version__, *platform.uname()[2:])
    digest = hashlib.sha256("\n".join(made_by).encode()).hexdigest()
    return CACHE / f"bytecode-{digest[:32]}.json"


Loader = Callable[[Path, Mapping[Table, int]], Path]

_keep_alive = ExitStack()


def load(pin_dir: Path, sizes: Mapping[Table, int] = CAPACITY) -> Path:
    """Compile, load and pin, in the short-lived process; the result appears whole or not at all."""
    source = sized_source(sizes)
    digest = source_hash(source)
    path = pin_dir / version_name(digest)
    objects = _compile(source)
    kernel.map_update(objects["meta_map"], bytes(4), digest)
    for direction, name in enumerate(PROGRAMS):
        entry = objects[name].to_bytes(4, "little")
        kernel.map_update(objects["again_map"], direction.to_bytes(4, "little"), entry)
    for leftover in pin_dir.glob(f"{UNFINISHED}*"):  # of a loader that was killed
        shutil.rmtree(leftover)
    unfinished = pin_dir / f"{UNFINISHED}{os.getpid()}"
    unfinished.mkdir(mode=0o700)
    try:
        for name in (*PROGRAMS, *MAPS):
            kernel.pin(objects[name], unfinished / name)
        if path.exists():  # incomplete, or find_loaded would have used it
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)
    return path


def main(arguments: list[str] | None = None, loader: Loader = load) -> int:
    """`python -m enforcer.datapath.loader --pin-dir DIR`; errors to stderr, with exit code."""
    parser = argparse.ArgumentParser(
        prog="enforcer.datapath.loader", description="Load and pin the programs."
    )
    parser.add_argument("--pin-dir", type=Path, required=True)
    parser.add_argument("--map-size", action="append", default=[])
    options = parser.parse_args(arguments)
    try:
        path = loader(options.pin_dir, map_sizes(options.map_size))
    except RingfenceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
