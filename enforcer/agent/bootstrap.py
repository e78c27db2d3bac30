"""How long the agent's start took, part by part; noted once each, read by the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Bootstrap:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._scopes: dict[str, float] = {}

    def reached(self, scope: str) -> None:
        """This part is done; later calls for the same part change nothing."""
        self._scopes.setdefault(scope, time.monotonic() - self._began)

    def read(self) -> Mapping[str, float]:
        """Seconds from the beginning, by part."""
        return dict(sorted(self._scopes.items()))
