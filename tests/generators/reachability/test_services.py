"""A Service is judged by its backends: who they are, and how the worst of them fares."""

from __future__ import annotations

import json

import pytest

from generators.addresses import Family
from generators.reachability.ends import BadQuestion
from generators.reachability.explain import trace
from generators.reachability.matrix import PortProtocol, single_question
from generators.reachability.reference import Evaluator
from generators.reachability.services import Backend, service_map
from generators.reachability.verdicts import Verdict
from tests.conftest import Run
from tests.generators.builders import TENANTS, ask, cluster, node, pod, policy, said

HTTP = "containers: [{ports: [{name: http, containerPort: %d}]}]"
DENY = "podSelector: {matchLabels: {app: %s}}, policyTypes: [%s]"


def service(key: str, spec: str) -> str:
    home, name = key.split("/")
    meta = f"{{name: {name}, namespace: {home}}}"
    return f"apiVersion: v1\nkind: Service\nmetadata: {meta}\nspec: {{{spec}}}"


def endpoints(
    key: str, of: str, addresses: str, ports: str = "{port: 8080}", rest: str = ""
) -> str:
    home, name = key.split("/")
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: {name}, namespace: {home}, "
        f"labels: {{kubernetes.io/service-name: {of}}}}}\n"
        f"endpoints: [{{addresses: [{addresses}]{rest}}}]\nports: [{ports}]"
    )


WEB = service("x/web", "clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80}]")
PODS = (pod("x/web", "10.244.1.1"), pod("x/client", "10.244.1.2"), pod("y/other", "10.244.1.3"))


def backends(*texts: str) -> list[str]:
    of = cluster(*texts)
    found = service_map(of.services, of.slices, of.pods)
    return [
        f"{key.address}:{key.port}/{key.protocol} -> {backend.address}:{backend.port}"
        for key, values in found.items()
        for backend in values
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([WEB], ["10.244.1.1:80"], id="pods of the selector"),
        pytest.param([], [], id="no Service"),
        pytest.param(
            [service("y/web", "clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80}]")],
            [],
            id="only pods of its own namespace",
        ),
        pytest.param(
            [service("x/web", "clusterIP: 10.96.0.9, ports: [{port: 80}]")],
            [],
            id="no selector and no slice",
        ),
        pytest.param(
            [service("x/web", "clusterIP: None, selector: {app: web}, ports: [{port: 80}]")],
            [],
            id="headless",
        ),
        pytest.param(
            [service("x/web", "type: ExternalName, externalName: example.com")],
            [],
            id="external name",
        ),
        pytest.param(
            [
                WEB,
                pod("x/web-2", "10.244.1.4", phase="Pending").replace("web-2}", "web}"),
                pod("x/web-3", "10.244.1.5").replace("web-3}", "web}, deletionTimestamp: now"),
                pod("x/web-4", "10.244.1.6", phase="Failed").replace("web-4}", "web}"),
            ],
            ["10.244.1.1:80"],
            id="only running pods that stay",
        ),
        pytest.param([WEB, endpoints("x/s", "web", "192.0.2.1")], ["192.0.2.1:8080"], id="slice"),
        pytest.param(
            [WEB, endpoints("x/s", "web", "192.0.2.1"), endpoints("x/t", "web", "10.244.1.3")],
            ["10.244.1.3:8080", "192.0.2.1:8080"],
            id="two slices",
        ),
        pytest.param([WEB, endpoints("y/s", "web", "192.0.2.1")], ["10.244.1.1:80"], id="foreign"),
        pytest.param(
            [WEB, endpoints("x/s", "web", "192.0.2.1", "{port: 8080, name: other}")],
            [],
            id="slice of another port name",
        ),
        pytest.param(
            [WEB, endpoints("x/s", "web", "192.0.2.1", "{port: 8080, protocol: UDP}")],
            [],
            id="slice of another protocol",
        ),
        pytest.param(
            [WEB, endpoints("x/s", "web", "192.0.2.1", rest=", conditions: {ready: false}")],
            [],
            id="not ready",
        ),
        pytest.param(
            [
                WEB,
                endpoints(
                    "x/s",
                    "web",
                    "192.0.2.1",
                    rest=", conditions: {ready: false, serving: true, terminating: true}",
                ),
            ],
            ["192.0.2.1:8080"],
            id="terminating and still serving, where nobody is ready",
        ),
        pytest.param(
            [
                WEB,
                endpoints("x/r", "web", "192.0.2.2"),
                endpoints(
                    "x/s",
                    "web",
                    "192.0.2.1",
                    rest=", conditions: {ready: false, serving: true, terminating: true}",
                ),
            ],
            ["192.0.2.2:8080"],
            id="terminating, where somebody is ready",
        ),
    ],
)
def test_backends_are_those_of_slices_else_of_the_selector(
    texts: list[str], expected: list[str]
) -> None:
    assert backends(*PODS, *texts) == [f"10.96.0.9:80/TCP -> {end}" for end in expected]


