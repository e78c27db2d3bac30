"""The team's chart on a cluster whose pods are network namespaces: who enters, by packets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.charts.helm import Helm
from tests.charts.namespace.conftest import Team
from tests.conftest import Run
from tests.lab.conftest import Lab, fresh
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.cluster, pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(180)]

PORT = "8080/TCP"
CALLERS = {"friend": {"client": "test01"}, "ingress": {}, "stranger": {"client": "test02"}}


def caller(namespace: str) -> dict[str, object]:
    ports = [{"containerPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "caller", "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": "x", "ports": ports}]},
    }


def verdicts(lab: Lab, server: str) -> dict[str, set[str]]:
    """Of real connections, over all families, by the namespace that calls."""
    found: dict[str, set[str]] = {name: set() for name in CALLERS}
    for cell in lab.probe("--to", server, "--port", PORT).values():
        name = cell["source"].partition("/")[0]
        if name in found:
            found[name].add(cell["verdict"])
    return found


def test_only_the_allowed_namespaces_enter(
    helm4: Helm, umbrella: Path, ringfence: Run, api: ControlPlane
) -> None:
    # A plane of its own: the lab's nodes take every pod that they find, those of hooks included.
    with ControlPlane() as plane, fresh(ringfence) as lab:
        for name, labels in CALLERS.items():
            meta = {"name": name, "labels": labels}
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
            for document in (namespace, caller(name)):
                plane.kubectl("create", "-f", "-", stdin=json.dumps(document))
        lab.ok("up", "--kubeconfig", plane.kubeconfig())
        helm = helm4.at(plane)
        words = ("shop", str(umbrella), "--wait", "--timeout", f"{patience(60):.0f}s")
        helm.run("install", *words, "--create-namespace", namespace="shop")
        team = Team(plane, "shop")
        (pod,) = (o for o in team.objects() if o.startswith("pod/"))
        server = f"shop/{pod.removeprefix('pod/')}"
        wanted = {"friend": {"FORWARDED"}, "ingress": {"FORWARDED"}, "stranger": {"DROPPED"}}
        eventually(lambda: verdicts(lab, server) == wanted, "the allowed ones enter", 30)
        values = helm.values({"ringfence-namespace": {"allowFrom": []}})
        helm.run("upgrade", *words, *values, namespace="shop")
        nobody = {name: {"DROPPED"} for name in CALLERS}
        eventually(lambda: verdicts(lab, server) == nobody, "an empty list lets nobody in", 30)
        helm.run(
            "uninstall", "shop", "--wait", "--timeout", f"{patience(60):.0f}s", namespace="shop"
        )
        eventually(lambda: team.objects() == set(), "uninstall leaves nothing", 30)
        assert "client" not in team.labels
