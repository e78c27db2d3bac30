"""Services of every kind and host ports lead to a tenant's pods for whom the wall lets in, and
whose source kube-proxy hides is nobody.
"""

from __future__ import annotations

import json

import pytest

from tests.lab.api.real.nodes import RealLab, serving
from tests.testbed.waiting import eventually

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

OPEN = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: anybody, namespace: {space}}}
spec: {{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 0.0.0.0/0}}}}]}}]}}
"""


def service(pod: str, name: str, spec: str) -> str:
    """A Service of that name for a pod, on port 8080; what else its spec says is JSON-like YAML."""
    space, app = pod.split("/")
    ports = "ports: [{port: 8080, targetPort: 80}]"
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {space}}}
spec: {{selector: {{app: {app}}}, {ports}{", " + spec if spec else ""}}}
"""


def spec_of(real: RealLab, space: str, name: str) -> dict[str, object]:
    """What a Service says as the API server has it."""
    found = json.loads(real.kubectl("get", "service", "-n", space, name, "-o", "json"))
    spec: dict[str, object] = found["spec"]
    return spec


def node_port(real: RealLab, space: str, name: str) -> int:
    """The port of a Service at its nodes."""
    ports = spec_of(real, space, name)["ports"]
    assert isinstance(ports, list)
    return int(ports[0]["nodePort"])