def test_a_target_port_by_name_is_a_number_of_its_own_on_each_pod() -> None:
    spec = "clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80, targetPort: http}]"
    texts = [
        pod("x/a", "10.244.1.1", HTTP % 8080).replace("app: a", "app: web"),
        pod("x/b", "10.244.1.2", HTTP % 9090).replace("app: b", "app: web"),
        pod("x/c", "10.244.1.3").replace("app: c", "app: web"),
        service("x/web", spec),
    ]
    assert backends(*texts) == [
        "10.96.0.9:80/TCP -> 10.244.1.1:8080",
        "10.96.0.9:80/TCP -> 10.244.1.2:9090",
    ]


def test_each_cluster_ip_has_the_backends_of_its_family() -> None:
    spec = "clusterIPs: [10.96.0.9, 'fd00::9'], selector: {app: a}, ports: [{port: 80}]"
    assert backends(pod("x/a", "10.244.1.1 fd00::1"), service("x/a", spec)) == [
        "10.96.0.9:80/TCP -> 10.244.1.1:80",
        "fd00::9:80/TCP -> fd00::1:80",
    ]


def test_a_service_without_an_address_gets_the_same_one_on_every_run() -> None:
    text = service("x/web", "selector: {app: web}, ports: [{port: 80}]")
    first, second = (cluster(text).services[0].cluster_ips for _ in range(2))
    assert first == second
    assert {len(first), *(":" in ip for ip in first)} == {2, False, True}


def called(*texts: str, source: str = "x/client", target: str = "svc/x/web") -> str:
    return said(ask(cluster(*PODS, *texts), source, target))


@pytest.mark.parametrize("target", ["svc/x/web", "ip/10.96.0.9", "10.96.0.9"])
@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([], "FORWARDED egress=NOT_ISOLATED ingress=NOT_ISOLATED", id="no policy"),
        pytest.param(
            [policy("x/p", DENY % ("client", "Egress"))],
            "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED",
            id="egress of the client",
        ),
        pytest.param(
            [policy("x/p", DENY % ("web", "Ingress"))],
            "DROPPED egress=NOT_ISOLATED ingress=POLICY_DENIED",
            id="ingress of the backend",
        ),
        pytest.param(
            [
                policy(
                    "x/p",
                    f"{DENY % ('client', 'Egress')}, "
                    "egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]",
                )
            ],
            "FORWARDED egress=POLICY_ALLOWED ingress=NOT_ISOLATED",
            id="egress to the backend",
        ),
        pytest.param(
            [
                policy(
                    "x/p",
                    f"{DENY % ('client', 'Egress')}, "
                    "egress: [{to: [{ipBlock: {cidr: 10.96.0.9/32}}]}]",
                )
            ],
            "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED",
            id="a block of the ClusterIP opens nothing",
        ),
    ],
)
def test_a_call_to_a_cluster_ip_is_judged_as_a_call_to_its_backend(
    texts: list[str], expected: str, target: str
) -> None:
    assert called(WEB, *texts, target=target) == expected


