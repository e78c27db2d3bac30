"""A pod is told by what people wrote: the Deployment or CronJob, not what these made."""

from __future__ import annotations

import pytest

from generators.manifests.pods import workload_of
from generators.objects import Workload


@pytest.mark.parametrize(
    ("kind", "name", "template", "expected"),
    [
        ("ReplicaSet", "web-5d9c", "5d9c", Workload("Deployment", "web")),
        ("ReplicaSet", "web-5d9c", "", Workload("ReplicaSet", "web-5d9c")),
        ("ReplicaSet", "web-5d9c", "7777", Workload("ReplicaSet", "web-5d9c")),
        ("ReplicaSet", "-5d9c", "5d9c", Workload("ReplicaSet", "-5d9c")),
        ("Job", "backup-29384756", "", Workload("CronJob", "backup")),
        ("Job", "backup-12", "", Workload("Job", "backup-12")),
        ("Job", "backup", "", Workload("Job", "backup")),
        ("StatefulSet", "db", "5d9c", Workload("StatefulSet", "db")),
        ("DaemonSet", "agent", "", Workload("DaemonSet", "agent")),
        ("Rollout", "web", "", Workload("Rollout", "web")),
        ("Node", "node1", "", None),
        ("", "web", "", None),
        ("Job", "", "", None),
    ],
)
def test_the_workload_of_a_controller(
    kind: str, name: str, template: str, expected: Workload | None
) -> None:
    labels = {"pod-template-hash": template} if template else {}
    assert workload_of(kind, name, labels) == expected
