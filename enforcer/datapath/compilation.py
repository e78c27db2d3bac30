"""Compiles the C to bytecode with bcc; the only importer of it.

`compiled` runs this module as a short-lived process, because one that has compiled keeps some 140
MB. That process asks nothing of the kernel: its bpf() calls are taken by recorder.c, so anybody can
compile, on any machine that has bcc and headers.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol, cast

from enforcer.datapath.bytecode import Bytecode, read_off
from enforcer.datapath.kernel import MapShape
from generators.errors import MachineLacks, RingfenceError

__all__ = ["CompileError", "check_compiler", "compiled"]

COMPILE_TIMEOUT = 120.0
HOW_BCC = "run `make setup`, or apt-get install python3-bpfcc linux-headers-amd64"
RECORDER = Path(__file__).with_name("recorder.c")
RECORDER_FLAGS = ("-std=gnu11", "-O2", "-shared", "-fPIC")
_MAP_CREATE = struct.Struct("=7I16s")
"""The part of union bpf_attr that says of what kind, how large and called what a map is to be."""


class CompileError(RingfenceError):
    """clang refused the source."""

    exit_code = 1


class _Table(Protocol):
    map_fd: int


class _Module(Protocol):
    """What we use of bcc.BPF."""

    def dump_func(self, name: bytes) -> bytes: ...
    def __getitem__(self, name: bytes) -> _Table: ...


class _Bcc(Protocol):
    def __call__(self, *, text: bytes) -> _Module: ...


class CompileRequest(NamedTuple):
    """What is asked of the short-lived process."""

    source: str
    programs: tuple[str, ...]
    maps: tuple[str, ...]


def check_compiler() -> None:
    """Raise MachineLacks for the first thing that is missing here to compile programs."""
    if importlib.util.find_spec("bcc") is None:
        raise MachineLacks("the Python module bcc is not installed", HOW_BCC)
    # Whoever has headers elsewhere says so in the variable that bcc reads.
    given = os.environ.get("BCC_KERNEL_SOURCE")
    build = Path(given) if given else Path("/lib/modules") / platform.release() / "build"
    if not build.is_dir() and not Path("/sys/kernel/kheaders.tar.xz").exists():
        raise MachineLacks(
            f"no kernel headers at {build}",
            f"{HOW_BCC}, then link {build.parent} to the folder of installed headers",
        )


def compiled(wanted: CompileRequest) -> Bytecode:
    """Programs and maps of a source as bytecode.

    CompileError with what clang said, MachineLacks without bcc, headers or gcc.
    """
    check_compiler()
    with _recorder() as library:
        environment = {**os.environ, "LD_PRELOAD": f"/proc/self/fd/{library}"}
        isolated = ["-I"] if sys.flags.isolated else []
        try:
            done = subprocess.run(
                [sys.executable, *isolated, "-m", "enforcer.datapath.compilation"],
                input=json.dumps(wanted),
                capture_output=True,
                text=True,
                env=environment,
                pass_fds=(library,),
                timeout=COMPILE_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CompileError(
                f"compiling took more than {COMPILE_TIMEOUT:.0f} s; is the machine busy?"
            ) from error
    said = done.stderr.strip()
    if done.returncode == MachineLacks.exit_code:
        what, _, how = said.splitlines()[-1].partition("; ")
        raise MachineLacks(what, how or HOW_BCC)
    if done.returncode != 0:
        raise CompileError(said or f"the compiler ended with {done.returncode}")
    return Bytecode.from_json(done.stdout.encode())


@contextmanager
def _recorder() -> Iterator[int]:
    """recorder.c as a library in memory: from a temporary folder it may not be run everywhere."""
    with TemporaryDirectory(prefix="ringfence-compile-") as folder:
        library = Path(folder, "recorder.so")
        command = ["gcc", *RECORDER_FLAGS, "-o", str(library), str(RECORDER)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise MachineLacks("there is no gcc", "apt-get install gcc libc6-dev") from None
        if done.returncode != 0:
            raise CompileError(f"{RECORDER} does not compile:\n{done.stderr.strip()}")
        content = library.read_bytes()
    with os.fdopen(os.memfd_create("recorder.so"), "wb") as memory:
        memory.write(content)
        memory.flush()
        yield memory.fileno()


def _bcc() -> _Bcc:
    try:
        module = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise MachineLacks(f"the Python module bcc cannot be used ({error})", HOW_BCC) from error
    if not hasattr(module, "BPF"):
        raise MachineLacks("the module bcc found is an unrelated package of PyPI", HOW_BCC)
    return cast(_Bcc, module.BPF)


def _recorded(descriptor: int) -> tuple[str, MapShape]:
    """Name and shape of the map that was asked for with this descriptor."""
    kind, key, value, entries, flags, _, _, name = _MAP_CREATE.unpack(
        os.pread(descriptor, _MAP_CREATE.size, 0)
    )
    return name.rstrip(b"\0").decode(), MapShape(kind, key, value, entries, flags)


def _compile(wanted: CompileRequest) -> Bytecode:
    bcc = _bcc()
    try:
        module = bcc(text=wanted.source.encode())
        descriptors: Iterable[int] = [module[name.encode()].map_fd for name in wanted.maps]
        codes: Mapping[str, bytes] = {n: module.dump_func(n.encode()) for n in wanted.programs}
    except Exception as error:
        # bcc raises bare Exception; clang has already written to stderr.
        raise CompileError(f"{error}") from error
    return read_off(wanted.source, codes, descriptors, _recorded)


def main() -> int:
    """A `CompileRequest` on stdin, bytecode on stdout; errors to stderr, with exit code."""
    try:
        sys.stdout.buffer.write(_compile(CompileRequest(*json.load(sys.stdin))).to_json())
    except RingfenceError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
