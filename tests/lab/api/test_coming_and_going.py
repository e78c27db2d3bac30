"""Labs on an API server come and go: with everything, or with only their nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import created as ledgers
from lab.created import State
from lab.names import Shape
from tests.conftest import COMMAND, Run
from tests.lab.api.hollow import ApiLab, fresh_lab, joined, nodes_of
from tests.lab.builders import CLUSTER, TENANTS, namespace, pod
from tests.lab.conftest import key_of
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually, kill


@pytest.fixture
def lab(ringfence: Run) -> Iterator[ApiLab]:
    with fresh_lab(ApiLab, ringfence) as made:
        yield made


def test_without_programs_of_a_control_plane_it_says_where_they_come_from(
    lab: ApiLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    done = lab.up("--api-server")
    assert done.returncode == 3
    for way in ("make testbed", "KUBEBUILDER_ASSETS", "--kubeconfig FILE"):
        assert way in done.stderr
    assert lab.traces() == []


@pytest.mark.bpf
@pytest.mark.parametrize(
    ("content", "why"),
    [("", "no cluster can be read"), ("{clusters: [], contexts: []}", "no cluster can be read")],
    ids=["empty", "without context"],
)
def test_a_kubeconfig_that_is_none_starts_nothing(
    lab: ApiLab, tmp_path: Path, content: str, why: str
) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    done = lab.up("--kubeconfig", file)
    assert done.returncode == 2
    assert f"{file}:1" in done.stderr
    assert why in done.stderr
    assert lab.traces() == []


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_a_joined_lab_adds_nodes_and_takes_them_away(api: ControlPlane, ringfence: Run) -> None:
    with joined(ringfence, api) as lab:
        space = f"{lab.places.name}-joined"
        here = pod(f"{space}/a").replace("spec: {", f"spec: {{nodeName: {lab.places.name}-1, ")
        assert f"{lab.places.name}-1" in nodes_of(api)
        lab.make(namespace(space) + here, f"{space}/a")
        assert lab.reaches(f"{space}/a", f"{space}/a", "80/TCP") == {"FORWARDED"}
        lab.ok("down")
        assert lab.traces() == []
        assert f"{lab.places.name}-1" not in nodes_of(api)
        assert api.kubectl("get", "pods", "-n", space, "-o", "name") == ""


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_a_tenant_file_without_a_record_is_told_to_keep_nobody_apart(
    api: ControlPlane, ringfence: Run, tmp_path: Path
) -> None:
    """No controller has ever run here: every packet passes, and everything says so."""
    file = tmp_path / "tenants.yaml"
    file.write_text(
        "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\ntenants:\n"
        "  - name: one\n    namespaces: {names: [default]}\n"
        '  - name: two\n    namespaces: {suffixes: ["-two-of-nobody"]}\n'
    )
    with fresh_lab(ApiLab, ringfence) as lab:
        done = lab.up("--kubeconfig", api.kubeconfig(), "--nodes", "1", "-c", file)
        assert done.returncode == 0, done.stderr
        said = "no record of tenants: tenants are not isolated; by their names, 1 of 2 tenants"
        assert said in done.stderr
        run = lab.places.node(f"{lab.places.name}-1").enforcer_run
        status = ringfence("status", "--run-dir", run).stdout
        assert "Enforcement" in status
        assert "OK" not in next(row for row in status.splitlines() if "Enforcement" in row)
        assert said in status


def _curl(netns: str, address: str) -> bool:
    """Whether port 80 answers somebody in that network namespace."""
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    command = ["ip", "netns", "exec", netns, "curl", "-gs", "--max-time", "2", url]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("shape", [Shape.PTP, Shape.BRIDGE])
def test_packets_of_two_nodes_fare_the_same_however_their_pods_are_wired(
    programs: None, lab: ApiLab, ringfence: Run, shape: Shape
) -> None:
    done = lab.up("--api-server", "--network", shape, "-c", TENANTS, "-f", CLUSTER)
    assert done.returncode == 0, done.stderr
    asked = ringfence("matrix", "-o", "json", "-c", TENANTS, "-f", CLUSTER)
    wanted = {key_of(cell): cell["verdict"] for cell in json.loads(asked.stdout)["cells"]}
    found = {key: cell["verdict"] for key, cell in lab.probe().items() if key in wanted}
    assert found == wanted
    nodes = [lab.places.node(f"{lab.places.name}-{number}") for number in (1, 2)]
    web = lab.held()["app-test01/web"]
    for address in web.addresses:
        answers = [_curl(node.netns, address) for node in nodes]
        assert sorted(answers) == [False, True], "its own node enters, as a kubelet's probe does"


def _killed_when(lab: ApiLab, seen: Callable[[State], bool]) -> None:
    """Start a lab and kill the command half-way."""
    command = [str(COMMAND), "lab", "up", "--name", lab.places.name, "--api-server"]
    started = subprocess.Popen(
        [*command, "--nodes", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def reached() -> bool:
        ledger = ledgers.load(lab.places)
        return ledger is not None and seen(ledger.state)

    eventually(reached, "half-way", 60)
    kill(started)


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_up_killed_half_way_is_cleaned_up_by_the_next_command(programs: None, lab: ApiLab) -> None:
    _killed_when(lab, lambda state: state.process("kube-apiserver") is not None)
    assert lab("status").returncode == 1
    assert lab.traces() == []


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_down_leaves_nothing_behind_after_a_massacre(programs: None, lab: ApiLab) -> None:
    done = lab.up("--api-server", "--nodes", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{lab.places.kubeconfig}\n"
    lab.make(namespace("a") + pod("a/one"), "a/one")
    for process in lab.status()["processes"][::2]:
        os.kill(process["pid"], signal.SIGKILL)
    lab.ok("down")
    assert lab.traces() == []


def _file(folder: Path, tenant: str) -> Path:
    file = folder / f"{tenant}.yaml"
    file.write_text(
        "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\nlabelKey: client\ntenants:\n"
        f'  - {{name: {tenant}, namespaces: {{suffixes: ["-{tenant}"]}}}}\n'
    )
    return file


@pytest.mark.bpf
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_lab_takes_a_tenant_file_later_and_then_another(
    programs: None, lab: ApiLab, tmp_path: Path
) -> None:
    assert lab.up("--api-server", "--nodes", "1").returncode == 0
    lab.kubectl("create", "namespace", "a-one")
    lab.kubectl("create", "namespace", "a-two")

    def clients() -> dict[str, str]:
        found = json.loads(lab.kubectl("get", "namespaces", "-o", "json"))["items"]
        labels = {n["metadata"]["name"]: n["metadata"]["labels"] for n in found}
        return {name: has["client"] for name, has in labels.items() if "client" in has}

    assert clients() == {}
    lab.ok("apply", "-c", _file(tmp_path, "one"))
    assert clients() == {"a-one": "one"}
    lab.ok("apply", "-c", _file(tmp_path, "two"))
    # Tenant one has left the file, so its namespace is in quarantine and keeps the label.
    labelled = {"a-one": "one", "a-two": "two"}
    assert clients() == labelled
    # One that is refused changes nothing.
    broken = _file(tmp_path, "Three")
    refused = lab("apply", "-c", broken)
    assert (refused.returncode, f"{broken}:5" in refused.stderr) == (1, True), refused
    assert clients() == labelled
    ledger = ledgers.load(lab.places)
    assert ledger is not None
    assert ledger.state.config == str(tmp_path / "two.yaml")