def test_services_of_every_kind_open_no_wall(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    kinds = {
        "cluster": "",
        "hidden": "type: NodePort, externalTrafficPolicy: Cluster",
        "local": "type: NodePort, externalTrafficPolicy: Local",
    }
    services = "".join(service(web, name, spec) for name, spec in kinds.items())
    pods = serving(web, "80") + serving(own) + serving(other)
    real.make(OPEN.format(space=red) + services + pods, web, own, other)
    cluster = f"{spec_of(real, red, 'cluster')['clusterIP']}:8080"
    local, hidden = (f"{real.node}:{node_port(real, red, name)}" for name in ("local", "hidden"))
    sees = f"web sees {real.ip(own)}:"
    for target in (cluster, local):
        eventually(lambda at=target: real.asks(own, at).startswith(sees), target, 30)  # type: ignore[misc]
    # Outside is let in by the policy, with an address that can be named.
    assert real.outside(local).startswith("web sees 172.31.")
    # Another tenant is not, by whichever address of the pods: `own` got answers.
    for target in (cluster, local, hidden, f"{real.ip(web)}:80"):
        assert (target, real.asks(other, target)) == (target, "")
    # Hidden behind the node's address everybody is nobody, the own tenant too.
    assert real.outside(hidden) == ""
    assert real.asks(own, hidden) == ""
    # So is a pod that its own Service leads back to itself.
    assert real.asks(web, cluster) == ""


QUESTIONS = 100
"""A fifth of a second each where nobody answers."""


def _asking(pod: str, target: str) -> str:
    """A pod that asks again and again from its first instruction on, and says how it fared."""
    space, name = pod.split("/")
    words = f'connect, -count, "{QUESTIONS}", -every, 5ms, -wait, 200ms, -sum, "{target}"'
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Never
  containers: [{{name: main, image: "responder:lab", args: [{words}]}}]
"""


def test_from_their_first_moment_node_ports_answer_nobody_of_another_tenant(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web = f"{red}/web"
    kinds = ("Cluster", "Local")
    services = "".join(
        service(web, kind.lower(), f"type: NodePort, externalTrafficPolicy: {kind}")
        for kind in kinds
    )
    real.make(OPEN.format(space=red) + services)
    targets = [f"{real.node}:{node_port(real, red, kind.lower())}" for kind in kinds]
    pods = {f"{blue}/asks-{number}": target for number, target in enumerate(targets * 2)}
    real.make("".join(_asking(*one) for one in pods.items()) + serving(web), web)
    outside = lambda: real.outside(targets[1]).startswith("web sees 172.31.")  # noqa: E731
    eventually(outside, "the way is there", 20)
    for pod, target in pods.items():
        real.phase(pod, "Failed")
        said = real.kubectl("logs", "-n", blue, pod.split("/")[1]).splitlines()[-1]
        assert (target, said) == (target, f"answered 0 of {QUESTIONS}")


def test_a_headless_service_is_the_addresses_of_its_pods(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    text = service(web, "headless", "clusterIP: None") + serving(web)
    real.make(text + serving(own) + serving(other), web, own, other)
    command = ("get", "endpointslices", "-n", red, "-o", "json")

    def addresses() -> list[str]:
        slices = json.loads(real.kubectl(*command))["items"]
        ends = [end for found in slices for end in found["endpoints"] or ()]
        return [a for end in ends for a in end["addresses"] if "." in a]

    (address,) = eventually(addresses, "the Service has an endpoint", 30)
    assert real.asks(own, f"{address}:80").startswith("web sees")
    assert real.asks(other, f"{address}:80") == ""


def test_names_of_services_are_known_to_pods_and_open_no_wall(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    named = service(web, "named", "ipFamilyPolicy: RequireDualStack")
    text = named + service(web, "headless", "clusterIP: None") + serving(web) + serving(own)
    real.make(text + serving(other), web, own, other)
    for target in (f"headless.{red}:80", f"named.{red}.svc.cluster.local:8080", "named:8080"):
        assert real.answer(own, target).startswith("web sees")
    for target in (f"headless.{red}:80", f"named.{red}:8080"):
        done = real.exec(other, "/responder", "connect", target)
        assert "i/o timeout" in done.stderr, "the name is no secret, the pod behind it is"
    assert "no such host" in real.exec(own, "/responder", "connect", f"none.{red}:80").stderr


def test_a_host_port_opens_no_wall(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, own, other = f"{red}/web", f"{red}/own", f"{blue}/other"
    port = "ports: [{containerPort: 80, hostPort: 18080}]"
    text = serving(web, container=port) + serving(own) + serving(other)
    real.make(OPEN.format(space=red) + text, web, own, other)
    target = f"{real.node}:18080"
    outside = lambda: real.outside(target).startswith("web sees 172.31.")  # noqa: E731
    eventually(outside, "the policy lets outside in", 30)
    assert real.asks(other, target) == ""
    # The plugin hides pods of the node behind its address, those of the tenant too.
    assert real.asks(own, target) == ""


def test_a_pod_on_the_nodes_network_is_the_node(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    web, host, other = f"{red}/web", f"{blue}/host", f"{blue}/other"
    on_node = serving(host, "18081", spec="hostNetwork: true")
    real.make(serving(web) + on_node + serving(other), web, host, other)
    assert real.asks(host, f"{real.ip(web)}:80").startswith("web sees")
    assert real.asks(web, f"{real.node}:18081").split()[1:2] == ["sees"]
    assert real.asks(other, f"{real.ip(web)}:80") == ""


def test_a_rollout_under_policy_fails_no_request(real: RealLab) -> None:
    red, blue = real.spaces("red", "blue")
    own, other = f"{red}/own", f"{blue}/other"
    real.make(service(f"{red}/web", "web", "") + serving(own) + serving(other), own, other)
    real.kubectl("apply", "-f", "-", stdin=DEPLOYMENT.format(space=red))
    real.kubectl("rollout", "status", "-n", red, "deployment/web", "--timeout=60s")
    target = f"{spec_of(real, red, 'web')['clusterIP']}:8080"
    eventually(lambda: real.asks(own, target), "the Service answers", 30)
    asking = ("-count", "600", "-every", "30ms", "-wait", "5s", "-sum", target)
    real.kubectl("rollout", "restart", "-n", red, "deployment/web")
    done = real.exec(own, "/responder", "connect", *asking)
    real.kubectl("rollout", "status", "-n", red, "deployment/web", "--timeout=60s")
    assert done.stdout == "answered 600 of 600\n", done.stderr
    assert real.asks(other, target) == ""


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {space}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: main
        image: responder:lab
        args: [serve, -linger, 4s, "80"]
        readinessProbe: {{httpGet: {{path: /ready, port: 80}}, periodSeconds: 1}}
"""
