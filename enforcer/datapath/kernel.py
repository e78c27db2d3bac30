"""The bpf() system call, typed, without bcc: maps, pins, tcx links and test runs.

Called by maps.py, attach.py, loader.py and flows.py, in the agent's long-lived process. Every
failure is a KernelError that names the operation; only a kernel that refuses bpf() altogether is
a MachineLacks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from enforcer.datapath import attributes
from generators.errors import MachineLacks, RingfenceError

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
MAX_PROGRAMS_PER_HOOK = 64
BPF_F_BEFORE = 1 << 3
SCHED_CLS = 3
VERIFIER_LOG, VERIFIER_SAYS = 1 << 24, 2000
LICENSE = b"Dual BSD/GPL"
"""As declared in bpf/ringfence.c."""


class BpfCommand(IntEnum):
    """Commands of bpf() that are used here."""

    MAP_CREATE = 0
    MAP_LOOKUP = 1
    MAP_UPDATE = 2
    MAP_DELETE = 3
    MAP_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_BY_ID = 13
    MAP_BY_ID = 14
    OBJ_INFO = 15
    PROG_QUERY = 16
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class Hook(IntEnum):
    """Where a tcx link attaches; values of enum bpf_attach_type."""

    TCX_INGRESS = 46
    TCX_EGRESS = 47


class Netkit(IntEnum):
    """Hooks of a netkit pair, queried at its end on the node: what each end sends."""

    PRIMARY = 54
    PEER = 55


class KernelError(RingfenceError):
    """The kernel refused one bpf() operation."""

    exit_code = 1

    def __init__(self, operation: str, number: int) -> None:
        self.operation = operation
        self.errno = number
        super().__init__(f"{operation}: {os.strerror(number)} (errno {number})")


class SkbContext(ctypes.Structure):
    """The part of struct __sk_buff that a test run may set; the rest must be zero."""

    _fields_ = (
        ("len", ctypes.c_uint32),
        ("pkt_type", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("queue_mapping", ctypes.c_uint32),
        ("protocol", ctypes.c_uint32),
        ("vlan_present", ctypes.c_uint32),
        ("vlan_tci", ctypes.c_uint32),
        ("vlan_proto", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("_rest", ctypes.c_uint32 * 37),
    )


@dataclass(frozen=True, slots=True)
class MapInfo:
    """The kernel's information about a map."""

    name: str
    key_size: int
    value_size: int
    max_entries: int
    id: int
    """No other map has it until the machine is started again."""


class MapShape(NamedTuple):
    """What a map is made from."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """The kernel's information about a program."""

    id: int
    name: str
    steps: int
    """What the verifier took, of the million that it allows."""
    tag: str
    """Hash of its instructions, whatever maps they name."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """The kernel's information about a tcx link; `ifindex` 0 means its interface is gone."""

    id: int
    program_id: int
    ifindex: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class TestRun:
    """One verdict of a program on one frame."""

    verdict: int
    nanoseconds: int


_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: BpfCommand, request: ctypes.Structure, what: str) -> int:
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        raise MachineLacks(f"no bpf() known for {platform.machine()}", "use x86_64 or aarch64")
    result: int = _libc.syscall(number, int(command), ctypes.byref(request), ctypes.sizeof(request))
    if result >= 0:
        return result
    error = ctypes.get_errno()
    if error == errno.EPERM and os.geteuid() != 0:
        raise MachineLacks("eBPF needs root", "run this as root (sudo)")
    if error == errno.EPERM:
        raise MachineLacks(
            "this kernel refuses bpf() even to root here",
            "give this container CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; where the kernel counts "
            "maps as locked memory (before 5.11) CAP_SYS_RESOURCE too (enforcer.lockedMemory)",
        )
    if error == errno.ENOSYS:
        raise MachineLacks(
            "this kernel has no bpf() system call", "boot a kernel with CONFIG_BPF_SYSCALL=y"
        )
    raise KernelError(f"{command.name.lower().replace('_', ' ')} {what}".strip(), error)


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return ctypes.addressof(buffer) if buffer is not None else 0


class Handle:
    """An owned file descriptor of a map, program or link; closed once, by `close` or `with`."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        """The descriptor, for poll and mmap."""
        return self.fd

    def close(self) -> None:
        """Close the descriptor; pins keep the object alive."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pin(fd: int, path: Path) -> None:
    """Pin an object below the bpf filesystem; an existing path is an error."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(BpfCommand.OBJ_PIN, attributes.Object(pathname=_address(name), bpf_fd=fd), str(path))


def open_pin(path: Path) -> Handle:
    """Open a pinned object."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return Handle(_bpf(BpfCommand.OBJ_GET, attributes.Object(pathname=_address(name)), str(path)))


