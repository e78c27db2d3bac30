"""Programs of other software on this node's interfaces, and how they can bypass ours.

A program that hands a packet straight to a pod (`bpf_redirect_peer`, as the host routing of Cilium
and of Calico's eBPF data plane does) skips `to_pod`. `look` finds all programs of others and what
they can do; `Findings` draws the conclusions (pure): where pods' packets can be handed on behind
`from_pod`, `to_pod` is run there too; programs before ours, or that hand on packets from other
nodes, are reported. A program is judged by its instructions and by those of the programs that it
may tail-call, not by its name; one that cannot be read counts as one that can.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from enforcer.datapath import kernel, links
from enforcer.datapath.attach import HOOKS
from enforcer.datapath.kernel import Hook, KernelError, Netkit

SYMBOLS = Path("/proc/kallsyms")
BASE, PASSES = "__bpf_call_base", "bpf_redirect_peer"
INSTRUCTION = struct.Struct("<BBhi")
CALL, TAIL_CALL = 0x85, 12
PROG_ARRAY = 3
AGAIN_SECONDS = 30.0
REMEDY = (
    "turn that off (Cilium: bpf.hostLegacyRouting=true; Calico: bpfRedirectToPeer: Disabled in "
    "FelixConfiguration), or let it enforce the policies itself: docs/platforms.md"
)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A program of other software on an interface of this node."""

    ifindex: int
    interface: str
    hook: str
    """`tcx ingress`, `clsact ingress`, `netkit`, ..., as seen from the node."""
    program: int
    name: str
    before: bool
    """It sees packets before ours do, or in their place."""
    passes: bool
    """It may hand packets to pods past our programs."""

    def __str__(self) -> str:
        where = f"{self.hook} of {self.interface}"
        return f"program {self.name or '?'} (id {self.program}) on {where}"


@dataclass(frozen=True, slots=True)
class Findings:
    """All of them, in order."""

    neighbours: tuple[Neighbour, ...] = ()

    @property
    def shortcut(self) -> bool:
        """Whether what leaves a pod may reach another one past its interface."""
        return any(n.passes for n in self.neighbours)

    def problems(self, attached: Container[int]) -> tuple[str, ...]:
        """What is not enforced because of them, and what to do.

        `attached`: the interfaces of pods, with our programs.
        """
        return tuple(text for n in self.neighbours if (text := _problem(n, attached)))

    def held(self, attached: Container[int]) -> tuple[str, ...]:
        """Those that can pass packets on and are held all the same."""
        passing = (n for n in self.neighbours if n.passes)
        return tuple(str(n) for n in passing if not _problem(n, attached))


def _problem(found: Neighbour, attached: Container[int]) -> str:
    if found.before:
        return (
            f"not enforced: {found} sees packets before our programs and may end their processing"
        )
    if found.passes and found.ifindex not in attached:
        return (
            f"not enforced for packets from other nodes: {found} may hand them to pods past "
            f"our programs; {REMEDY}"
        )
    return ""


def helpers(code: bytes) -> frozenset[int]:
    """The kernel functions that instructions call, as distances from `__bpf_call_base`.

    A tail call is the number of its helper.
    """
    return frozenset(
        imm
        for opcode, registers, _, imm in INSTRUCTION.iter_unpack(code)
        if opcode == CALL and not registers >> 4  # the others are subprograms and kfuncs
    )


@lru_cache(maxsize=1)
def _distance() -> int | None:
    """Of bpf_redirect_peer from the base of calls; None where the kernel does not say."""
    wanted: dict[str, int] = {}
    with suppress(OSError), SYMBOLS.open() as lines:
        for line in lines:
            address, _, name, *_ = line.split()
            if name in (BASE, PASSES):
                wanted[name] = int(address, 16)
    if not wanted.get(BASE) or not wanted.get(PASSES):
        return None
    return wanted[PASSES] - wanted[BASE]


def may_pass(program: int) -> bool:
    """Whether a program, or one that it may tail-call, can hand a packet to a pod past its veth."""
    seen: set[int] = set()
    waiting = [program]
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        try:
            found, called = _one(number)
        except KernelError as error:
            if error.errno == errno.ENOENT:  # gone meanwhile
                continue
            return True
        if found:
            return True
        waiting += called
    return False


