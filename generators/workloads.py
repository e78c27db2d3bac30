"""Which workload a pod belongs to: from the controller among its owners.

Called by whoever reads pods. What may surprise: a ReplicaSet that carries the hash of its template
is told as its Deployment and a Job that carries a time as its CronJob, by their names alone, as
Hubble does; and a static pod, which its Node owns, has none.
"""

from __future__ import annotations

import re

from generators.objects import Labels, Workload

TEMPLATE_HASH = "pod-template-hash"
_OF_CRON_JOB = re.compile(r"(.+)-\d{8,10}")


def workload_of(kind: str, name: str, labels: Labels) -> Workload | None:
    """The workload behind a pod's controller; `labels` are the pod's."""
    if not kind or not name or kind == "Node":
        return None
    if kind == "ReplicaSet" and (given := labels.get(TEMPLATE_HASH)):
        deployment = name.removesuffix(f"-{given}")
        if deployment and deployment != name:
            return Workload("Deployment", deployment)
    if kind == "Job" and (timed := _OF_CRON_JOB.fullmatch(name)):
        return Workload("CronJob", timed[1])
    return Workload(kind, name)
