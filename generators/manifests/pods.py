"""What the fields of a pod mean, however they are walked.

`core.py` walks fields that know their lines, and reports what is wrong; the agent walks the decoded
JSON of a hundred thousand pods (`enforcer/sources/readers.py`). Both ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

F = TypeVar("F")


def with_sidecars(
    containers: Iterable[F], initial: Iterable[F], restarts: Callable[[F], object]
) -> list[F]:
    """Containers whose ports count: all, then init containers that keep running beside them."""
    return [*containers, *(each for each in initial if restarts(each) == "Always")]


def controller_among(owners: Iterable[F], controls: Callable[[F], bool]) -> F | None:
    """The owner whose pod it is: the first that says that it is the controller."""
    return next(filter(controls, owners), None)


def each_once(
    listed: Iterable[F], single: F | None, canonical: Callable[[F], str | None]
) -> tuple[str, ...]:
    """Addresses: those of the list, then the single one, which older API servers have alone."""
    every = listed if single is None else (*listed, single)
    return tuple(dict.fromkeys(text for each in every if (text := canonical(each)) is not None))