TWO = service("x/two", "clusterIP: 10.96.0.8, selector: {app: two}, ports: [{port: 80}]")
PAIR = tuple(
    pod(f"x/{name}", ip).replace(f"app: {name}", f"app: two, name: {name}")
    for name, ip in (("good", "10.244.1.8"), ("bad", "10.244.1.9"))
)
CLOSE_BAD = policy("x/close", "podSelector: {matchLabels: {name: bad}}")


def test_the_worst_backend_decides_because_nobody_knows_which_one_it_will_be() -> None:
    assert called(TWO, *PAIR, target="svc/x/two").startswith("FORWARDED")
    assert called(TWO, *PAIR, CLOSE_BAD, target="svc/x/two") == (
        "DROPPED egress=NOT_ISOLATED ingress=POLICY_DENIED"
    )


def test_each_direction_fares_as_with_its_worst_backend() -> None:
    to_bad = f"{DENY % ('client', 'Egress')}, egress: [{{to: [{{podSelector: "
    to_bad += "{matchLabels: {name: bad}}}]}]"
    of = cluster(*PODS, *PAIR, TWO, CLOSE_BAD, policy("x/p", to_bad))
    assert said(ask(of, "x/client", "svc/x/two")) == (
        "DROPPED egress=POLICY_DENIED ingress=POLICY_DENIED"
    )


def test_a_trace_tells_of_each_backend() -> None:
    of = cluster(*PODS, *PAIR, TWO, CLOSE_BAD)
    question = single_question(of, "x/client", "svc/x/two", PortProtocol.parse("80"))
    found = trace(Evaluator(of), question)
    assert found.service == "x/two"
    told = {note.name: (note.address, note.port, note.cell.verdict) for note in found.backends}
    assert told == {
        "x/good": ("10.244.1.8", 80, Verdict.FORWARDED),
        "x/bad": ("10.244.1.9", 80, Verdict.DROPPED),
    }
    assert found.destination.name == "x/bad"
    assert found.ingress[0].rule == "x/close"


def test_a_port_that_the_service_does_not_have_is_the_plain_address() -> None:
    allow = (
        f"{DENY % ('client', 'Egress')}, egress: [{{to: [{{ipBlock: {{cidr: 10.96.0.0/16}}}}]}}]"
    )
    of = cluster(*PODS, WEB, policy("x/p", allow))
    assert said(ask(of, "x/client", "svc/x/web", "81/TCP")).startswith("FORWARDED")
    assert said(ask(of, "x/client", "svc/x/web", "80/UDP")).startswith("FORWARDED")
    assert said(ask(of, "x/client", "svc/x/web", "80/TCP")).startswith("DROPPED")


def test_the_wall_of_the_backend_stands_behind_a_service_too() -> None:
    of = cluster(
        pod("a-blue/web", "10.244.1.1"),
        pod("b-red/thief", "10.244.1.2"),
        service("a-blue/web", "clusterIP: 10.96.0.9, selector: {app: web}, ports: [{port: 80}]"),
        tenants=TENANTS,
    )
    assert said(ask(of, "b-red/thief", "svc/a-blue/web")).endswith("ingress=TENANT_WALL")


def test_a_slice_that_points_at_another_tenant_does_not_pass_its_wall() -> None:
    of = cluster(
        pod("a-blue/web", "10.244.1.1"),
        pod("b-red/thief", "10.244.1.2"),
        service("b-red/mine", "clusterIP: 10.96.0.9, ports: [{port: 80}]"),
        endpoints("b-red/deputy", "mine", "10.244.1.1", "{port: 80}"),
        tenants=TENANTS,
    )
    assert said(ask(of, "b-red/thief", "svc/b-red/mine")).endswith("ingress=TENANT_WALL")


