"""The lab's commands as functions: what `ringfence lab ...`, the demo and the tests call.

Each takes the lab's lock, reads the ledger and the store, and leaves the machine as the store says.
Nothing here prints; a Report says what happened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from generators.errors import Refused, RingfenceError
from generators.manifests import Documents, read
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig
from lab import created as ledgers
from lab import lifecycle, machine, netns, parts, store
from lab.admission import Requester, Webhook
from lab.api import session as api
from lab.api import users
from lab.changes import Gate, Report, keys_of, named
from lab.changes import apply as apply_documents
from lab.changes import delete as delete_objects
from lab.controller import synchronize
from lab.converge import begin_empty, converge
from lab.created import Backing, CreatedThings, Lock, Phase
from lab.names import Places, Shape
from lab.pods import check_addresses, give_addresses, nodes_of
from lab.store import Store
from lab.view import View, look

Edit = Callable[[Store, Gate], Report]


def up(
    places: Places,
    config: Path | None,
    paths: Sequence[str],
    requester: Requester,
    shape: Shape = Shape.GATEWAY,
) -> Report:
    """Start a lab with these objects in it; whatever goes wrong, nothing stays behind."""
    machine.check()
    documents = read(paths)
    digest = None if config is None else load_tenants(config).digest
    with ledgers.locked(places, Lock.EXCLUSIVE):
        lifecycle.make_room(places)
        try:
            ledger = lifecycle.begin(places, config, shape)
            begin_empty(ledger, digest)
            report = _edit(ledger, requester, lambda s, gate: apply_documents(s, documents, gate))
            ledger.update(replace(ledger.state, phase=Phase.UP))
        except BaseException:
            remains = ledgers.load(places)
            if remains is not None:
                lifecycle.clean(remains)
            raise
    return report


def apply(
    places: Places, config: Path | None, paths: Sequence[str], requester: Requester
) -> Report:
    """Apply objects to a running lab; with a tenant file, put that in force first."""
    machine.check_root()
    if config is not None:
        load_tenants(config)
    documents = _read_ours(places, paths)
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        if ledger.state.backing is not Backing.FILES:
            return api.apply(ledger, config, paths, requester)
        if config is not None and ledger.state.config != str(config.resolve()):
            for name in (lifecycle.ENFORCER, lifecycle.WEBHOOK):
                parts.stop(ledger, name)
            ledger.update(
                replace(ledger.state, config=str(config.resolve()), directory=str(Path.cwd()))
            )
        lifecycle.start_processes(ledger)
        return _edit(ledger, requester, lambda s, gate: apply_documents(s, documents, gate))


def delete(
    places: Places, what: Sequence[str], paths: Sequence[str], requester: Requester
) -> Report:
    """Delete the objects in the files, or those named by `KIND [NS/]NAME...`."""
    machine.check_root()
    sources = keys_of(_read_ours(places, paths))
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        if ledger.state.backing is not Backing.FILES:
            return api.delete(ledger, what, paths, requester)
        wanted = [*sources, *(named(what[0], name) for name in what[1:])]
        lifecycle.start_processes(ledger)
        return _edit(ledger, requester, lambda s, gate: delete_objects(s, wanted, gate, sources))


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
        yield look(ledger)


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


def kubectl(places: Places, arguments: Sequence[str]) -> NoReturn:
    """Become kubectl for the lab's API server."""
    machine.check_root()
    with lifecycle.open_lab(places, Lock.SHARED) as ledger:
        if ledger.state.backing is Backing.FILES:
            raise Refused(
                f'lab "{places.name}" has no API server; start one that has with '
                "`ringfence lab up --api-server`"
            )
    program = str(users.kubectl())
    os.execve(program, [program, *arguments], users.environment(places))  # noqa: S606  as given


class CommandFailed(RingfenceError):
    """The command for `exec` could not be started; the shell's code for that."""

    exit_code = 127


def _read_ours(places: Places, paths: Sequence[str]) -> Documents:
    """The files, where this lab keeps the objects itself; kubectl reads them for an API server."""
    ledger = ledgers.load(places)
    if ledger is not None and ledger.state.backing is not Backing.FILES:
        return Documents()
    return read(paths)


def _edit(ledger: CreatedThings, requester: Requester, edit: Edit) -> Report:
    """Change the store as a user wants, then as the controller wants, then the machine."""
    places = ledger.places
    objects = store.load(places.run)
    config = _config(ledger)
    if config is not None:
        lifecycle.wait_for_config(ledger, config.digest)
    with _webhook(ledger) as webhook:
        report = edit(objects, Gate(requester, config, webhook))
    if config is not None:
        report.lines += synchronize(config, objects, nodes_of(places, objects))
    check_addresses(ledger.state.shape, objects.pods)
    give_addresses(objects)
    store.save(places.run, objects)
    converge(ledger, objects, None if config is None else config.digest)
    return report


def _config(ledger: CreatedThings) -> TenantConfig | None:
    return None if ledger.state.config is None else load_tenants(Path(ledger.state.config))


@contextlib.contextmanager
def _webhook(ledger: CreatedThings) -> Iterator[Webhook | None]:
    url = ledger.state.webhook
    if ledger.state.config is None or url is None:
        yield None
        return
    webhook = Webhook(url, ledger.places.certificates / "ca.crt")
    try:
        yield webhook
    finally:
        webhook.close()
