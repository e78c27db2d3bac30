"""Put the two programs on an interface and take them off: by tcx links, else by clsact.

The agent calls `attach` for each host-side veth, in the network namespace of the node. Replacing is
atomic in both ways, detaching before attaching never happens, and programs of others on the
interface stay: tcx links are our own, clsact filters have our priority, our handle and our name,
and a qdisc is removed only if we made it and nothing uses it.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from enforcer.datapath import iproute, kernel, links, upgrade
from enforcer.datapath.iproute import IPRoute
from enforcer.datapath.links import TcFilter
from generators.errors import MachineLacks, RingfenceError

CLSACT_PARENT = 0xFFFFFFF1
CLSACT_HANDLE = 0xFFFF0000
ETH_P_ALL = 0x0003
FILTER_PRIORITY = 1
FILTER_HANDLE = 0x5246
LINKS = "links"
VERSIONS, UNFINISHED = "v[0-9]*-*", "loading-*"
"""What else the loader makes in a pin directory; other folders there are somebody else's."""
CLOSED = bytes.fromhex("b700000002000000 9500000000000000")
"""A program that returns TC_ACT_SHOT."""

FROM_PROXY = "from_proxy"
"""On the node's end of the proxy's veth, where `enforcer.http.namespace` puts it."""

_alone = threading.Lock()
"""The agent's loop and its CNI calls may mean the same interface."""


class AttachMode(StrEnum):
    """How programs hang on an interface."""

    TCX = "tcx"
    CLSACT = "clsact"


class AttachError(RingfenceError):
    """The programs could not be put on an interface; its pod is not enforced."""

    exit_code = 1


class PinsGone(AttachError):
    """The pins were removed; links that lost theirs have taken their programs along."""

    def __init__(self, pin_path: Path) -> None:
        super().__init__(
            f"the pins below {pin_path.parent} were removed, and the programs with them"
        )


@dataclass(frozen=True, slots=True)
class _Hook:
    program: str
    tcx: kernel.Hook
    parent: int


HOOKS = (
    _Hook("to_pod", kernel.Hook.TCX_EGRESS, 0xFFFFFFF3),
    _Hook("from_pod", kernel.Hook.TCX_INGRESS, 0xFFFFFFF2),
)


def _ifindex(interface: str | int) -> int:
    try:
        if isinstance(interface, str):
            return socket.if_nametoindex(interface)
        socket.if_indextoname(interface)
    except OSError as error:
        raise AttachError(
            f"interface {interface} is not in this network namespace; is the pod gone?"
        ) from error
    return interface


def _link_pin(pin_dir: Path, ifindex: int, hook: _Hook) -> Path:
    return pin_dir / LINKS / f"{ifindex}-{hook.program}"


def _gate_pin(link: Path) -> Path:
    """What keeps a hook closed while the link changes its place."""
    return link.with_name(f"{link.name}-gate")


def _qdisc_mark(pin_dir: Path, ifindex: int) -> Path:
    """A directory whose existence marks the clsact qdisc of the interface as made by us."""
    return pin_dir / LINKS / f"{ifindex}-qdisc"


def _filters_mark(pin_dir: Path, ifindex: int) -> Path:
    """A directory that marks an interface on which our filters were put, or were about to be."""
    return pin_dir / LINKS / f"{ifindex}-filters"


def _unclaimed_mark(pin_dir: Path, ifindex: int) -> Path:
    """A directory that marks an interface as closed because its pod is unknown."""
    return pin_dir / LINKS / f"{ifindex}-unclaimed"


def _filter_name(pin_path: Path, hook: _Hook) -> str:
    return f"ringfence {pin_path}/{hook.program}"


def attach(pin_path: Path, interface: str | int, mode: AttachMode | None = None) -> AttachMode:
    """Put the programs below `pin_path` on both hooks of an interface, or replace older ones.

    Without `mode`: tcx, and clsact where the kernel has no tcx. What was attached in the other way
    is removed after the new way is in force.
    """
    ifindex = _ifindex(interface)
    with _of_pins(pin_path):
        (pin_path.parent / LINKS).mkdir(mode=0o700, exist_ok=True)
    with _alone:
        return _attach(pin_path, ifindex, mode)


