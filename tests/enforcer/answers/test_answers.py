"""Every question to a live agent: the shapes that people know, with true answers behind them."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
import yaml

from enforcer.answers import control
from enforcer.datapath.maps import Maps
from enforcer.policy.tables import MapWrite, Table
from tests.enforcer.answers.conftest import (
    GREEN_LINE,
    RED_LINE,
    Answering,
    documents,
    scrape,
)
from tests.enforcer.node import PORT
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

Json = dict[str, object]


def asked(answering: Answering, *arguments: str, code: int = 0) -> Json:
    done = answering.ask(*arguments, "-o", "json")
    assert done.returncode == code, done.stderr
    return cast(Json, json.loads(done.stdout))


def rows(answering: Answering, *arguments: str) -> list[Json]:
    return cast(list[Json], asked(answering, *arguments))


def wait_until(answering: Answering, holds: Callable[[Json], bool]) -> None:
    eventually(
        lambda: holds(control.ask(answering.node.run_dir, {"command": "status"})), "the status"
    )


def number_of(answering: Answering, pod: str) -> str:
    return str(asked(answering, "endpoint", "get", pod)["id"])


def test_nodes_are_listed_and_this_one_with_the_flows_that_it_keeps(answering: Answering) -> None:
    own, other = rows(answering, "list", "nodes")
    assert other == {"name": "there", "addresses": ["192.168.0.2"], "state": "unknown"}
    assert (own["name"], own["state"], own["addresses"]) == ("here", "connected", [])
    assert 8 <= cast(int, own["num_flows"]) <= cast(int, own["seen_flows"])
    head, shown, unknown = answering.ask("list", "nodes").stdout.splitlines()
    assert head.split() == ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS", "ADDRESSES"]
    assert re.match(r"here +Connected +[0-9ms]+ +\d+\.\d\d +\d+/4096 \(\d+\.\d\d%\) +-", shown)
    assert unknown.split() == ["there", "Unknown", "N/A", "N/A", "N/A", "192.168.0.2"]


def test_namespaces_of_flows_are_listed_with_their_tenant(answering: Answering) -> None:
    found = {row.pop("namespace"): row for row in rows(answering, "list", "namespaces")}
    flows = [
        json.loads(text)
        for text in answering.ask("observe", "--all", "-o", "json").stdout.splitlines()
    ]
    assert {name: row["tenant"] for name, row in found.items()} == {
        "t1": "red",
        "t2": "blue",
        "t3": "green",
    }
    for name, row in found.items():
        own = [
            flow["flow"]
            for flow in flows
            if name
            in (
                flow["flow"]["source"].get("namespace"),
                flow["flow"]["destination"].get("namespace"),
            )
        ]
        dropped = [flow for flow in own if flow["verdict"] == "DROPPED"]
        assert (row["flows"], row["dropped"]) == (len(own), len(dropped))


def test_endpoint_list_shows_tenant_and_enforcement(answering: Answering) -> None:
    shown = {
        f"{row['namespace']}/{row['pod']}": (row["tenant"], cast(Json, row["policy"])["ingress"])
        for row in rows(answering, "endpoint", "list")
    }
    assert shown == {
        "t1/a": ("red", "Enabled"),
        "t1/c": ("red", "Enabled"),
        "t2/b": ("blue", "Enabled"),
        "t3/d": ("green", "Disabled (Audit)"),
    }


def test_endpoint_get_takes_a_name_or_a_number_and_names_who_isolates(
    answering: Answering,
) -> None:
    found = asked(answering, "endpoint", "get", "t1/a")
    assert asked(answering, "endpoint", "get", str(found["id"]))["pod"] == "a"
    isolated = cast(dict[str, list[Json]], found["isolatedBy"])
    assert [item["name"] for item in isolated["ingress"]] == ["t1/deny-api"]
    assert isolated["egress"] == []
    (wall,) = cast(list[Json], found["tenantWall"])
    assert wall == {"name": "tenant/red#wall", "source": f"{answering.tenants}:{RED_LINE}"}
    revision = cast(Json, found["revision"])
    assert revision["desired"] == revision["realized"]
    drops = {
        (item["reason"], item["packets"])
        for item in cast(list[Json], found["counters"])
        if item["verdict"] == "DROPPED"
    }
    assert drops == {("TENANT_WALL", 1), ("POLICY_DENIED", 1)}


def test_an_unknown_endpoint_is_refused_with_what_to_do(answering: Answering) -> None:
    done = answering.ask("endpoint", "get", "t9/nobody")
    assert done.returncode == 2
    assert "no endpoint t9/nobody on this node; see `ringfence endpoint list`" in done.stderr


def test_endpoint_log_and_health_tell_how_it_came_to_be(answering: Answering) -> None:
    messages = [row["message"] for row in rows(answering, "endpoint", "log", "t1/a")]
    assert "in the maps" in messages
    assert any(str(message).startswith("programs attached (tc") for message in messages)
    assert asked(answering, "endpoint", "health", "t1/a")["healthy"] is True


def test_policy_get_ends_with_the_revision_and_names_the_source_of_each_rule(
    answering: Answering,
) -> None:
    done = answering.ask("policy", "get", "t1/allow-web")
    text, _, last = done.stdout.rstrip("\n").rpartition("\n")
    assert re.fullmatch(r"Revision: \d+", last)
    (policy,) = json.loads(text)
    (rule,) = policy["rules"]
    assert rule["rule"] == "t1/allow-web#ingress[0]"
    assert rule["source"]["origin"].endswith("cluster.json:1")
    assert policy["endpoints"] == ["t1/c"]
    everything = asked(answering, "policy", "get")
    walls = {str(wall["rule"]): wall for wall in cast(list[Json], everything["tenantWalls"])}
    assert walls["tenant/green#wall"]["origin"] == f"{answering.tenants}:{GREEN_LINE}"


def test_policy_wait_returns_at_once_or_names_the_laggards(answering: Answering) -> None:
    revision = cast(int, asked(answering, "policy", "get")["revision"])
    assert asked(answering, "policy", "wait", str(revision))["realized"] is True
    late = asked(answering, "policy", "wait", str(revision + 1), "--timeout", "0.1", code=1)
    assert late["realized"] is False
    assert late["laggards"]


def test_policy_selectors_count_users_and_pods(answering: Answering) -> None:
    on_trial, selector = rows(answering, "policy", "selectors")
    # What would isolate a tenant under audit is judged by, too.
    assert on_trial["selector"] == "pods <all> in namespaces ringfence.io/tenant=green"
    assert (on_trial["users"], on_trial["pods"]) == (1, 1)
    assert selector["selector"] == "pods <all> of namespace t1"
    assert (selector["users"], selector["pods"]) == (1, 2)
    assert selector["identities"]


def test_identities_say_what_their_pods_have_in_common(answering: Answering) -> None:
    listed = rows(answering, "identity", "list")
    assert {1, 2, 6} <= {row["id"] for row in listed}
    blue = next(row for row in listed if row["tenant"] == "blue")
    assert "k8s:app=b" in cast(list[str], blue["labels"])
    assert asked(answering, "identity", "get", str(blue["id"]))["members"] == ["t2/b"]


def test_bpf_policy_shows_the_kernels_entries_with_counts_and_rules(
    answering: Answering,
) -> None:
    entries = rows(answering, "bpf", "policy", "get", "t1/c")
    allowed = [e for e in entries if e["rule"] == "t1/allow-web#ingress[0]"]
    assert {e["ports"] for e in allowed} == {"8080/TCP"}
    assert any(e["packets"] for e in allowed)
    assert any(e["stage"] == "wall" and e["rule"] == "tenant/red#own" for e in entries)
    by_number = answering.ask("bpf", "policy", "get", number_of(answering, "t1/c"), "-n")
    assert "IDENTITY" in by_number.stdout


def test_the_kernel_holds_what_the_agent_wants(answering: Answering) -> None:
    done = answering.ask("bpf", "policy", "list", "--diff")
    assert (done.returncode, done.stdout) == (0, "The kernel holds what the agent wants.\n")


def test_bpf_lists_know_names(answering: Answering) -> None:
    connections = rows(answering, "bpf", "ct", "list", "--endpoint", "t1/c")
    assert any(c["rule"] == "t1/allow-web#ingress[0]" for c in connections)
    owners = {row["address"]: row["tenant"] for row in rows(answering, "bpf", "ipcache", "list")}
    assert owners["10.7.0.2"] == "blue"
    assert {row["pod"] for row in rows(answering, "bpf", "endpoint", "list")} == {
        *("t1/a", "t1/c", "t2/b", "t3/d"),
    }
    counted = {
        (row["reason"], row["verdict"], row["tenant"]): row["packets"]
        for row in rows(answering, "bpf", "metrics", "list")
    }
    assert counted["TENANT_WALL", "DROPPED", "red"] == 1
    assert cast(int, counted["TENANT_WALL", "AUDIT", "green"]) >= 1


def test_every_drop_line_names_tenant_policy_or_wall(answering: Answering) -> None:
    drops = answering.ask("monitor", "-t", "drop", "--last", "99", "--no-follow").stdout
    assert [line.rpartition(" (")[2] for line in drops.splitlines()] == [
        f"rule tenant/red#wall at {answering.tenants}:{RED_LINE})",
        f"isolated by t1/deny-api at {answering.node.manifests}/cluster.json:1)",
        f"rule tenant/blue#wall at {answering.tenants}:6)",
    ]


def test_monitor_narrows_to_endpoints(answering: Answering) -> None:
    arguments = ("monitor", "--last", "99", "--no-follow", "-j", "--related-to", "t3/d")
    lines = [json.loads(line) for line in answering.ask(*arguments).stdout.splitlines()]
    assert {line["flow"]["destination"]["namespace"] for line in lines} == {"t3"}


def test_trace_of_the_live_node_shows_intent_and_maps(answering: Answering) -> None:
    done = answering.ask("trace", "t2/b", "t1/a", "8080/TCP", "--live", "--expect", "DROPPED")
    assert done.returncode == 0, done.stderr
    assert "ingress at t1/a: DROPPED (TENANT_WALL, tenant/red#wall)" in done.stdout
    assert "DISAGREEMENT" not in done.stdout
    found = asked(answering, "trace", "t1/a", "t1/c", "8080/TCP", "--live")
    assert (found["verdict"], found["agrees"]) == ("FORWARDED", True)
    assert len(cast(list[object], found["live"])) == 2


@pytest.fixture
def tampered(answering: Answering) -> Iterator[Answering]:
    """Somebody has removed the entries of a rule from the kernel's map."""
    (pins,) = answering.node.pin_dir.glob("v*")
    with Maps.open(pins) as maps:
        entries = {key: rule for key, rule in maps.read().policy.items() if key.port == PORT}
        assert entries
        maps.apply(MapWrite(Table.POLICY, key, None) for key in entries)
        try:
            yield answering
        finally:
            maps.apply(MapWrite(Table.POLICY, key, rule) for key, rule in entries.items())


