"""HTTP rules of policies: which connections they judge together, and how a request fares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.datapath.engine import maps
from generators.cluster import Cluster, from_objects
from generators.labels import AUDIT_MODE, MODE_ANNOTATION
from generators.manifests import read
from generators.reachability.classes import evaluate
from generators.reachability.ends import BadQuestion
from generators.reachability.explain import Trace, trace
from generators.reachability.matrix import PortProtocol, cell_document, single_question
from generators.reachability.packets import Question
from generators.reachability.reference import Evaluator
from generators.reachability.requests import judge, parse_request
from generators.reachability.verdicts import Cell, Reason, Verdict
from tests.generators.builders import cluster, namespace, pod

STAR_WARS = Path(__file__).parents[3] / "examples/star-wars"
Engine = Callable[[Cluster, Iterable[Question]], Iterable[Cell]]
ENGINES = pytest.mark.parametrize("engine", [evaluate, maps], ids=["evaluate", "maps"])


def galaxy(policy: str) -> Cluster:
    return from_objects(read([str(STAR_WARS / "cluster.yaml"), str(STAR_WARS / policy)]))


def cell(engine: Engine, of: Cluster, source: str, destination: str, port: str = "80/TCP") -> Cell:
    question = single_question(of, source, destination, PortProtocol.parse(port))
    (found,) = engine(of, [question])
    return found


def request(found: Cell, text: str, *headers: str) -> tuple[Verdict, str | None]:
    """How a request fares, and the HTTP rule that let it pass."""
    judged = judge(found, parse_request(text, headers))
    return judged.verdict, judged.stages[-1].rule if judged.stages else None


@ENGINES
def test_the_empire_may_land_and_do_nothing_else(engine: Engine) -> None:
    of = galaxy("l7.yaml")
    tiefighter = cell(engine, of, "galaxy/tiefighter", "svc/galaxy/deathstar")
    assert (tiefighter.verdict, tiefighter.ingress.reason) == (Verdict.REDIRECTED, Reason.L7)
    rule = "galaxy/cnp:landing#ingress[0].toPorts[0].rules.http[0]"
    assert request(tiefighter, "POST /v1/request-landing") == (Verdict.FORWARDED, rule)
    assert request(tiefighter, "PUT /v1/exhaust-port") == (Verdict.DROPPED, None)
    xwing = cell(engine, of, "galaxy/xwing", "galaxy/deathstar-1")
    assert request(xwing, "POST /v1/request-landing") == (Verdict.DROPPED, None)


@ENGINES
def test_two_clients_of_one_port_are_judged_by_rules_of_their_own(engine: Engine) -> None:
    of = galaxy("two-paths.yaml")
    ships = {"tiefighter": "GET /v1/hangar", "xwing": "GET /v1/surrender"}
    for ship, own in ships.items():
        found = cell(engine, of, f"galaxy/{ship}", "galaxy/deathstar-2")
        passing = [text for text in ships.values() if request(found, text)[0] is Verdict.FORWARDED]
        assert passing == [own]


def judged(rules: str, more: str = "") -> Cluster:
    """Pods `n/a` (app=a) and `n/b`, and a policy of b with these rules of ingress."""
    text = (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: n}\n"
        f"spec: {{endpointSelector: {{matchLabels: {{app: b}}}}, ingress: {rules}}}\n---\n{more}"
    )
    return cluster(namespace("n"), pod("n/a", "10.244.1.1"), pod("n/b", "10.244.1.2"), text)


def entry(http: str = "", port: str = "port: '80'") -> str:
    rules = f", rules: {{http: [{http}]}}" if http else ""
    return f"{{ports: [{{{port}, protocol: TCP}}]{rules}}}"


APP_A = "fromEndpoints: [{matchLabels: {app: a}}]"
APP_Z = "fromEndpoints: [{matchLabels: {app: z}}]"
GET, PUT, RANGE = "{method: GET}", "{method: PUT}", "port: '79', endPort: 90"


@ENGINES
@pytest.mark.parametrize(
    ("rules", "methods"),
    [
        # Rules of all entries that cover peer and port add up.
        (f"[{{toPorts: [{entry(GET)}]}}, {{toPorts: [{entry(PUT)}]}}]", ["GET", "PUT"]),
        (f"[{{toPorts: [{entry(GET)}, {entry(PUT)}]}}]", ["GET", "PUT"]),
        (f"[{{toPorts: [{entry(GET)}, {entry(PUT, RANGE)}]}}]", ["GET", "PUT"]),
        (f"[{{{APP_A}, toPorts: [{entry(GET)}]}}, {{toPorts: [{entry(PUT)}]}}]", ["GET", "PUT"]),
        (f"[{{{APP_Z}, toPorts: [{entry(GET)}]}}, {{toPorts: [{entry(PUT)}]}}]", ["PUT"]),
        # What allows the packets lets all requests pass, wherever it stands.
        (f"[{{toPorts: [{entry(GET)}, {entry()}]}}]", None),
        (f"[{{toPorts: [{entry(GET)}]}}, {{fromEntities: [all]}}]", None),
        (f"[{{fromEntities: [cluster]}}, {{toPorts: [{entry(GET)}]}}]", None),
        # No HTTP rules are none.
        ("[{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: []}}]}]", None),
        (f"[{{toPorts: [{entry('{}')}]}}]", ["GET", "POST", "PUT"]),
    ],
)  # fmt: skip
def test_which_rules_judge_together(engine: Engine, rules: str, methods: list[str] | None) -> None:
    found = cell(engine, judged(rules), "n/a", "n/b")
    if methods is None:
        assert (found.verdict, found.ingress.reason) == (Verdict.FORWARDED, Reason.POLICY_ALLOWED)
        return
    assert found.verdict is Verdict.REDIRECTED
    asked = ["GET", "POST", "PUT"]
    assert [m for m in asked if request(found, f"{m} /")[0] is Verdict.FORWARDED] == methods


@ENGINES
def test_documents_say_that_packets_pass_and_name_what_judges(engine: Engine) -> None:
    found = cell(engine, judged(f"[{{toPorts: [{entry(GET)}]}}]"), "n/a", "n/b")
    written = cell_document(found)
    assert written["verdict"] == "FORWARDED"
    assert written["ingress"] == {
        "verdict": "FORWARDED",
        "reason": "L7",
        "rule": "n/cnp:p#ingress[0]",
        "policies": ["n/cnp:p"],
        "http": ["n/cnp:p#ingress[0].toPorts[0].rules.http[0]"],
    }


@ENGINES
def test_a_request_meets_both_ends_and_the_first_refusal_ends_it(engine: Engine) -> None:
    egress = (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: e, namespace: n}\n"
        "spec: {endpointSelector: {matchLabels: {app: a}}, egress: "
        f"[{{toPorts: [{entry(GET + ', ' + PUT)}]}}]}}\n"
    )
    found = cell(engine, judged(f"[{{toPorts: [{entry(GET)}]}}]", egress), "n/a", "n/b")
    rules = [f"n/cnp:{side}[0].toPorts[0].rules.http[0]" for side in ("e#egress", "p#ingress")]
    stages = judge(found, parse_request("GET /")).stages
    assert [stage.rule for stage in stages] == rules
    assert [s.rule is None for s in judge(found, parse_request("PUT /")).stages] == [False, True]
    assert [s.rule is None for s in judge(found, parse_request("POST /")).stages] == [True]


@ENGINES
def test_under_audit_http_is_not_judged(engine: Engine) -> None:
    of = judged(f"[{{toPorts: [{entry(GET)}]}}]")
    home = replace(of.namespaces["n"], annotations={MODE_ANNOTATION: AUDIT_MODE})
    found = cell(engine, replace(of, namespaces={**of.namespaces, "n": home}), "n/a", "n/b")
    assert (found.verdict, found.ingress.reason) == (Verdict.FORWARDED, Reason.POLICY_ALLOWED)
    assert found.ingress.rule == "n/cnp:p#ingress[0]"


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: s, namespace: n}
spec: {clusterIP: 10.96.0.1, selector: {kind: backend}, ports: [{port: 80}]}
"""


