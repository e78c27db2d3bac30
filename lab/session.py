"""The lab's commands as functions: what `ringfence lab ...`, the demo and the tests call.

Each takes the lab's lock, reads the ledger and the store, and leaves the machine matching the
store. Nothing here prints; a Report lists what happened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from generators.errors import Refused, RingfenceError
from generators.manifests import Documents
from generators.tenants.load import load_tenants
from lab import created as ledgers
from lab import lifecycle, machine, netns
from lab.admission import Requester
from lab.api import users
from lab.api.real import bringup as real
from lab.backing import Report, Wish, backing_of
from lab.created import Lock, Pods
from lab.files.backing import FileBacking
from lab.names import Places, Shape
from lab.view import View


def up(
    places: Places,
    config: Path | None,
    paths: Sequence[str],
    requester: Requester,
    shape: Shape = Shape.GATEWAY,
) -> Report:
    """Start a lab with these objects in it; whatever goes wrong, nothing stays behind."""
    machine.check()
    backing = FileBacking()
    documents = backing.read(paths)
    if config is not None:
        load_tenants(config)
    with (
        ledgers.locked(places, Lock.EXCLUSIVE),
        lifecycle.bringing_up(places, config, lifecycle.Wanted(shape)) as ledger,
    ):
        return backing.begin(ledger, Wish(requester, paths, documents, config))


def apply(
    places: Places, config: Path | None, paths: Sequence[str], requester: Requester
) -> Report:
    """Apply objects to a running lab; with a tenant file, put that in force first."""
    machine.check_root()
    if config is not None:
        load_tenants(config)
    documents = _read(places, paths)
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        wish = Wish(requester, paths, documents, config)
        return backing_of(ledger.state).apply(ledger, wish)


def delete(
    places: Places, what: Sequence[str], paths: Sequence[str], requester: Requester
) -> Report:
    """Delete the objects in the files, or those named by `KIND [NS/]NAME...`."""
    machine.check_root()
    documents = _read(places, paths)
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        wish = Wish(requester, paths, documents, what=what)
        return backing_of(ledger.state).delete(ledger, wish)


def down(places: Places) -> bool:
    """Remove a lab and all it has; False when there was none. What is not ours is refused."""
    machine.check_root()
    with ledgers.locked(places, Lock.EXCLUSIVE):
        ledger = ledgers.load(places)
        if ledger is not None:
            lifecycle.clean(ledger)
            return True
        lifecycle.forget_empty(places)
        lifecycle.refuse_foreign(places)
        return False


@contextlib.contextmanager
def looking(places: Places) -> Iterator[View]:
    """A lab that none of our commands changes meanwhile."""
    machine.check_root()
    with lifecycle.open_lab(places, Lock.SHARED) as ledger:
        yield backing_of(ledger.state).look(ledger)


def execute(places: Places, namespace: str, pod: str, command: Sequence[str]) -> NoReturn:
    """Become `command` inside the pod's network namespace; its exit code is ours."""
    with looking(places) as view:
        found = [item for item in view.pods if item.pod.key == f"{namespace}/{pod}"]
    if not found:
        raise Refused(f'Error from server (NotFound): pods "{namespace}/{pod}" not found')
    netns.enter(found[0].netns)
    try:
        os.execvp(command[0], list(command))  # noqa: S606  the user's own command, as given
    except OSError as error:
        raise CommandFailed(f"{command[0]}: {error.strerror}") from error


def load(places: Places, archives: Sequence[Path]) -> None:
    """Give every real node container images."""
    machine.check_root()
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        if ledger.state.pods is not Pods.CONTAINERS:
            raise Refused(
                f'the pods of lab "{places.name}" are no containers and need no images; start one '
                "with `ringfence lab up --kubelet`"
            )
        for archive in archives:
            real.load(ledger, archive)


def kubectl(places: Places, arguments: Sequence[str]) -> NoReturn:
    """Become kubectl for the lab's API server."""
    machine.check_root()
    with lifecycle.open_lab(places, Lock.SHARED) as ledger:
        if backing_of(ledger.state).kubeconfig(ledger) is None:
            raise Refused(
                f'lab "{places.name}" has no API server; start one that has with '
                "`ringfence lab up --api-server`"
            )
    program = str(users.kubectl())
    os.execve(program, [program, *arguments], users.environment(places))  # noqa: S606  as given


class CommandFailed(RingfenceError):
    """The command for `exec` could not be started; the shell's code for that."""

    exit_code = 127


def _read(places: Places, paths: Sequence[str]) -> Documents:
    """The files as this lab reads them; before its lock, for standard input may take its time."""
    ledger = ledgers.load(places)
    return FileBacking().read(paths) if ledger is None else backing_of(ledger.state).read(paths)
