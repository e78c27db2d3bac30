"""Loads the programs once per node and pins them.

`ensure_loaded` is what the agent calls; it uses the pins of an earlier load when they fit. Else it
loads bytecode: what the image brought (`SHIPPED`), if it is of the sources that lie beside it, or
what an earlier start kept in `CACHE`; where there is neither, bcc compiles. Programs and maps lie
in a directory named after the hash of source, layout and sizes, made under another name and renamed
when complete: a half-loaded directory is never used, and a failed load leaves the pins of the last
good one in force.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from enforcer.datapath import bytecode, compilation, kernel, upgrade
from enforcer.datapath.compilation import CompileRequest
from enforcer.policy.tables import CAPACITY, Table
from generators.errors import MachineLacks, RingfenceError

log = logging.getLogger("ringfence.enforcer")

LAYOUT_VERSION = 2
JUDGES = ("to_pod", "from_pod")
"""On the interfaces of pods."""
PROGRAMS = (*JUDGES, "from_proxy", "proxy_in", "proxy_out")
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
    "listen_map",
    "proxy_map",
    "resident_map",
    "again_map",
    "meta_map",
    "events",
)
MAIN_UNIT = "ringfence.c"
BPF_FS = Path("/sys/fs/bpf")
CACHE = Path("/var/cache/ringfence")
"""Of bytecode; removing it costs a compilation."""
SHIPPED = Path(__file__).with_name("programs.json")
"""The bytecode that an image brings: written by `enforcer.datapath.build`, in no checkout."""
UNFINISHED = "loading-"

WARNINGS = """#pragma clang diagnostic error "-Wall"
#pragma clang diagnostic error "-Wextra"
"""
"""Enabled after bcc's and the kernel's headers, whose warnings we cannot fix."""

_INCLUDE = re.compile(r'^#include "(?P<path>[^"]+)"$')


class LoadError(RingfenceError):
    """The programs did not compile, or the verifier refused them; earlier pins are untouched."""

    exit_code = 1


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


def identity(source: str, sizes: Mapping[Table, int]) -> bytes:
    """Of code, layout and sizes: names the pin directory, and lies in meta_map."""
    told = "".join(f"{table.value}={size}\n" for table, size in sizes.items())
    return hashlib.sha256(f"{LAYOUT_VERSION}\n{told}{source}".encode()).digest()


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
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        refused = result.stderr.strip().partition("\n")[0] if result.returncode else ""
    except OSError as error:
        refused = str(error)
    if refused:
        raise MachineLacks(
            f"{BPF_FS} has no bpf filesystem, and it cannot be mounted from here ({refused})",
            f"on the node: mount -t bpf bpf {BPF_FS} (systemd does that where the kernel has "
            "CONFIG_BPF_SYSCALL=y)",
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
    digest = identity(expand_source(source_dir()), sizes)
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
    if bytecode.kept(SHIPPED, expand_source(source_dir())) is None:
        compilation.check_compiler()


def ensure_loaded(pin_dir: Path, sizes: Mapping[Table, int] = CAPACITY) -> Path:
    """The directory of pinned programs and maps for the present source; loads them if need be."""
    check_root()  # before anything is made: the bpf filesystem lets everybody make directories
    ensure_bpffs(pin_dir)
    pin_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(pin_dir):
        loaded = find_loaded(pin_dir, sizes)
        if loaded is None:
            loaded = load(pin_dir, sizes)
            log.info("programs_loaded pin_dir=%s", pin_dir)
        # At every start: the one before may have ended before all interfaces had changed over.
        for older in sorted(path for path in pin_dir.glob("v*") if path != loaded):
            upgrade.take_over(older, loaded)
    return loaded


def wanted() -> CompileRequest:
    """What the compiler is to make of the present source."""
    return CompileRequest(expand_source(source_dir()), PROGRAMS, MAPS)


def _cache_file(source: str) -> Path:
    """What the compiler makes of a source depends on the compiler and on the kernel's headers."""
    try:
        compiler = version("bcc")
    except PackageNotFoundError:
        compiler = "none"
    digest = bytecode.hash_of("\n".join((source, compiler, *platform.uname()[2:])))
    return CACHE / f"bytecode-{digest[:32]}.json"


def _objects(sizes: Mapping[Table, int], opened: ExitStack) -> Mapping[str, int]:
    """Descriptors of all programs and maps, by name."""
    asked = wanted()
    named = {table.value: size for table, size in sizes.items()}
    shipped = bytecode.kept(SHIPPED, asked.source)
    if shipped is not None:
        return bytecode.load(shipped, named, opened)
    cache = _cache_file(asked.source)
    with ExitStack() as alone:
        kept = bytecode.kept(cache, asked.source)
        if kept is None:
            # One compiler at a time: who waited for it takes what it kept.
            with suppress(OSError):  # where nothing can be kept there is nothing to wait for
                cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                alone.enter_context(_locked(cache.parent))
            kept = bytecode.kept(cache, asked.source)
        if kept is not None:
            try:
                return bytecode.load(kept, named, opened)
            except (kernel.KernelError, KeyError) as error:
                log.warning("bytecode_refused path=%s error=%s", cache, error)
        log.info("no_bytecode path=%s: bcc compiles %s, which takes seconds", SHIPPED, source_dir())
        made = compilation.compiled(asked)
        objects = bytecode.load(made, named, opened)
        bytecode.keep(made, cache)
        return objects


def load(pin_dir: Path, sizes: Mapping[Table, int] = CAPACITY) -> Path:
    """Load and pin; the result appears whole or not at all.

    LoadError when the compiler or the kernel refuses the programs.
    """
    with suppress(ValueError, OSError):  # before 5.11 maps are locked memory of whoever makes them
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    with ExitStack() as opened:
        try:
            objects = _objects(sizes, opened)
        except (kernel.KernelError, compilation.CompileError) as error:
            raise LoadError(f"loading the programs failed:\n{error}") from error
        return _pin(objects, pin_dir, identity(expand_source(source_dir()), sizes))


def _pin(objects: Mapping[str, int], pin_dir: Path, digest: bytes) -> Path:
    path = pin_dir / version_name(digest)
    kernel.map_update(objects["meta_map"], bytes(4), digest)
    for direction, name in enumerate(JUDGES):
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
