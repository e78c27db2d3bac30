"""What one tenant piles up with the rights of `edit` opens, freezes and holds up nobody else.

Two nodes, real packets. The flood stands while the tests run, one after the other in one lab.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import COMMAND, Run
from tests.lab.api.hollow import ApiLab, fresh_lab
from tests.lab.builders import TENANTS, pod
from tests.testbed.waiting import eventually, patience

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

OURS, THEIRS = "app-test01", "app-test02"
POLICIES, BLOCKS = 20, 5_000
SERVICES, PORTS = 170, 100


def on(node: str, key: str) -> str:
    """A pod that carries its name as `app`, bound to a node."""
    return pod(key, app=key.partition("/")[2]).replace("spec: {", f"spec: {{nodeName: {node}, ")


def blocks(number: int) -> str:
    """A policy for the flooder with blocks that no other one has."""
    first = number * BLOCKS
    cidrs = (
        f"100.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32" for n in range(first, first + BLOCKS)
    )
    spec = {
        "podSelector": {"matchLabels": {"app": "flooder"}},
        "ingress": [{"from": [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]}],
    }
    return policy(THEIRS, f"flood-{number:02}", spec)


def policy(namespace: str, name: str, spec: object) -> str:
    """A NetworkPolicy."""
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return json.dumps({**kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})


def service(number: int) -> str:
    """A Service of many ports, with pods behind it."""
    ports = [{"name": f"p{n}", "port": 1000 + n, "targetPort": 80} for n in range(PORTS)]
    spec = {"selector": {"app": "flooder"}, "ports": ports}
    metadata = {"name": f"flood-{number:03}", "namespace": THEIRS}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def nodes_of(lab: ApiLab) -> tuple[str, str]:
    """The names of the two nodes."""
    return f"{lab.places.name}-1", f"{lab.places.name}-2"


def answer(lab: ApiLab, node: str, *command: str) -> str:
    """What the agent of a node says."""
    run_dir = lab.places.node(node).enforcer_run
    line = [str(COMMAND), *command, "--run-dir", str(run_dir)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=patience(60), check=False
    ).stdout


def addresses(lab: ApiLab, key: str) -> set[str]:
    """The addresses of a pod."""
    namespace, name = key.split("/")
    found = json.loads(lab.kubectl("get", "pod", "-n", namespace, name, "-o", "json"))
    return {entry["ip"] for entry in found["status"]["podIPs"]}


@pytest.fixture(scope="module")
def flooded(programs: None, ringfence: Run) -> Iterator[ApiLab]:
    """A victim and a flooder on the second node, whose map of prefixes is full."""
    with fresh_lab(ApiLab, ringfence) as lab:
        done = lab.up("--api-server", "--nodes", "2", "-c", TENANTS)
        assert done.returncode == 0, done.stderr
        first, second = nodes_of(lab)
        for name in (OURS, THEIRS):
            lab.kubectl("create", "namespace", name)
        keys = (f"{OURS}/victim", f"{THEIRS}/flooder", f"{THEIRS}/filler", f"{OURS}/peer")
        where = (second, second, first, first)
        for key, node in zip(keys, where, strict=True):
            lab.make(on(node, key), key)
        for number in range(POLICIES):
            lab.kubectl("create", "-f", "-", stdin=blocks(number))
        told = lambda: f"{THEIRS}/flood-" in answer(lab, second, "status")  # noqa: E731
        eventually(told, "the flood is told as without room", 120)
        yield lab


def test_the_flooder_alone_is_closed_and_told(flooded: ApiLab) -> None:
    first, second = nodes_of(flooded)
    assert flooded.reaches(f"{OURS}/peer", f"{OURS}/victim", "80/TCP") == {"FORWARDED"}
    assert flooded.reaches(f"{THEIRS}/filler", f"{THEIRS}/flooder", "80/TCP") == {"FORWARDED"}
    assert flooded.reaches(f"{THEIRS}/filler", f"{OURS}/victim", "80/TCP") == {"DROPPED"}
    status = answer(flooded, second, "status")
    assert "cidr_map" in status
    assert "tenant test02" in status
    assert "Without room" not in answer(flooded, first, "status")


def test_a_new_policy_of_somebody_else_is_in_force(flooded: ApiLab) -> None:
    _, second = nodes_of(flooded)
    flooded.make(on(second, f"{OURS}/closed"), f"{OURS}/closed")
    flooded.becomes("FORWARDED", f"{OURS}/peer", f"{OURS}/closed")
    # What Ringfence generated goes on to let the own tenant in, so this closes the other direction.
    spec = {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Egress"]}
    flooded.kubectl("apply", "-f", "-", stdin=policy(OURS, "deny", spec))
    flooded.becomes("DROPPED", f"{OURS}/closed", f"{OURS}/peer")


def test_thousands_of_ports_of_services_keep_no_pod_from_starting(flooded: ApiLab) -> None:
    _, second = nodes_of(flooded)
    flooded.kubectl("create", "-f", "-", stdin="\n".join(map(service, range(SERVICES))))
    flooded.make(on(second, f"{OURS}/late"), f"{OURS}/late")
    flooded.becomes("FORWARDED", f"{OURS}/peer", f"{OURS}/late")
    assert "in svc_map" not in answer(flooded, second, "status"), "nobody's ports lack room"
    flooded.kubectl("delete", "service", "-n", THEIRS, "--all", "--wait=false")


def test_an_address_that_goes_to_the_flooder_s_tenant_is_a_stranger_s(flooded: ApiLab) -> None:
    """Last of all: `peer` is gone afterwards."""
    first, _ = nodes_of(flooded)
    freed = addresses(flooded, f"{OURS}/peer")
    flooded.kubectl("delete", "pod", "-n", OURS, "peer", f"--timeout={patience(40):.0f}s")
    # The lab keeps an address that was used lately for last; a kubelet that was killed forgets.
    os.kill(flooded.pid(f"kubelet-{first}"), signal.SIGKILL)
    flooded.ok("apply", "-c", TENANTS)
    for number in range(5):
        key = f"{THEIRS}/attacker{number}"
        flooded.make(on(first, key), key)
        if addresses(flooded, key) & freed:
            assert flooded.reaches(key, f"{OURS}/victim", "80/TCP") == {"DROPPED"}
            return
    pytest.fail(f"no pod was given {freed}")