def test_a_kernel_that_does_not_do_what_is_wanted_is_told_loudly(tampered: Answering) -> None:
    difference = tampered.ask("bpf", "policy", "list", "--diff")
    assert difference.returncode == 1
    assert "pol_map   missing" in difference.stdout
    done = tampered.ask("trace", "t1/a", "t1/c", "8080/TCP", "--live")
    assert done.returncode == 1
    assert "DISAGREEMENT: the agent wants FORWARDED" in done.stdout
    assert "the kernel does not do what the agent wants" in done.stderr


def test_a_node_proves_that_policies_entries_and_maps_agree(answering: Answering) -> None:
    found = asked(answering, "prove", "--node", "here", code=1)
    assert (found["apart"], found["agrees"], found["drift"]) == (False, True, [])
    (example, *_) = cast(list[dict[str, object]], found["counterexamples"])
    # Green's namespace is under audit: whoever knocks there is only reported.
    assert (example["destination"], example["kind"]) == ("t3/d", "open")
    assert example["verdicts"] == {"policies": "AUDIT", "entries": "AUDIT", "maps": "AUDIT"}
    assert example["replayed"] == "AUDIT"


def test_a_proof_notices_what_somebody_took_out_of_a_map(tampered: Answering) -> None:
    done = tampered.ask("prove", "--node", "here")
    assert done.returncode == 1
    assert "pol_map: missing" in done.stdout
    found = asked(tampered, "prove", "--node", "here", code=1)
    disputed = [
        each
        for each in cast(list[dict[str, object]], found["counterexamples"])
        if each["kind"] == "differs"
    ]
    verdicts = {"policies": "FORWARDED", "entries": "FORWARDED", "maps": "DROPPED"}
    assert [each["verdicts"] for each in disputed] == [verdicts] * len(disputed) != []