def backend(name: str, address: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: n, "
        f"labels: {{app: {name}, kind: backend}}}}\n"
        f"spec: {{}}\nstatus: {{phase: Running, podIPs: [{{ip: {address}}}]}}"
    )


@ENGINES
@pytest.mark.parametrize(
    ("to_c", "verdict"),
    [(GET, Verdict.DROPPED), ("", Verdict.REDIRECTED)],
    ids=["other rules", "no HTTP rules"],
)
def test_a_service_whose_backends_are_judged_otherwise_is_closed(
    engine: Engine, to_c: str, verdict: Verdict
) -> None:
    to = {"b": entry(PUT), "c": entry(to_c)}
    egress = ", ".join(
        f"{{toEndpoints: [{{matchLabels: {{app: {name}}}}}], toPorts: [{ports}]}}"
        for name, ports in to.items()
    )
    policy = (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: e, namespace: n}\n"
        f"spec: {{endpointSelector: {{matchLabels: {{app: a}}}}, egress: [{egress}]}}\n"
    )
    pods = (pod("n/a", "10.244.1.1"), backend("b", "10.244.1.2"), backend("c", "10.244.1.3"))
    of = cluster(namespace("n"), *pods, SERVICE, policy)
    found = cell(engine, of, "n/a", "svc/n/s")
    assert found.egress.verdict is verdict
    assert trace_of(of).cell.egress == found.egress


def trace_of(of: Cluster) -> Trace:
    question = single_question(of, "n/a", "svc/n/s", PortProtocol.parse("80/TCP"))
    return trace(Evaluator(of), question)


@pytest.mark.parametrize(
    ("text", "headers", "protocol"),
    [("PUT", (), "TCP"), ("PUT x", (), "TCP"), ("GET /", ("x",), "TCP"), ("GET /", (), "UDP")],
)
def test_a_question_that_is_none_says_how_to_ask(
    text: str, headers: tuple[str, ...], protocol: str
) -> None:
    with pytest.raises(BadQuestion, match="write "):
        parse_request(text, headers, protocol=protocol)
