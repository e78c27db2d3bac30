"""What the compiler made of a source, as a value: kept in a file, and loaded without a compiler.

Called by loader.py. Compiling takes seconds and 140 MB, its result is the same every time; loading
that is one system call for each map and program. A file is used only where root alone can have
written it; the verifier judges what it holds, as always. An image carries such a file
(`enforcer.datapath.build`), a checkout keeps them in a cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from enforcer.datapath import kernel

__all__ = ["Bytecode", "Reference", "hash_of", "keep", "kept", "load", "read_off"]

log = logging.getLogger("ringfence.enforcer")

FILES_KEPT = 16
"""Of as many sources at most, those used last: versions, sizes of maps, kernels."""
INSTRUCTION = 8
LOAD_IMMEDIATE, OF_A_MAP = 0x18, 1
"""The instruction that loads 64 bits, and the source register that marks them as a map."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An instruction that names a map."""

    offset: int
    """In bytes, of the instruction."""
    map: str


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions whose maps are still to be filled in."""

    code: bytes
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Maps and programs by name."""

    source: str
    """`hash_of` what it was made of."""
    maps: Mapping[str, kernel.MapShape]
    programs: Mapping[str, Program]

    def to_json(self) -> bytes:
        """The same bytes for the same value."""
        maps = {name: list(shape) for name, shape in self.maps.items()}
        programs = {
            name: {
                "code": base64.b64encode(program.code).decode(),
                "references": [[r.offset, r.map] for r in program.references],
            }
            for name, program in self.programs.items()
        }
        found = {"source": self.source, "maps": maps, "programs": programs}
        return json.dumps(found, sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Bytecode:
        """ValueError, KeyError or TypeError for anything else than `to_json` writes."""
        read = json.loads(text)
        return cls(
            str(read["source"]),
            {name: kernel.MapShape(*map(int, shape)) for name, shape in read["maps"].items()},
            {
                name: Program(
                    base64.b64decode(program["code"], validate=True),
                    tuple(Reference(int(at), str(of)) for at, of in program["references"]),
                )
                for name, program in read["programs"].items()
            },
        )


def hash_of(source: str) -> str:
    """Tells one source from another."""
    return hashlib.sha256(source.encode()).hexdigest()


def read_off(
    source: str,
    codes: Mapping[str, bytes],
    descriptors: Iterable[int],
    map_of: Callable[[int], tuple[str, kernel.MapShape]],
) -> Bytecode:
    """Of programs that were just compiled; maps are descriptors there, and `map_of` knows them."""
    maps = dict(map(map_of, descriptors))
    programs: dict[str, Program] = {}
    for name, code in codes.items():
        references, plain = [], bytearray(code)
        for at in range(0, len(code), INSTRUCTION):
            if code[at] == LOAD_IMMEDIATE and code[at + 1] >> 4 == OF_A_MAP:
                descriptor = int.from_bytes(code[at + 4 : at + 8], "little")
                of, shape = map_of(descriptor)
                maps[of] = shape
                references.append(Reference(at, of))
                plain[at + 4 : at + 8] = bytes(4)
        programs[name] = Program(bytes(plain), tuple(references))
    return Bytecode(hash_of(source), maps, programs)


def load(bytecode: Bytecode, sizes: Mapping[str, int], keep_open: ExitStack) -> dict[str, int]:
    """Descriptors of all maps and programs, by name, open until the stack is closed.

    `sizes` are those of maps that shall have others than their source says. KernelError when the
    kernel does not take them.
    """
    found: dict[str, int] = {}
    for name, told in bytecode.maps.items():
        shape = told._replace(max_entries=sizes.get(name, told.max_entries))
        found[name] = keep_open.enter_context(kernel.map_create(name, shape)).fd
    for name, program in bytecode.programs.items():
        code = bytearray(program.code)
        for reference in program.references:
            value = slice(reference.offset + 4, reference.offset + 8)
            code[value] = found[reference.map].to_bytes(4, "little")
        found[name] = keep_open.enter_context(kernel.program_load(name, bytes(code))).fd
    return found


def kept(path: Path, source: str) -> Bytecode | None:
    """What was made of that source, from that file; None when there is none that can be trusted."""
    try:
        for place in (path, path.parent):
            about = place.lstat()
            if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                log.warning("bytecode_not_trusted path=%s", place)
                return None
        found = Bytecode.from_json(path.read_bytes())
        if found.source != hash_of(source):
            log.warning("bytecode_of_other_sources path=%s", path)
            return None
        with suppress(OSError):  # that of an image cannot be written
            os.utime(path)
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("bytecode_unreadable path=%s error=%s", path, error)
        return None


def keep(bytecode: Bytecode, path: Path) -> None:
    """For the next load; where that is not possible, the next one compiles again."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished.write_bytes(bytecode.to_json())
        unfinished.replace(path)
        _forget_the_oldest(path.parent)
    except OSError as error:
        log.info("bytecode_not_kept path=%s error=%s", path, error)
        with suppress(OSError):
            unfinished.unlink()


def _forget_the_oldest(folder: Path) -> None:
    age: Callable[[Path], float] = lambda path: path.stat().st_mtime  # noqa: E731
    files: Sequence[Path] = sorted(folder.iterdir(), key=age, reverse=True)
    for old in files[FILES_KEPT:]:
        old.unlink(missing_ok=True)
