"""What differs between labs by where their objects are kept: one interface, two answers.

files/ keeps them in the lab's own file, api/session.py on an API server, its own or another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from generators.manifests import Documents
from lab.created import BackingKind, CreatedThings, State

if TYPE_CHECKING:
    from lab.admission import Requester
    from lab.view import View


@dataclass(slots=True)
class Report:
    """What happened, in kubectl's words: `lines` succeeded, `errors` did not."""

    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a command that changes a lab was given."""

    requester: Requester
    paths: Sequence[str]
    documents: Documents
    """What `Backing.read` makes of the paths."""
    config: Path | None = None
    what: Sequence[str] = ()
    """`KIND [NS/]NAME...`."""


class Backing(Protocol):
    """Of a lab that is up; those that change it hold its lock."""

    def expected(self, ledger: CreatedThings) -> tuple[str, ...]:
        """The processes that the lab should have."""

    def start_processes(self, ledger: CreatedThings) -> None:
        """Start what should run and does not, and wait until all of it answers."""

    def leave(self, ledger: CreatedThings) -> None:
        """Take out of the store what must not outlive the lab there."""

    def kubeconfig(self, ledger: CreatedThings) -> Path | None:
        """How its API server is reached; None without one."""

    def look(self, ledger: CreatedThings) -> View:
        """The lab as it is now."""

    def read(self, paths: Sequence[str]) -> Documents:
        """What a command takes from files; nothing where kubectl reads them."""

    def apply(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Apply objects; a tenant file that is named is put in force first."""

    def delete(self, ledger: CreatedThings, wish: Wish) -> Report:
        """Delete the objects in the files, or those that are named."""


def backing_of(state: State) -> Backing:
    """The backing of a lab; reading commands import no more than they need."""
    if state.backing is BackingKind.FILES:
        from lab.files.backing import FileBacking

        return FileBacking()
    from lab.api.session import ApiBacking

    return ApiBacking(joined=state.backing is BackingKind.JOINED_API)