def test_a_proof_of_another_node_is_asked_for_there(answering: Answering) -> None:
    done = answering.ask("prove", "--node", "elsewhere")
    assert done.returncode == 2
    assert "this is the agent of node here" in done.stderr
    done = answering.ask("prove", "--node", "here", "-f", "x.yaml")
    assert "--node uses the agent's own inputs" in done.stderr


def test_trace_live_takes_no_inputs_of_its_own(answering: Answering) -> None:
    done = answering.ask("trace", "t2/b", "t1/a", "80/TCP", "--live", "-f", "x.yaml")
    assert done.returncode == 2
    assert "--live uses the agent's own inputs" in done.stderr


def test_the_audit_report_puts_would_be_drops_together(answering: Answering) -> None:
    found = asked(answering, "audit", "report")
    (flow,) = cast(list[Json], found["flows"])
    assert (flow["subject"], flow["peer"], flow["port"]) == ("t3/d", "t2/statefulset/b", 8080)
    assert flow["by"] == ["tenant/green#wall"]
    assert flow["source"] == [f"{answering.tenants}:{GREEN_LINE}"]
    (total,) = cast(list[Json], found["totals"])
    assert (total["pod"], total["by"]) == ("t3/d", ["tenant/green#wall"])
    assert cast(int, total["packets"]) >= cast(int, flow["flows"])
    assert cast(str, flow["firstSeen"]) <= cast(str, flow["lastSeen"])
    assert (found["forgotten"], found["lost"]) == ({}, 0)
    assert "REFUSED BY" in answering.ask("audit", "report").stdout
    grants = answering.ask("audit", "report", "--grants").stdout
    assert yaml.safe_load(grants)["tenants"][0]["name"] == "blue"


