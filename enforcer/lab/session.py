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

from enforcer.lab import ledger as ledgers
from enforcer.lab import lifecycle, machine, netns, parts, store
from enforcer.lab.admission import Requester, Webhook
from enforcer.lab.changes import Gate, Report, keys_of
from enforcer.lab.changes import apply as apply_documents
from enforcer.lab.changes import delete as delete_objects
from enforcer.lab.controller import synchronize
from enforcer.lab.converge import begin_empty, converge
from enforcer.lab.ledger import Ledger, Lock, Phase
from enforcer.lab.names import Places
from enforcer.lab.pods import give_addresses, nodes_of, running
from enforcer.lab.store import Key, Store
from generators.errors import Refused, RingfenceError
from generators.manifests import Documents
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig

Edit = Callable[[Store, Gate], Report]


def up(places: Places, config: Path | None, documents: Documents, requester: Requester) -> Report:
    """Start a lab with these objects in it; whatever goes wrong, nothing stays behind."""
    machine.check()
    digest = None if config is None else load_tenants(config).digest
    with ledgers.locked(places, Lock.EXCLUSIVE):
        _make_room(places)
        try:
            ledger = lifecycle.begin(places, config)
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
    places: Places, config: Path | None, documents: Documents, requester: Requester
) -> Report:
    """Apply objects to a running lab; with a tenant file, put that in force first."""
    machine.check_root()
    if config is not None:
        load_tenants(config)
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
        if config is not None and ledger.state.config != str(config.resolve()):
            for name in (lifecycle.ENFORCER, lifecycle.WEBHOOK):
                parts.stop(ledger, name)
            ledger.update(
                replace(ledger.state, config=str(config.resolve()), directory=str(Path.cwd()))
            )
        lifecycle.start_processes(ledger)
        return _edit(ledger, requester, lambda s, gate: apply_documents(s, documents, gate))


def delete(
    places: Places, keys: Sequence[Key], documents: Documents, requester: Requester
) -> Report:
    """Delete the objects of the documents and those named by key."""
    machine.check_root()
    sources = keys_of(documents)
    wanted = [*sources, *keys]
    with lifecycle.open_lab(places, Lock.EXCLUSIVE) as ledger:
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
def looking(places: Places) -> Iterator[tuple[Ledger, Store]]:
    """A lab that nobody changes meanwhile, and its objects."""
    machine.check_root()
    with lifecycle.open_lab(places, Lock.SHARED) as ledger:
        yield ledger, store.load(places.run)


def execute(places: Places, namespace: str, pod: str, command: Sequence[str]) -> NoReturn:
    """Become `command` inside the pod's network namespace; its exit code is ours."""
    with looking(places) as (_, objects):
        found = [r for r in running(places, objects) if r.pod.key == f"{namespace}/{pod}"]
    if not found:
        raise Refused(f'Error from server (NotFound): pods "{namespace}/{pod}" not found')
    netns.enter(found[0].netns)
    try:
        os.execvp(command[0], list(command))  # noqa: S606  the user's own command, as given
    except OSError as error:
        raise CommandFailed(f"{command[0]}: {error.strerror}") from error


class CommandFailed(RingfenceError):
    """The command for `exec` could not be started; the shell's code for that."""

    exit_code = 127


def _make_room(places: Places) -> None:
    """Remove the remains of a lab of that name; one that is alive is not touched."""
    ledger = ledgers.load(places)
    if ledger is None:
        return
    running = [process for process in ledger.state.processes if process.alive]
    if ledger.state.phase is Phase.UP and len(running) == len(lifecycle.expected(ledger)):
        raise Refused(
            f'lab "{places.name}" is up already; change it with `ringfence lab apply`, or end it '
            "with `ringfence lab down`"
        )
    lifecycle.clean(ledger)


def _edit(ledger: Ledger, requester: Requester, edit: Edit) -> Report:
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
    give_addresses(objects)
    store.save(places.run, objects)
    converge(ledger, objects, None if config is None else config.digest)
    return report


def _config(ledger: Ledger) -> TenantConfig | None:
    return None if ledger.state.config is None else load_tenants(Path(ledger.state.config))


@contextlib.contextmanager
def _webhook(ledger: Ledger) -> Iterator[Webhook | None]:
    url = ledger.state.webhook
    if ledger.state.config is None or url is None:
        yield None
        return
    webhook = Webhook(url, ledger.places.certificates / "ca.crt")
    try:
        yield webhook
    finally:
        webhook.close()
