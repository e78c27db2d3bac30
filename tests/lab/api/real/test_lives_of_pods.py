"""Containers of every kind start behind their pod's policy, and whoever comes after a pod at its
address is not taken for it.
"""

from __future__ import annotations

import os
import signal

import pytest

from lab.api.real.parts import Parts
from lab.topology import lab_node
from tests.lab.api.real.nodes import RealLab, serving
from tests.testbed.waiting import eventually, holds_for

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

SHOUTS = 400


def _shouting(pod: str, target: str) -> str:
    """A pod that sends a datagram each millisecond from its first instruction on."""
    space, name = pod.split("/")
    words = f'connect, -deaf, -udp, -count, "{SHOUTS}", -every, 1ms, "{target}"'
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - {{name: first, image: "responder:lab", args: [{words}]}}
  containers:
  - {{name: main, image: "responder:lab", args: [{words}]}}
"""


def _datagrams(real: RealLab, pod: str) -> int:
    return int(real.exec(pod, "/responder", "get", "127.0.0.1:80", "/datagrams").stdout)


def test_no_datagram_of_a_start_passes_the_wall_and_all_of_its_own_tenant_do(
    real: RealLab,
) -> None:
    red, blue = real.spaces("red", "blue")
    hears = f"{red}/hears"
    real.make(serving(hears, "80", "9/udp"), hears)
    target = f"{real.ip(hears)}:9"
    foreign = [f"{blue}/shouts{number}" for number in range(3)]
    real.make("".join(_shouting(pod, target) for pod in foreign))
    for pod in foreign:
        real.phase(pod, "Succeeded")
    assert _datagrams(real, hears) == 0
    real.make(_shouting(f"{red}/shouts", target))
    real.phase(f"{red}/shouts", "Succeeded")
    # Its init container sent as many; the pod that hears may be slower than both.
    assert _datagrams(real, hears) > SHOUTS


def test_an_ephemeral_container_is_its_pod(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    real.make(serving(web) + serving(own) + serving(other), web, own, other)
    for pod, code in ((own, 0), (other, 1)):
        space, name = pod.split("/")
        what = ("/responder", "connect", f"{real.ip(web)}:80")
        flags = ("--image", "responder:lab", "--container", "debug", "--attach=false")
        real.kubectl("debug", "-n", space, name, *flags, "--profile=general", "--", *what)

        def ended(pod: str = pod) -> dict[str, int]:
            status = real.pod(pod)["status"].get("ephemeralContainerStatuses", ())
            return next((s["state"].get("terminated", {}) for s in status), {})

        assert eventually(ended, f"the container in {pod} ends", 40)["exitCode"] == code


def test_who_gets_the_address_of_a_job_that_is_done_is_not_that_job(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    hears = f"{red}/hears"
    real.make(serving(hears, "80", "9/udp"), hears)
    target = f"{real.ip(hears)}:9"
    job, next_one = f"{red}/job", f"{blue}/next"
    real.make(_shouting(job, target))
    real.phase(job, "Succeeded")
    heard = _datagrams(real, hears)
    assert heard > 0
    address = _take_again(real, job)
    real.make(serving(next_one), next_one)
    assert real.ip(next_one) == address == real.ip(job)
    assert real.asks(next_one, f"{real.ip(hears)}:80") == ""
    real.exec(next_one, "/responder", "connect", "-deaf", "-udp", target)
    assert real.asks(next_one, f"{address}:80").startswith("next sees")
    assert _datagrams(real, hears) == heard


def _take_again(real: RealLab, pod: str) -> str:
    """Have the next pod get the address of one that is done: the plugin would begin anew only at
    the end of its range.
    """
    address = real.ip(pod)
    state = Parts(real.places, lab_node(real.places, 1)).cni_state / "networks/ringfence-lab"
    eventually(lambda: not (state / address).exists(), f"{address} is free", 60)
    before, _, last = address.rpartition(".")
    (state / "last_reserved_ip.0").write_text(f"{before}.{int(last) - 1}")
    return address


def test_pods_that_start_while_the_agent_is_dead_wait_and_the_walls_stand(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    real.make(serving(web) + serving(own) + serving(other), web, own, other)
    late = [f"{red}/late{number}" for number in range(3)]
    os.kill(real.pid(f"enforcer-{real.places.name}-1"), signal.SIGKILL)
    real.make("".join(serving(pod) for pod in late))
    assert real.asks(own, f"{real.ip(web)}:80").startswith("web sees")
    assert real.asks(other, f"{real.ip(web)}:80") == ""
    told = lambda: "no agent answers" in real.kubectl("get", "events", "-n", red)  # noqa: E731
    eventually(told, "an event says why", 60)

    def waiting() -> bool:
        return {real.pod(pod)["status"]["phase"] for pod in late} == {"Pending"}

    holds_for(2, waiting, "no pod runs without its policy")
    real.ok("apply", "-f", "-", stdin=serving(web))
    for pod in late:
        real.phase(pod, "Running")
        assert real.asks(own, f"{real.ip(pod)}:80").startswith("late")
        assert real.asks(other, f"{real.ip(pod)}:80") == ""
