"""Labs come, go, die half-way, live side by side; nothing is left, nothing else touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import created as ledgers
from lab import netns
from lab.created import Phase, State
from lab.names import NETNS_ROOT, Places
from tests.conftest import COMMAND
from tests.lab.builders import CLUSTER, TENANTS
from tests.lab.conftest import Lab
from tests.testbed.waiting import ended, eventually, kill

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

MakeLab = Callable[[], Lab]


def up(lab: Lab) -> Lab:
    lab.ok("up", "-c", TENANTS, "-f", CLUSTER)
    return lab


def test_down_leaves_nothing_behind(new_lab: MakeLab) -> None:
    lab = new_lab()
    assert lab.traces() == []
    up(lab)
    before = lab.traces()
    assert any(str(lab.places.pins) in trace for trace in before)
    assert any("process" in trace for trace in before)
    lab.ok("down")
    assert lab.traces() == []


def test_down_ends_what_was_started_inside_pods(new_lab: MakeLab) -> None:
    lab = up(new_lab())
    command = [str(COMMAND), "lab", "exec", "--name", lab.places.name, "app-test01/web"]
    shell = subprocess.Popen([*command, "--", "sleep", "600"])
    path = NETNS_ROOT / lab.places.pod_netns("app-test01", "web")
    wanted = path.stat().st_ino

    def is_inside() -> bool:
        return Path(f"/proc/{shell.pid}/ns/net").stat().st_ino == wanted

    eventually(is_inside)
    lab.ok("down")
    assert ended(shell) != 0
    assert lab.traces() == []


def test_down_of_a_lab_that_is_not_there_is_done(new_lab: MakeLab) -> None:
    lab = new_lab()
    done = lab("down")
    assert (done.returncode, lab.traces()) == (0, [])
    assert "there is no lab" in done.stderr


@pytest.mark.parametrize("command", ["status", "probe", "apply", "get"])
def test_a_lab_that_is_not_there_is_answered_with_how_to_start_it(
    new_lab: MakeLab, command: str
) -> None:
    lab = new_lab()
    arguments = {"apply": ("-f", str(CLUSTER)), "get": ("pods",)}.get(command, ())
    done = lab(command, *arguments)
    assert done.returncode == 1
    assert "ringfence lab up" in done.stderr
    assert lab.traces() == []


def test_killing_every_process_leaves_the_clients_apart(new_lab: MakeLab) -> None:
    lab = up(new_lab())
    before = lab.probe()
    for process in lab.status()["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    eventually(lambda: not lab.status()["processes"])
    after = lab.probe()
    assert {key: cell["verdict"] for key, cell in after.items()} == {
        key: cell["verdict"] for key, cell in before.items()
    }
    status = lab.status()
    assert status["notEnforced"] == []
    assert all(pod["enforced"] for pod in status["pods"])


def test_apply_after_a_massacre_starts_the_processes_again(new_lab: MakeLab) -> None:
    lab = up(new_lab())
    for process in lab.status()["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    lab.ok("apply", "-f", CLUSTER)
    assert len(lab.status()["processes"]) == 3
    assert lab.reaches("app-test02/web", "app-test01/web", "80/TCP") == {"DROPPED"}


def test_two_labs_of_equal_addresses_live_side_by_side(new_lab: MakeLab) -> None:
    first, second = up(new_lab()), up(new_lab())
    addresses = [[pod["addresses"] for pod in lab.status()["pods"]] for lab in (first, second)]
    assert addresses[0] == addresses[1]
    second.ok("delete", "pod", "app-test01/api")
    assert first.reaches("ingress/nginx", "app-test01/api", "80/TCP") == {"FORWARDED"}
    assert first.reaches("sandbox/visitor", "app-test01/api", "80/TCP") == {"DROPPED"}
    first.ok("down")
    assert first.traces() == []
    assert second.reaches("ingress/nginx", "app-test01/web", "80/TCP") == {"FORWARDED"}
    assert second.reaches("sandbox/visitor", "app-test01/web", "80/TCP") == {"DROPPED"}


def test_a_network_namespace_that_is_not_ours_is_left_alone(new_lab: MakeLab) -> None:
    lab = new_lab()
    foreign = lab.places.node_netns
    netns.create(foreign)
    try:
        for command, arguments in (("up", ("-f", str(CLUSTER))), ("down", ())):
            done = lab(command, *arguments)
            assert done.returncode == 1
            assert f"ip netns delete {foreign}" in done.stderr
            assert netns.names().count(foreign) == 1
    finally:
        netns.remove(foreign)
    assert lab.traces() == []


def test_pins_that_are_not_ours_are_left_alone(new_lab: MakeLab) -> None:
    lab = new_lab()
    lab.places.pins.mkdir(parents=True)
    try:
        done = lab("up", "-f", CLUSTER)
        assert done.returncode == 1
        assert "enforcer uninstall" in done.stderr
        assert lab.places.pins.is_dir()
    finally:
        lab.places.pins.rmdir()


def test_a_network_namespace_taken_away_is_told_and_down_still_works(new_lab: MakeLab) -> None:
    lab = up(new_lab())
    netns.remove(lab.places.pod_netns("app-test01", "web"))
    done = lab("probe")
    assert done.returncode == 1
    assert "ringfence lab down" in done.stderr
    assert "Traceback" not in done.stderr
    lab.ok("down")
    assert lab.traces() == []


def test_a_bad_tenant_file_starts_nothing(new_lab: MakeLab, tmp_path: Path) -> None:
    bad = tmp_path / "tenants.yaml"
    bad.write_text("tenants: {")
    lab = new_lab()
    done = lab("up", "-c", bad, "-f", CLUSTER)
    assert done.returncode == 1
    assert f"{bad}:1" in done.stderr
    assert lab.traces() == []


def test_a_bad_manifest_starts_nothing(new_lab: MakeLab) -> None:
    lab = new_lab()
    done = lab("up", "-f", "-", stdin="apiVersion: v1\nkind: Pod\nmetadata: {}\n")
    assert done.returncode == 2
    assert lab.traces() == []


def _seen(places: Places, wanted: Callable[[State], bool]) -> Callable[[], bool]:
    def condition() -> bool:
        ledger = ledgers.load(places)
        return ledger is not None and wanted(ledger.state)

    return condition


MOMENTS: dict[str, Callable[[State], bool]] = {
    "the ledger is written": lambda state: True,
    "the first process is noted": lambda state: len(state.processes) > 0,
    "all processes are noted": lambda state: len(state.processes) > 3,
    "the webhook answers": lambda state: state.webhook is not None,
    "pods are about to be made": lambda state: len(state.netns) > 1,
    "pods are connected": lambda state: len(state.wires) > 0,
    "it is up": lambda state: state.phase is Phase.UP,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_killed_half_way_is_cleaned_up_by_the_next_command(
    new_lab: MakeLab, moment: str
) -> None:
    lab = new_lab()
    command = [str(COMMAND), "lab", "up", "--name", lab.places.name]
    started = subprocess.Popen(
        [*command, "-c", str(TENANTS), "-f", str(CLUSTER)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(_seen(lab.places, MOMENTS[moment]), poll=0.005)
    kill(started)
    ledger = ledgers.load(lab.places)
    assert ledger is not None
    if ledger.state.phase is Phase.UP:
        assert lab("probe").returncode == 0
        lab.ok("down")
    else:
        assert lab("status").returncode == 1
    assert lab.traces() == []


def test_up_begins_anew_over_the_remains_of_a_killed_one(new_lab: MakeLab) -> None:
    lab = new_lab()
    command = [str(COMMAND), "lab", "up", "--name", lab.places.name, "-f", str(CLUSTER)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(_seen(lab.places, MOMENTS["pods are about to be made"]), poll=0.005)
    kill(started)
    up(lab)
    assert lab.reaches("app-test02/web", "app-test01/web", "80/TCP") == {"DROPPED"}


def test_apply_killed_half_way_is_finished_by_the_next_one(new_lab: MakeLab) -> None:
    lab = up(new_lab())
    more = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "more", "namespace": "app-test01"},
            "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]},
        }
    )
    command = [str(COMMAND), "lab", "apply", "--name", lab.places.name, "-f", "-"]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert started.stdin is not None
    started.stdin.write(more.encode())
    started.stdin.close()
    name = lab.places.pod_netns("app-test01", "more")
    eventually(_seen(lab.places, lambda state: name in state.netns), poll=0.005)
    kill(started)
    assert lab.apply(more).returncode == 0
    assert lab.reaches("ingress/nginx", "app-test01/more", "80/TCP") == {"FORWARDED"}
    assert lab.reaches("app-test02/web", "app-test01/more", "80/TCP") == {"DROPPED"}
