"""What the fields of a pod mean, however they are walked.

`core.py` walks fields that know their lines, and reports what is wrong; the agent walks the decoded
JSON of a hundred thousand pods (`enforcer/sources/readers.py`). Both ask here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from generators.objects import Labels, Workload

F = TypeVar("F")
TEMPLATE_HASH = "pod-template-hash"
_OF_CRON_JOB = re.compile(r"(.+)-\d{8,10}")


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


def workload_of(kind: str, name: str, labels: Labels) -> Workload | None:
    """The workload behind a pod's controller; `labels` are the pod's. A static pod has none.

    A ReplicaSet that carries the hash of its template is told as its Deployment and a Job that
    carries a time as its CronJob, by their names alone, as Hubble does.
    """
    if not kind or not name or kind == "Node":
        return None
    if kind == "ReplicaSet" and (given := labels.get(TEMPLATE_HASH)):
        deployment = name.removesuffix(f"-{given}")
        if deployment and deployment != name:
            return Workload("Deployment", deployment)
    if kind == "Job" and (timed := _OF_CRON_JOB.fullmatch(name)):
        return Workload("CronJob", timed[1])
    return Workload(kind, name)