def test_status_is_one_screen_and_exits_0_when_all_is_well(answering: Answering) -> None:
    done = answering.ask("status", "-v")
    assert done.returncode == 0, done.stdout
    for word in ("Attached", "Drift", "Sources", "Map pol_map", "Source manifests"):
        assert word in done.stdout
    assert asked(answering, "status")["problems"] == []


@pytest.mark.parametrize(
    "command",
    [
        ("endpoint", "list"),
        ("endpoint", "log", "t1/a"),
        ("identity", "list"),
        ("policy", "selectors"),
        ("bpf", "policy", "list"),
        ("bpf", "ct", "list"),
        ("bpf", "ipcache", "list"),
        ("bpf", "endpoint", "list"),
        ("bpf", "metrics", "list"),
    ],
    ids=" ".join,
)
def test_every_list_has_a_head_that_can_be_left_out(
    answering: Answering, command: tuple[str, ...]
) -> None:
    whole = answering.ask(*command).stdout.splitlines()
    bare = answering.ask(*command, "--no-headers").stdout.splitlines()
    assert 0 < len(bare) < len(whole)


def test_yaml_says_the_same_as_json(answering: Answering) -> None:
    told = yaml.safe_load(answering.ask("endpoint", "list", "-o", "yaml").stdout)
    assert told == rows(answering, "endpoint", "list")


def test_a_sysdump_holds_every_answer_and_no_annotation(
    answering: Answering, tmp_path: Path
) -> None:
    path = tmp_path / "dump.tar.gz"
    assert answering.ask("sysdump", "--output-file", str(path)).stdout == f"{path}\n"
    assert path.stat().st_mode & 0o077 == 0
    with tarfile.open(path) as archive:
        names = archive.getnames()
        files = {name: archive.extractfile(name) for name in names}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    assert {"ringfence-sysdump/status.json", "ringfence-sysdump/flows.json"} <= set(names)
    assert "annotations" not in "".join(texts.values())
    assert not [name for name, text in texts.items() if name.endswith("s.json") and not text]


def test_healthz_and_readyz_answer_beside_the_metrics(answering: Answering) -> None:
    assert scrape(answering.node, "/healthz") == (200, "ok\n")
    assert scrape(answering.node, "/readyz") == (200, "ok\n")
    assert scrape(answering.node, "/else")[0] == 404


def test_readyz_lists_every_reason_and_status_exits_1(answering: Answering) -> None:
    node = answering.node
    broken = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "UPPER"}}
    before = asked(answering, "status")["manifests"]
    node.write(broken, file="broken.json")
    try:
        wait_until(answering, lambda status: status["manifests"] != before)
        code, body = scrape(node, "/readyz")
        assert code == 503
        assert "broken.json" in body
        assert answering.ask("status").returncode == 1
    finally:
        (node.manifests / "broken.json").unlink()
    node.write(*documents(node))
    wait_until(answering, lambda status: status["problems"] == [])
