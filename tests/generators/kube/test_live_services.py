"""A Service of a real API server is explained by the EndpointSlices that are there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from generators.documents.json import Document
from generators.kube.client import Client
from generators.kube.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from tests.conftest import Run
from tests.testbed.plane import ControlPlane

pytestmark = pytest.mark.cluster
ADDRESSES = ["192.0.2.7", "192.0.2.8"]


def test_a_trace_of_the_live_cluster_knows_services_and_slices(
    admin: Client, api: ControlPlane, unique_name: Callable[[str], str], ringfence: Run
) -> None:
    home = unique_name("shop")
    admin.create(NAMESPACES, {"metadata": {"name": home}}, manager="test")
    meta = {"name": "web", "namespace": home}
    service = {"metadata": meta, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}}
    admin.create(SERVICES, service, manager="test")
    endpoints: Document = {
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in ADDRESSES],
        "ports": [{"port": 8080, "protocol": "TCP", "name": ""}],
    }
    admin.create(ENDPOINT_SLICES, endpoints, manager="test")
    live = ("--kubeconfig", api.kubeconfig())
    done = ringfence("trace", "ip/203.0.113.9", f"svc/{home}/web", "80", *live, "-o", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["service"]
    assert told["name"] == f"{home}/web"
    assert [(b["address"], b["port"]) for b in told["backends"]] == [(a, 8080) for a in ADDRESSES]