def _info(fd: int, info: ctypes.Structure, what: str) -> None:
    request = attributes.Info(bpf_fd=fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    _bpf(BpfCommand.OBJ_INFO, request, what)


def map_info(fd: int) -> MapInfo:
    """Name, sizes and capacity of a map."""
    raw = attributes.RawMapInfo()
    _info(fd, raw, "map")
    return MapInfo(raw.name.decode(), raw.key_size, raw.value_size, raw.max_entries, raw.id)


def map_shape(fd: int) -> MapShape:
    """From what a map was made."""
    raw = attributes.RawMapInfo()
    _info(fd, raw, "map")
    return MapShape(raw.type, raw.key_size, raw.value_size, raw.max_entries, raw.map_flags)


def map_create(name: str, shape: MapShape) -> Handle:
    """A new, empty map."""
    return Handle(
        _bpf(BpfCommand.MAP_CREATE, attributes.MapCreate(*shape, name=name.encode()), name)
    )


def program_load(name: str, code: bytes) -> Handle:
    """A tc program that the verifier has taken; its maps are descriptors in the code.

    KernelError with the end of what the verifier said when it has not.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(LICENSE)
    request = attributes.ProgramLoad(
        type=SCHED_CLS,
        count=len(code) // 8,
        instructions=_address(instructions),
        license=_address(license_text),
        name=name.encode(),
    )
    try:
        return Handle(_bpf(BpfCommand.PROG_LOAD, request, name))
    except KernelError as error:
        said = ctypes.create_string_buffer(VERIFIER_LOG)
        request.log_level, request.log_size, request.log_buffer = 1, len(said), _address(said)
        with suppress(KernelError):
            return Handle(_bpf(BpfCommand.PROG_LOAD, request, name))
        end = said.value.decode(errors="replace").strip()[-VERIFIER_SAYS:]
        raise KernelError(f"{error.operation}: {end or 'no word of it'}", error.errno) from None


def map_memory(fd: int) -> int:
    """Bytes that a map may take; the kernel reports them only as text."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    found = (line.partition(":")[2] for line in lines if line.startswith("memlock:"))
    return int(next(found, "0"))


def program_info(fd: int) -> ProgramInfo:
    """Id and name of a program, and what the verifier took for it."""
    raw = attributes.RawProgramInfo()
    _info(fd, raw, "program")
    return ProgramInfo(raw.id, raw.name.decode(), raw.verified_insns, bytes(raw.tag).hex())


def program_of(number: int) -> Handle:
    """The program with an id, whoever loaded it. KernelError with ENOENT: it is gone."""
    return Handle(_bpf(BpfCommand.PROG_BY_ID, attributes.ById(number), f"program {number}"))


def map_of(number: int) -> Handle:
    """The map with an id, whoever made it. KernelError with ENOENT: it is gone."""
    return Handle(_bpf(BpfCommand.MAP_BY_ID, attributes.ById(number), f"map {number}"))


def program_code(fd: int) -> bytes:
    """The instructions of a program as the kernel runs them, subprograms included."""
    sized = attributes.RawProgramInfo()
    _info(fd, sized, "program")
    code = ctypes.create_string_buffer(max(sized.code_length, 1))
    raw = attributes.RawProgramInfo(code_length=sized.code_length, code=_address(code))
    _info(fd, raw, "program")
    return code.raw[: raw.code_length]


def program_maps(fd: int) -> tuple[int, ...]:
    """The ids of the maps that a program uses."""
    sized = attributes.RawProgramInfo()
    _info(fd, sized, "program")
    ids = (ctypes.c_uint32 * max(sized.nr_map_ids, 1))()
    raw = attributes.RawProgramInfo(nr_map_ids=sized.nr_map_ids, map_ids=ctypes.addressof(ids))
    _info(fd, raw, "program")
    return tuple(ids[: raw.nr_map_ids])


def link_info(fd: int) -> LinkInfo:
    """What a link connects."""
    raw = attributes.RawLinkInfo()
    _info(fd, raw, "link")
    return LinkInfo(raw.id, raw.prog_id, raw.ifindex, raw.attach_type)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value of `key`, or None. Per-CPU maps: `value_size` covers all possible CPUs."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    try:
        _bpf(
            BpfCommand.MAP_LOOKUP,
            attributes.Element(map_fd=fd, key=_address(key_buffer), value=_address(value)),
            "",
        )
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Write one element."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value_buffer = ctypes.create_string_buffer(value, len(value))
    element = attributes.Element(
        map_fd=fd, key=_address(key_buffer), value=_address(value_buffer), flags=flags
    )
    _bpf(BpfCommand.MAP_UPDATE, element, "")


def map_delete(fd: int, key: bytes) -> bool:
    """Delete one element; False if it was not there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(BpfCommand.MAP_DELETE, attributes.Element(map_fd=fd, key=_address(key_buffer)), "")
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_keys(fd: int, key_size: int) -> Iterator[bytes]:
    """Every key, one system call each; for maps without batch operations."""
    current: ctypes.Array[ctypes.c_char] | None = None
    while True:
        following = ctypes.create_string_buffer(key_size)
        element = attributes.Element(map_fd=fd, key=_address(current), value=_address(following))
        try:
            _bpf(BpfCommand.MAP_NEXT_KEY, element, "")
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield following.raw
        current = following


def map_update_batch(fd: int, entries: Sequence[tuple[bytes, bytes]]) -> None:
    """Write many elements with one system call."""
    if not entries:
        return
    keys = ctypes.create_string_buffer(b"".join(k for k, _ in entries))
    values = ctypes.create_string_buffer(b"".join(v for _, v in entries))
    batch = attributes.MapBatch(
        keys=_address(keys), values=_address(values), count=len(entries), map_fd=fd
    )
    _bpf(BpfCommand.MAP_UPDATE_BATCH, batch, f"of {len(entries)} elements")


def map_delete_batch(fd: int, keys: Sequence[bytes]) -> None:
    """Delete many elements; those that are already gone do not matter."""
    position = 0
    while position < len(keys):
        rest = keys[position:]
        buffer = ctypes.create_string_buffer(b"".join(rest))
        batch = attributes.MapBatch(keys=_address(buffer), count=len(rest), map_fd=fd)
        try:
            _bpf(BpfCommand.MAP_DELETE_BATCH, batch, f"of {len(rest)} elements")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            position += batch.count + 1  # batch.count were deleted, the next one was missing
            continue
        return


def map_dump(fd: int, info: MapInfo, value_size: int | None = None) -> list[tuple[bytes, bytes]]:
    """All elements. `value_size` differs from the map's for per-CPU maps."""
    return list(map_scan(fd, info, value_size))


def map_scan(
    fd: int, info: MapInfo, value_size: int | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """All elements, with no more than a batch of them in memory."""
    size = info.value_size if value_size is None else value_size
    cursor = ctypes.create_string_buffer(max(info.key_size, 8))
    # A batch must hold the largest hash bucket, and the whole map always does.
    step = min(info.max_entries, 4096)
    first = True
    while True:
        keys = ctypes.create_string_buffer(step * info.key_size)
        values = ctypes.create_string_buffer(step * size)
        batch = attributes.MapBatch(
            in_batch=0 if first else _address(cursor),
            out_batch=_address(cursor),
            keys=_address(keys),
            values=_address(values),
            count=step,
            map_fd=fd,
        )
        done = False
        try:
            _bpf(BpfCommand.MAP_LOOKUP_BATCH, batch, "")
        except KernelError as error:
            if error.errno == errno.ENOSPC and step < info.max_entries:
                step = min(step * 4, info.max_entries)
                continue
            if error.errno != errno.ENOENT:
                raise
            done = True
        first = False
        raw_keys, raw_values = keys.raw, values.raw
        for i in range(batch.count):
            yield (
                raw_keys[i * info.key_size : (i + 1) * info.key_size],
                raw_values[i * size : (i + 1) * size],
            )
        if done:
            return


def test_run(fd: int, frame: bytes, context: SkbContext, repeat: int = 1) -> TestRun:
    """Run a tc program on a frame; nothing is sent. `nanoseconds` is the mean of `repeat` runs."""
    data = ctypes.create_string_buffer(frame, len(frame))
    request = attributes.RawTestRun(
        prog_fd=fd,
        data_size_in=len(frame),
        data_in=_address(data),
        repeat=repeat,
        ctx_size_in=ctypes.sizeof(context),
        ctx_in=ctypes.addressof(context),
    )
    _bpf(BpfCommand.PROG_TEST_RUN, request, f"on {len(frame)} bytes")
    return TestRun(ctypes.c_int32(request.retval).value, request.duration)


def link_create(program_fd: int, ifindex: int, hook: Hook) -> Handle:
    """Attach a program to an interface at the head of its hook; the link is ours."""
    request = attributes.LinkCreate(
        prog_fd=program_fd, target_ifindex=ifindex, attach_type=int(hook), flags=BPF_F_BEFORE
    )
    return Handle(_bpf(BpfCommand.LINK_CREATE, request, f"{hook.name} on ifindex {ifindex}"))


def link_update(link_fd: int, program_fd: int) -> None:
    """Replace the program of a link atomically. ENOLINK: the interface is gone."""
    _bpf(BpfCommand.LINK_UPDATE, attributes.LinkUpdate(link_fd=link_fd, new_prog_fd=program_fd), "")


def link_detach(link_fd: int) -> None:
    """Detach a link from its interface now, even if others hold it."""
    _bpf(BpfCommand.LINK_DETACH, attributes.LinkDetach(link_fd=link_fd), "")


def hook_programs(ifindex: int, hook: Hook | Netkit) -> tuple[int, ...]:
    """Ids of all programs on a hook of an interface, in their order."""
    ids = (ctypes.c_uint32 * MAX_PROGRAMS_PER_HOOK)()
    request = attributes.Query(
        target_ifindex=ifindex,
        attach_type=int(hook),
        prog_ids=ctypes.addressof(ids),
        count=MAX_PROGRAMS_PER_HOOK,
    )
    try:
        _bpf(BpfCommand.PROG_QUERY, request, f"{hook.name} of ifindex {ifindex}")
    except KernelError as error:
        # Nothing there, no such hooks in this kernel, or not this kind of interface, or none.
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENXIO, errno.ENODEV):
            return ()
        raise
    return tuple(ids[: request.count])