@pytest.mark.parametrize("claimed", ["10.244.1.1", "192.168.0.2"])
def test_a_service_cannot_claim_the_address_of_a_pod_or_a_node(claimed: str) -> None:
    of = cluster(
        node("n", "192.168.0.2"),
        *PODS,
        service(
            "y/thief", f"clusterIP: {claimed}, selector: {{app: other}}, ports: [{{port: 80}}]"
        ),
        policy(
            "x/p", f"{DENY % ('client', 'Egress')}, egress: [{{to: [{{namespaceSelector: {{}}}}]}}]"
        ),
        policy("x/q", DENY % ("web", "Ingress")),
    )
    assert ask(of, "x/client", "y/other").verdict is Verdict.FORWARDED
    assert ask(of, "x/client", f"ip/{claimed}").verdict is Verdict.DROPPED


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param([], "FORWARDED egress=NOT_ISOLATED ingress=NOT_ISOLATED", id="no policy"),
        pytest.param(
            [policy("x/p", "podSelector: {}, ingress: [{from: [{podSelector: {}}]}]")],
            "DROPPED egress=NOT_ISOLATED ingress=POLICY_DENIED",
            id="it comes back with the node's address",
        ),
        pytest.param(
            [
                policy(
                    "x/p", "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.0/24}}]}]"
                )
            ],
            "FORWARDED egress=NOT_ISOLATED ingress=POLICY_ALLOWED",
            id="which a block can name",
        ),
        pytest.param(
            [policy("x/p", DENY % ("web", "Egress"))],
            "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED",
            id="egress to itself",
        ),
    ],
)
def test_a_pod_that_calls_itself_by_its_service_is_subject_to_policy(
    texts: list[str], expected: str
) -> None:
    of = cluster(node("n", "192.168.0.1"), pod("x/web", "10.244.1.1", "nodeName: n"), WEB, *texts)
    assert said(ask(of, "x/web", "svc/x/web")) == expected
    assert said(ask(of, "x/web", "x/web")) == "FORWARDED egress=SELF ingress=SELF"


def test_a_backend_on_its_nodes_network_is_the_node() -> None:
    host = pod("x/web", "192.168.0.2", "nodeName: m, hostNetwork: true")
    of = cluster(host, pod("x/client"), WEB, policy("x/p", DENY % ("client", "Egress")))
    assert said(ask(of, "x/client", "svc/x/web")) == (
        "DROPPED egress=POLICY_DENIED ingress=NOT_ISOLATED"
    )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("svc/x/nobody", "there is no Service svc/x/nobody; there are: svc/x/none, svc/x/web"),
        ("svc/x/none", r"Service svc/x/none has no ClusterIP \(None\); ask about its pods"),
    ],
)
def test_a_service_that_cannot_be_called_is_refused(target: str, words: str) -> None:
    headless = service("x/none", "clusterIP: None, ports: [{port: 80}]")
    of = cluster(*PODS, WEB, headless)
    with pytest.raises(BadQuestion, match=words):
        ask(of, "x/client", target)


def test_families_of_a_service_are_those_of_its_addresses() -> None:
    with pytest.raises(BadQuestion, match="do not both have an IPv6 address"):
        ask(cluster(*PODS, WEB), "x/client", "svc/x/web", family=Family.IPV6)


def test_the_trace_command_prints_the_backends(ringfence: Run) -> None:
    text = "\n---\n".join([*PODS, *PAIR, TWO, CLOSE_BAD])
    done = ringfence("trace", "x/client", "svc/x/two", "80", "-f", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert "  FORWARDED x/good at 10.244.1.8 port 80\n" in done.stdout
    assert "  DROPPED   x/bad at 10.244.1.9 port 80\n" in done.stdout
    done = ringfence("trace", "x/client", "svc/x/two", "80", "-f", "-", "-o", "json", stdin=text)
    listed = json.loads(done.stdout)["service"]["backends"]
    assert [(b["name"], b["verdict"]) for b in listed] == [
        ("x/good", "FORWARDED"),
        ("x/bad", "DROPPED"),
    ]


def test_backends_are_in_order() -> None:
    of = cluster(*PODS, *reversed(PAIR), TWO)
    (found,) = service_map(of.services, of.slices, of.pods).values()
    assert found == (Backend("10.244.1.8", 80), Backend("10.244.1.9", 80))