@contextmanager
def _of_pins(pin_path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise PinsGone(pin_path) from error


def check_pins(pin_path: Path) -> None:
    """PinsGone unless programs and the folder of links are there."""
    wanted = (pin_path.parent / LINKS, *(pin_path / hook.program for hook in HOOKS))
    if not all(path.exists() for path in wanted):
        raise PinsGone(pin_path)


def _attach(pin_path: Path, ifindex: int, mode: AttachMode | None) -> AttachMode:
    if mode is not AttachMode.CLSACT:
        try:
            _attach_links(pin_path, ifindex)
        except kernel.KernelError as error:
            if mode is AttachMode.TCX or error.errno != errno.EINVAL:
                raise AttachError(f"tcx on ifindex {ifindex}: {error}") from error
        else:
            if _filters_mark(pin_path.parent, ifindex).exists():  # netlink takes milliseconds
                _remove_filters(pin_path.parent, ifindex)
            return AttachMode.TCX
    _attach_filters(pin_path, ifindex)
    _remove_links(pin_path.parent, ifindex)
    return AttachMode.CLSACT


def _attach_links(pin_path: Path, ifindex: int) -> None:
    for hook in HOOKS:
        link = _link_pin(pin_path.parent, ifindex, hook)
        with kernel.open_pin(pin_path / hook.program) as program:
            if not (link.exists() and _update_link(link, program.fd, ifindex)):
                with kernel.link_create(program.fd, ifindex, hook.tcx) as created:
                    kernel.pin(created.fd, link)
        _remove_link(_gate_pin(link))


def _update_link(path: Path, program_fd: int, ifindex: int) -> bool:
    """False if the link's interface is gone (numbers come again); its pin is removed then."""
    with kernel.open_pin(path) as link:
        try:
            if kernel.link_info(link.fd).ifindex == ifindex:
                kernel.link_update(link.fd, program_fd)
                return True
        except kernel.KernelError as error:
            if error.errno != errno.ENOLINK:
                raise
    path.unlink()
    return False


def _attach_filters(pin_path: Path, ifindex: int) -> None:
    _filters_mark(pin_path.parent, ifindex).mkdir(mode=0o700, exist_ok=True)
    with iproute.opened() as netlink:
        _ensure_qdisc(netlink, pin_path.parent, ifindex)
        for hook in HOOKS:
            with kernel.open_pin(pin_path / hook.program) as program:
                try:
                    netlink.tc(
                        "replace-filter",
                        "bpf",
                        ifindex,
                        FILTER_HANDLE,
                        fd=program.fd,
                        name=_filter_name(pin_path, hook),
                        parent=hook.parent,
                        prio=FILTER_PRIORITY,
                        protocol=ETH_P_ALL,
                        direct_action=True,
                    )
                except iproute.refusal() as error:
                    owners = ", ".join(_foreign(ifindex, hook)) or "nobody"
                    raise AttachError(
                        f"clsact filter for {hook.program} on ifindex {ifindex}: {error}; "
                        f"priority {FILTER_PRIORITY} there is used by {owners}"
                    ) from error


def _ensure_qdisc(netlink: IPRoute, pin_dir: Path, ifindex: int) -> None:
    try:
        netlink.tc("add", "clsact", ifindex, CLSACT_HANDLE, parent=CLSACT_PARENT)
    except iproute.refusal() as error:
        if iproute.errno_of(error) != errno.EEXIST:
            raise AttachError(f"clsact qdisc on ifindex {ifindex}: {error}") from error
        return
    _qdisc_mark(pin_dir, ifindex).mkdir(mode=0o700, exist_ok=True)


def _filters(ifindex: int) -> list[TcFilter]:
    with links.netlink() as asked:
        return [item for hook in HOOKS for item in asked.filters(ifindex, hook.parent)]


def _foreign(ifindex: int, hook: _Hook) -> list[str]:
    there = (f for f in _filters(ifindex) if f.parent == hook.parent)
    return [
        f"{f.kind} {f.name}".strip()
        for f in there
        if f.priority == FILTER_PRIORITY and not f.name.startswith("ringfence ")
    ]


def _ours(filters: Iterable[TcFilter], pin_dir: Path) -> list[TcFilter]:
    return [f for f in filters if f.name.startswith(f"ringfence {pin_dir}/")]


def _remove_filters(pin_dir: Path, ifindex: int) -> None:
    present = _filters(ifindex)
    ours, mark = _ours(present, pin_dir), _qdisc_mark(pin_dir, ifindex)
    if ours or mark.exists():
        _take_away(ours, mark, ifindex, with_qdisc=len(present) == len(ours))
    with suppress(FileNotFoundError):
        _filters_mark(pin_dir, ifindex).rmdir()


def _take_away(ours: Iterable[TcFilter], mark: Path, ifindex: int, *, with_qdisc: bool) -> None:
    with iproute.opened() as netlink:
        for item in ours:
            netlink.tc(
                "del-filter",
                "bpf",
                ifindex,
                item.handle,
                parent=item.parent,
                prio=item.priority,
                protocol=ETH_P_ALL,
            )
        if mark.exists():
            if with_qdisc:
                netlink.tc("del", "clsact", ifindex, CLSACT_HANDLE, parent=CLSACT_PARENT)
            mark.rmdir()


def _remove_links(pin_dir: Path, ifindex: int) -> None:
    for hook in HOOKS:
        link = _link_pin(pin_dir, ifindex, hook)
        _remove_link(link)
        _remove_link(_gate_pin(link))


def _remove_link(path: Path) -> None:
    if not path.exists():
        return
    with kernel.open_pin(path) as link, suppress(kernel.KernelError):  # its interface may be gone
        kernel.link_detach(link.fd)
    path.unlink()


def lead(pin_path: Path, ifindex: int) -> bool:
    """Be the first on both tcx hooks of an interface again; whether others were before us.

    For the moment in which our link changes its place nothing passes.
    """
    moved = False
    with _alone:
        for hook in HOOKS:
            path = _link_pin(pin_path.parent, ifindex, hook)
            number = _program_id(pin_path / hook.program)
            there = kernel.hook_programs(ifindex, hook.tcx)
            if path.exists() and number in there and there[0] != number:
                _to_the_head(path, pin_path / hook.program, ifindex, hook)
                moved = True
    return moved


def _to_the_head(path: Path, program_pin: Path, ifindex: int, hook: _Hook) -> None:
    # The kernel takes no program twice on a hook. The gate is pinned, so that an agent that is
    # killed here leaves the interface closed; `attach` opens it.
    gate = _gate_pin(path)
    with (
        kernel.program_load("closed", CLOSED) as closed,
        kernel.link_create(closed.fd, ifindex, hook.tcx) as closing,
    ):
        kernel.pin(closing.fd, gate)
    with kernel.open_pin(path) as former:
        kernel.link_detach(former.fd)
    path.unlink()
    with (
        kernel.open_pin(program_pin) as program,
        kernel.link_create(program.fd, ifindex, hook.tcx) as created,
    ):
        kernel.pin(created.fd, path)
    _remove_link(gate)


def program_ids(pin_path: Path) -> frozenset[int]:
    """Our programs, those of other versions included."""
    with _of_pins(pin_path):
        names = [*(hook.program for hook in HOOKS), FROM_PROXY]
        pins = [p / name for p in pin_path.parent.iterdir() for name in names if p.name != LINKS]
    return frozenset(_program_id(pin) for pin in pins if pin.exists())


def attached(pin_path: Path, interface: str | int) -> AttachMode | None:
    """How the programs below `pin_path` hang on an interface; None if one of the two does not."""
    ifindex = _ifindex(interface)
    wanted: Mapping[str, int] = {h.program: _program_id(pin_path / h.program) for h in HOOKS}
    if all(wanted[h.program] in kernel.hook_programs(ifindex, h.tcx) for h in HOOKS):
        return AttachMode.TCX
    names = {f.name for f in _filters(ifindex)}
    if all(_filter_name(pin_path, h) in names for h in HOOKS):
        return AttachMode.CLSACT
    return None


def pinned(pin_path: Path) -> frozenset[int]:
    """The interfaces that programs of ours were put on, whether they are still there or not."""
    with _of_pins(pin_path):
        numbers = [path.name.partition("-")[0] for path in (pin_path.parent / LINKS).iterdir()]
    return frozenset(int(number) for number in numbers if number.isdecimal())


def mark_unclaimed(pin_path: Path, ifindex: int) -> None:
    """Record for the next agent that an interface is closed because its pod is unknown."""
    _unclaimed_mark(pin_path.parent, ifindex).mkdir(mode=0o700, exist_ok=True)


def unmark_unclaimed(pin_path: Path, ifindex: int) -> None:
    """Its pod is known, or it is open."""
    with suppress(FileNotFoundError):
        _unclaimed_mark(pin_path.parent, ifindex).rmdir()


def unclaimed(pin_path: Path) -> frozenset[int]:
    """The interfaces that are marked so, by this agent or an earlier one."""
    with _of_pins(pin_path):
        marks = list((pin_path.parent / LINKS).glob("*-unclaimed"))
    return frozenset(int(mark.name.partition("-")[0]) for mark in marks)


def is_ours(pin_path: Path, ifindex: int) -> bool:
    """Whether programs of ours were put on an interface, of any version and in any way."""
    pins = (_link_pin(pin_path.parent, ifindex, hook) for hook in HOOKS)
    return _filters_mark(pin_path.parent, ifindex).exists() or any(pin.exists() for pin in pins)


def runs_another_version(pin_path: Path, ifindex: int) -> bool:
    """Whether programs of ours enforce on an interface, and not those below `pin_path`."""
    return _is_held(pin_path.parent, ifindex) and attached(pin_path, ifindex) is None


def _is_held(pin_dir: Path, ifindex: int) -> bool:
    pins = [_link_pin(pin_dir, ifindex, hook) for hook in HOOKS]
    if all(pin.exists() for pin in pins):
        return all(_is_link_on(pin, ifindex) for pin in pins)
    if not _filters_mark(pin_dir, ifindex).exists():
        return False
    ours = _ours(_filters(ifindex), pin_dir)
    return {f.parent for f in ours} == {hook.parent for hook in HOOKS}


def _is_link_on(pin: Path, ifindex: int) -> bool:
    """A link whose interface is gone, or that was detached, is on none."""
    with kernel.open_pin(pin) as link:
        return kernel.link_info(link.fd).ifindex == ifindex


def _program_id(path: Path) -> int:
    with kernel.open_pin(path) as program:
        return kernel.program_info(program.fd).id


def detach(pin_path: Path, interface: str | int) -> None:
    """Take the programs off an interface, whichever version and way; foreign ones stay."""
    ifindex = _ifindex(interface)
    _remove_filters(pin_path.parent, ifindex)
    _remove_links(pin_path.parent, ifindex)


def forget(pin_path: Path, ifindex: int) -> None:
    """Remove the pins that belong to an interface which is gone."""
    with _alone:
        _remove_links(pin_path.parent, ifindex)
        for mark in (_qdisc_mark, _filters_mark, _unclaimed_mark):
            with suppress(FileNotFoundError):
                mark(pin_path.parent, ifindex).rmdir()


def uninstall(pin_dir: Path) -> None:
    """Take all programs of `pin_dir` off this network namespace, and remove all pins."""
    if os.geteuid() != 0:
        raise MachineLacks("removing programs needs root", "run this as root (sudo)")
    with links.netlink() as asked:
        interfaces = [link.ifindex for link in asked.links()]
    for ifindex in interfaces:
        _remove_filters(pin_dir, ifindex)
    pins = pin_dir / LINKS
    for path in sorted(pins.iterdir()) if pins.is_dir() else ():
        if not path.is_dir():
            _remove_link(path)
    for own in (pins, *pin_dir.glob(VERSIONS), *pin_dir.glob(UNFINISHED)):
        if own.exists():
            shutil.rmtree(own)
    with suppress(OSError):  # a lab's pins may lie below it, too
        pin_dir.rmdir()


def _others(pin_path: Path) -> list[Path]:
    """The pins of other versions."""
    with _of_pins(pin_path):
        return sorted(path for path in pin_path.parent.glob(VERSIONS) if path != pin_path)


def catch_up(pin_path: Path) -> None:
    """Take over the connections that programs of other versions have tracked meanwhile."""
    for other in _others(pin_path):
        with suppress(kernel.KernelError):  # a half-loaded version has nothing to give
            upgrade.take_connections(other, pin_path)


def retire(pin_path: Path) -> None:
    """Remove the pins of other versions once every interface runs the programs of `pin_path`."""
    catch_up(pin_path)
    for other in _others(pin_path):
        shutil.rmtree(other)
