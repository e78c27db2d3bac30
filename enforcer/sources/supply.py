"""The interface of a source of changes, whatever is behind it.

The agent calls `start`, waits until `ready`, and takes `changes` whenever it is woken. Nothing is
passed on before everything has been read once, so that a new agent never takes half a cluster for
the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from enforcer.policy.changes import InputChange


@dataclass(frozen=True, slots=True)
class InputState:
    """How one input of the agent is doing."""

    kind: str
    """`pods`, `networkpolicies`, ... as the API names them; `manifests`, `config` for files."""
    synced: bool = False
    """It has been read completely once."""
    connected: bool = False
    """Changes arrive at once; False while the API server is away."""
    forbidden: bool = False
    """The API server refuses access: the known state is getting old."""
    objects: int = 0
    last_event: float | None = None
    """When it last sent anything, by `time.monotonic`."""
    events: Mapping[str, int] = field(default_factory=dict)
    """Changes taken in since the start: by `update` and `delete`."""
    relists: Mapping[str, int] = field(default_factory=dict)
    """How often everything was read again, by reason."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Attempts that failed, by kind of error."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Objects that make no sense, with the reason; a closed stand-in holds in their place, and for
    files what was read before.
    """
    tolerant: bool = False
    """Tenants can write objects that make no sense to us: no reason to be unready."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What happened since the last call."""

    changes: tuple[InputChange, ...] = ()
    since: float | None = None
    """When the oldest of it was noticed, by `time.monotonic`; None if unknown."""


@dataclass(frozen=True, slots=True)
class SeenDigests:
    """Digests of files that were last looked at, good or bad; None: there are none."""

    manifests: str | None = None
    config: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a supply is doing."""

    seen: SeenDigests = SeenDigests()
    errors: Mapping[str, str] = field(default_factory=dict)
    """What was refused of its inputs, by kind; the last good ones stay."""
    notices: tuple[str, ...] = ()
    """What people have to know, though all that it reads is in force."""


class Supply(Protocol):
    """A source of changes."""

    def start(self, wake: Callable[[], None]) -> None:
        """Begin; `wake` is called from any thread whenever `take` may have something."""

    def stop(self) -> None:
        """End its threads."""

    def take(self) -> Taken:
        """What happened; nothing before all of it has been read once."""

    def health(self) -> Health:
        """How it is doing now."""

    def sources(self) -> Mapping[str, Callable[[], InputState]]:
        """Each of its inputs by kind; ask for it when it is needed."""