def _one(number: int) -> tuple[bool, tuple[int, ...]]:
    """Whether the program itself can; and those that it may tail-call."""
    with kernel.program_of(number) as program:
        called = helpers(kernel.program_code(program.fd))
        distance = _distance()
        unreadable = distance is None or (0 in called)
        if unreadable or distance in called:
            return True, ()
        if TAIL_CALL not in called:
            return False, ()
        return False, tuple(
            target for map_id in kernel.program_maps(program.fd) for target in _programs_of(map_id)
        )


def _programs_of(map_id: int) -> Iterator[int]:
    """The programs in a map, if it is one of programs."""
    with kernel.map_of(map_id) as opened:
        if kernel.map_shape(opened.fd).type != PROG_ARRAY:
            return
        info = kernel.map_info(opened.fd)
        for key in kernel.map_keys(opened.fd, info.key_size):
            value = kernel.map_lookup(opened.fd, key, info.value_size)
            if value is not None:
                yield int.from_bytes(value, "little")


class Lookout:
    """Looks at the interfaces of this network namespace; remembers what programs can do.

    A program never changes, but what it may tail-call does: whatever could pass nothing is read
    again when `again` seconds have gone by. What could once is taken to be able for good.
    """

    def __init__(self, again: float = AGAIN_SECONDS) -> None:
        self._again = again
        self._read_at = time.monotonic()
        self._passes: dict[int, bool] = {}

    def look(self, ours: Collection[int], held: Mapping[int, str]) -> Findings:
        """All programs of others. `ours`: ids of our programs; `held`: how ours are attached, and
        where."""
        found: list[Neighbour] = []
        if time.monotonic() - self._read_at >= self._again:
            self._read_at = time.monotonic()
            self._passes = {number: True for number, passes in self._passes.items() if passes}
        with links.netlink() as asked:
            filtered = asked.filtered()
            for link in asked.links():
                found += self._on(asked, link, ours, held, filtered)
        alive = {n.program for n in found}
        self._passes = {n: passes for n, passes in self._passes.items() if n in alive}
        return Findings(tuple(found))

    def _on(
        self,
        asked: links.Netlink,
        link: links.Link,
        ours: Collection[int],
        held: Mapping[int, str],
        filtered: Collection[int],
    ) -> Iterable[Neighbour]:
        ifindex, of_pod = link.ifindex, link.ifindex in held
        if link.kind == "netkit":
            for pair in Netkit:
                for number in kernel.hook_programs(ifindex, pair):
                    yield self._of(link, "netkit", number, "", before=of_pod)
        for hook in HOOKS:
            side = "ingress" if hook.tcx is Hook.TCX_INGRESS else "egress"
            there = kernel.hook_programs(ifindex, hook.tcx)
            first = _first(there, ours)
            for place, number in enumerate(there):
                if number not in ours:
                    ahead = of_pod and place < first
                    yield self._of(link, f"tcx {side}", number, "", before=ahead)
            if ifindex not in filtered:
                continue
            filters = asked.filters(ifindex, hook.parent)
            first = -1 if held.get(ifindex) == "tcx" else _first([f.program for f in filters], ours)
            for place, item in enumerate(filters):
                if item.program and item.program not in ours:
                    ahead = of_pod and place < first
                    name, place_of = item.name or item.kind, f"clsact {side}"
                    yield self._of(link, place_of, item.program, name, before=ahead)

    def _of(
        self, link: links.Link, hook: str, number: int, name: str, *, before: bool
    ) -> Neighbour:
        if number not in self._passes:
            self._passes[number] = may_pass(number)
        named, passes = name or _name(number), self._passes[number]
        return Neighbour(link.ifindex, link.name, hook, number, named, before, passes)


def _first(there: Iterable[int], ours: Collection[int]) -> int:
    """The place of our first program on a hook; behind all where there is none."""
    listed = list(there)
    return next((place for place, number in enumerate(listed) if number in ours), len(listed))


def _name(number: int) -> str:
    with suppress(KernelError), kernel.program_of(number) as program:
        return kernel.program_info(program.fd).name
    return ""
