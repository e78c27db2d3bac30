"""A lab that keeps its objects itself, in a file; our webhook and controller rules decide on them.

Each command changes the store as its user wants, then as the controller wants, then the machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from generators.cluster import from_objects
from generators.manifests import Documents, read
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig
from lab import parts, store
from lab.admission import Webhook
from lab.backing import Report, Wish
from lab.created import CreatedThings
from lab.files import bringup
from lab.files.changes import Gate, keys_of, named
from lab.files.changes import apply as apply_documents
from lab.files.changes import delete as delete_objects
from lab.files.controller import synchronize
from lab.files.converge import begin_empty, converge
from lab.names import NODE
from lab.pods import check_addresses, documents, give_addresses, node_of, nodes_of, running
from lab.store import Store
from lab.view import Home, View

Edit = Callable[[Store, Gate], Report]


class FileBacking:
    """See `backing.Backing`."""

    def expected(self, ledger: CreatedThings) -> tuple[str, ...]:
        """Enforcer, responder, and with a tenant file the webhook."""
        return bringup.expected(ledger.state)

    def start_processes(self, ledger: CreatedThings) -> None:
        """Start what does not run."""
        bringup.start_processes(ledger)

    def leave(self, ledger: CreatedThings) -> None:
        """The store goes with the lab."""

    def kubeconfig(self, ledger: CreatedThings) -> Path | None:
        """There is no API server."""
        return None

    def look(self, ledger: CreatedThings) -> View:
        """The lab as it is now."""
        places = ledger.places
        objects = store.load(places.run)
        pods = running(places, objects)
        node = node_of(from_objects(documents(objects)), pods)
        return View(ledger, objects, pods, (Home(node, places.node(NODE)),))

    def read(self, paths: Sequence[str]) -> Documents:
        """What the files hold."""
        return read(paths)

    def begin(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Start with these objects."""
        config = _config(ledger)
        begin_empty(ledger, None if config is None else config.digest)
        return _edit(ledger, wish, lambda s, gate: apply_documents(s, wish.documents, gate))

    def apply(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Apply objects; who follows another tenant file ends, and is started again."""
        config = wish.config
        if config is not None and ledger.state.config != str(config.resolve()):
            for name in (bringup.ENFORCER, bringup.WEBHOOK):
                parts.stop(ledger, name)
            ledger.update(
                replace(ledger.state, config=str(config.resolve()), directory=str(Path.cwd()))
            )
        bringup.start_processes(ledger)
        return _edit(ledger, wish, lambda s, gate: apply_documents(s, wish.documents, gate))

    def delete(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Delete objects."""
        sources = keys_of(wish.documents)
        wanted = [*sources, *(named(wish.what[0], name) for name in wish.what[1:])]
        bringup.start_processes(ledger)
        return _edit(ledger, wish, lambda s, gate: delete_objects(s, wanted, gate, sources))


def _edit(ledger: CreatedThings, wish: Wish, edit: Edit) -> Report:
    """Change the store as a user wants, then as the controller wants, then the machine."""
    places = ledger.places
    objects = store.load(places.run)
    config = _config(ledger)
    if config is not None:
        bringup.wait_for_config(ledger, config.digest)
    with _webhook(ledger) as webhook:
        report = edit(objects, Gate(wish.requester, config, webhook))
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
