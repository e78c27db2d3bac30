"""Optional labels of flow metrics: namespace, workload and pod of the local end.

The feed asks what an event is counted under, and what need not be counted any more. Series end a
minute after the last pod that they are about has left the node, so that pods that come and go do
not pile up; a scraper has read the last count by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from enforcer.observe.names import NamedParty
from generators.objects import Pod, Workload

KEPT_SECONDS = 60.0
"""After the last pod has gone."""

Values = tuple[str, ...]


class Context(StrEnum):
    """Labels beside the tenant."""

    NAMESPACE = "namespace"
    WORKLOAD = "workload"
    POD = "pod"


class Contexts:
    """The values of the wanted labels, and since when no pod here has them."""

    def __init__(
        self, wanted: Iterable[Context] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        named = set(wanted)
        if named & {Context.WORKLOAD, Context.POD}:
            named.add(Context.NAMESPACE)
        self.labels: Sequence[Context] = [context for context in Context if context in named]
        self._clock = clock
        self._gone: dict[Values, float] = {}

    def of(self, party: NamedParty) -> Values:
        """What an event of a local end is counted under."""
        return self._values(party.namespace, party.pod, party.workload)

    def ended(self, counted: Iterable[Values], pods: Iterable[Pod]) -> frozenset[Values]:
        """Those that were counted and have had no local pod for long enough."""
        if not self.labels:
            return frozenset()
        here = {self._values(pod.namespace, pod.name, pod.workload) for pod in pods}
        now = self._clock()
        gone = set(counted) - here
        self._gone = {values: self._gone.get(values, now) for values in gone}
        return frozenset(v for v, since in self._gone.items() if now - since >= KEPT_SECONDS)

    def _values(self, namespace: str, pod: str, workload: Workload | None) -> Values:
        if not self.labels:
            return ()
        told = {
            Context.NAMESPACE: namespace,
            Context.WORKLOAD: f"{workload.kind}/{workload.name}" if workload is not None else "",
            Context.POD: pod,
        }
        return tuple(told[label] for label in self.labels)
