"""What the agent tells others: one frozen value, replaced as a whole after each step.

The agent's loop publishes it, the control socket and the metrics read it without locks; whoever
waits for an input to be in force waits on `Board`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from enforcer.tables import Tables
from generators.objects import Namespace, Pod
from generators.tenants.model import Mode


@dataclass(frozen=True, slots=True)
class State:
    """The node as of the last step."""

    revision: int = 0
    """Counts the inputs that came into force."""
    seen_manifests: str | None = None
    """Digest of the manifests that were last looked at; None before any were there."""
    seen_config: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    """What was refused of the inputs last looked at, by source; the last good stays in force."""
    tables: Tables = field(default_factory=Tables)
    """What is in force."""
    pods: Mapping[int, Pod] = field(default_factory=dict)
    """Local pods by the ifindex of their interface."""
    owners: Mapping[str, Pod] = field(default_factory=dict)
    """Pods of the cluster by address."""
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Node names by address."""
    mode: Mode | None = None
    """Of the tenant wall; None without a tenant file."""
    attached: Mapping[int, str] = field(default_factory=dict)
    """How the programs hang on each interface: tcx or clsact."""
    unenforced: Mapping[str, str] = field(default_factory=dict)
    """Local pods that are not under enforcement, with the reason."""

    @property
    def ready(self) -> bool:
        """Whether anything of ours is in force."""
        return self.revision > 0


class Board:
    """Where the state is published."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = State()

    @property
    def state(self) -> State:
        """The last published state."""
        return self._state

    def publish(self, state: State) -> None:
        """Replace the state and wake who waits."""
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def wait(self, condition: Callable[[State], bool], seconds: float) -> State | None:
        """The first state that satisfies the condition; None when none does in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self._state):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(remaining):
                    return self._state if condition(self._state) else None
            return self._state
