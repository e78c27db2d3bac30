"""Network namespaces by name, as `ip netns` lists them: create, enter, remove.

Everything that has to happen "in a pod" happens inside `inside(NAME)`: sockets made there and
processes started there stay there. `ip netns exec` is no help: it remounts /sys, and the agent
would no longer find its pins. Needs root; the calls are per thread, and Python has them only from
3.12 on, hence ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from generators.errors import Refused, RingfenceError
from lab.names import NETNS_ROOT

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 1 << 20
MNT_DETACH = 2
CURRENT = "/proc/thread-self/ns/net"


class Gone(RingfenceError):
    """A network namespace that the lab needs was removed behind its back."""

    exit_code = 1


_libc = ctypes.CDLL(None, use_errno=True)


def exists(name: str) -> bool:
    """Whether that name is taken, by us or by others."""
    return (NETNS_ROOT / name).exists()


def names() -> tuple[str, ...]:
    """All named network namespaces of the machine, sorted."""
    if not NETNS_ROOT.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in NETNS_ROOT.iterdir()))


def create(name: str) -> None:
    """Make a network namespace and give it that name; a name that is taken is refused."""
    _prepare_root()
    path = NETNS_ROOT / name
    try:
        path.touch(mode=0o444, exist_ok=False)
    except FileExistsError:
        raise Refused(
            f"network namespace {name} exists already and is not ours; "
            f"remove it with `ip netns delete {name}`, or give this lab another --name"
        ) from None
    with _returning():
        _check(_libc.unshare(CLONE_NEWNET), "unshare", name)
        _check(_libc.mount(CURRENT.encode(), bytes(path), None, MS_BIND, None), "mount", name)


def remove(name: str) -> None:
    """Take the name away; the namespace and its interfaces end with its last process. Absent is
    fine.
    """
    path = NETNS_ROOT / name
    # Fails where a crash left only the file: then unlink is all.
    _libc.umount2(bytes(path), MNT_DETACH)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise Refused(
            f"{path} cannot be removed ({error.strerror}): something was mounted over "
            f"{NETNS_ROOT} since; `umount {NETNS_ROOT}` and try again"
        ) from error


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Let this thread be in the named network namespace for a while."""
    with _returning():
        enter(name)
        yield


def enter(name: str) -> None:
    """Move this thread into the named network namespace, for good."""
    try:
        with _opened(str(NETNS_ROOT / name)) as target:
            _check(_libc.setns(target, CLONE_NEWNET), "setns", name)
    except OSError as error:
        raise Gone(
            f"network namespace {name} is not there any more ({error.strerror}): somebody removed "
            "it; end the lab with `ringfence lab down` and start it again"
        ) from error


def _prepare_root() -> None:
    """Make the folder a shared mount point, as `ip netns add` does when it finds none: it would
    mount over the names made before, which then could not be removed.
    """
    NETNS_ROOT.mkdir(parents=True, exist_ok=True)
    root = bytes(NETNS_ROOT)
    if _libc.mount(b"", root, b"none", MS_SHARED | MS_REC, None) != 0:
        _check(_libc.mount(root, root, b"none", MS_BIND | MS_REC, None), "mount", str(NETNS_ROOT))
        _check(_libc.mount(b"", root, b"none", MS_SHARED | MS_REC, None), "mount", str(NETNS_ROOT))


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    with _opened(CURRENT) as home:
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "setns", "back")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(result: int, call: str, name: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", name)
