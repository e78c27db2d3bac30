"""Kinds that policies may write beside the usual ones, as the leading controller says.

`--allow-kind` is said to controllers only; the one that leads writes it into its status, and the
webhook goes by that. What may surprise: while no controller has said anything, nothing is allowed
beside the usual kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from generators.checks import Check, bridged
from generators.documents.json import Document, Key, meta_of, strings
from generators.kube.client import Client, WatchScope
from generators.kube.copies import Copies
from generators.kube.reflector import Reflector
from generators.kube.resources import CONFIG_MAPS
from generators.labels import MANAGED_BY, MANAGER
from webhook.kept import ALLOWED_KINDS, STATUS_NAME


class AllowedKinds(Copies):
    """`start`, read `current`, `stop`; `changed` is called from the watch's thread."""

    def __init__(self, client: Client, home: str, changed: Callable[[], None]) -> None:
        self._place = Key(home, STATUS_NAME)
        scope = WatchScope(namespace=home, fields=f"metadata.name={STATUS_NAME}")
        self._status = Reflector(client, CONFIG_MAPS, _said, lambda _: changed(), scope=scope)

    def reflectors(self) -> tuple[Reflector[tuple[str, ...]], ...]:
        """The controller's status."""
        return (self._status,)

    @property
    def current(self) -> tuple[str, ...]:
        """As in `--allow-kind`."""
        return self._status.store.get(self._place) or ()

    def checks(self) -> list[Check]:
        """For /readyz: policies are answered for all the same."""
        if self._status.store.get(self._place) is not None:
            return []
        where = f"ConfigMap {self._place}"
        return [bridged("kinds of policies", f"the usual ones; no controller said more in {where}")]


def _said(document: Document) -> tuple[str, ...]:
    """Nothing of what somebody else wrote."""
    if meta_of(document).labels.get(MANAGED_BY) != MANAGER:
        return ()
    return tuple(strings(document, "data").get(ALLOWED_KINDS, "").split())
