"""What a controller does about Cilium's policies: their kinds, and what their status says.

Made and driven by the controller; both are options of its command.
"""

from __future__ import annotations

from collections.abc import Callable

from generators.kube.client import Client
from generators.kube.events import Recorder
from generators.kube.reflector import ReflectorStats
from webhook import rbac
from webhook.cilium.schema import documents
from webhook.cilium.status import ValidityWriter
from webhook.definitions import MissingKinds


class CiliumParts:
    """`start` once this identity is known, `step` in each turn of a leader, `stop`."""

    def __init__(
        self,
        client: Client,
        fenced: Client,
        leads: Callable[[], bool],
        written: Callable[[str, str], None],
        *,
        judge: bool,
        install: bool,
    ) -> None:
        """`judge`: write whether policies are valid; `install`: make kinds that are missing."""
        self._status = ValidityWriter(client, fenced, leads, written) if judge else None
        self._kinds = MissingKinds(fenced, documents()) if install else None

    @property
    def rights(self) -> tuple[rbac.RbacRule, ...]:
        """What a controller may do besides."""
        judging = rbac.CILIUM if self._status is not None else ()
        return (*judging, *(rbac.CILIUM_KINDS if self._kinds is not None else ()))

    def start(self, recorder: Recorder) -> None:
        """Begin to follow the cluster."""
        if self._status is not None:
            self._status.start(recorder)

    def stop(self) -> None:
        """End all threads."""
        if self._status is not None:
            self._status.stop()

    def step(self) -> None:
        """What a leader does, in each turn."""
        if self._kinds is not None:
            self._kinds.step()

    @property
    def alive(self) -> bool:
        """Whether no thread has died."""
        return self._status is None or self._status.alive

    def stats(self) -> tuple[ReflectorStats, ...]:
        """Of everything that is followed."""
        return self._status.stats() if self._status is not None else ()
