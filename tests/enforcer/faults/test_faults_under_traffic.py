"""Whatever happens to the agent: no packet of a good connection is lost, no stranger's enters."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.answers import control
from tests.enforcer.faults.traffic import Traffic, unharmed
from tests.enforcer.node import Document, Node, deny_ingress, stop
from tests.testbed.waiting import ended, eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("generators", "enforcer", "lab", "bpf")
GRACE = "/* monotonic clock; counts only with EP_GRACE */"
TENURE = "/* of the remote address then */"
MAIN = "from generators.cli import main; main()"


def opened_to(number: int) -> Document:
    """A NetworkPolicy for the isolated pod, which opens a port that nobody uses."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "changing", "namespace": "t1"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 20000 + number}]}],
        },
    }


def isolated(node: Node, number: int = 0) -> tuple[Document, ...]:
    return (*node.pods(), deny_ingress("t1"), opened_to(number))


def in_force(node: Node, agent: subprocess.Popen[bytes], number: int = 0) -> None:
    """Return when the agent enforces the pods and that policy."""
    answer = node.wait(node.write(*isolated(node, number)), agent)
    assert answer.get("error") is None
    assert answer["notEnforced"] == []


def entries(node: Node) -> object:
    """How full each map is."""
    return status_of(node)["maps"]


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_restart(node: Node, family: int) -> None:
    agent = node.start()
    in_force(node, agent)
    with Traffic(node, family).started() as traffic:
        for _ in range(3):
            assert stop(agent) == 0
            traffic.wait_for_more(50)
            agent = node.start()
            in_force(node, agent)
    assert unharmed(traffic.tally), traffic.tally


def test_kill_in_the_middle_of_policy_changes(node: Node) -> None:
    agent = node.start()
    in_force(node, agent)
    with Traffic(node).started() as traffic:
        for number in range(1, 5):
            node.write(*isolated(node, number))
            traffic.wait_for_more(number)  # a moment that differs from round to round
            assert stop(agent, signal.SIGKILL) == -signal.SIGKILL
            agent = node.start()
            in_force(node, agent, number)
    assert unharmed(traffic.tally), traffic.tally


def test_a_thousand_policy_changes_a_minute(node: Node) -> None:
    """A hundred of them here, as fast as they come; the maps are no fuller afterwards."""
    agent = node.start()
    in_force(node, agent)
    before = entries(node)
    with Traffic(node).started() as traffic:
        for number in range(1, 100):
            node.write(*isolated(node, number))
            traffic.wait_for_more(1)
        in_force(node, agent)
    assert unharmed(traffic.tally), traffic.tally
    assert entries(node) == before


def test_node_that_has_rebooted(node: Node) -> None:
    """Nothing is pinned any more, the run directory is still there."""
    agent = node.start()
    in_force(node, agent)
    assert stop(agent, signal.SIGKILL) == -signal.SIGKILL
    shutil.rmtree(node.pin_dir)
    eventually(lambda: node.reaches("t3/c", "t1/a"), "the pins were all that enforced")
    agent = node.start()
    in_force(node, agent)
    assert not node.reaches("t3/c", "t1/a")
    assert node.reaches("t1/a", "t2/b")


def test_pins_that_somebody_removes_under_a_running_agent(node: Node) -> None:
    """The programs go with them; the agent notices, and begins anew in the same process."""
    agent = node.start()
    in_force(node, agent)
    answer = subprocess.run(uninstall(node), capture_output=True, text=True)
    assert answer.returncode != 0
    assert "end it first" in answer.stderr
    for _ in range(2):
        pinned = versions_pinned(node)
        shutil.rmtree(node.pin_dir)
        eventually(lambda before=pinned: versions_pinned(node) == before, "pinned again")  # type: ignore[misc]
        in_force(node, agent)
        assert not node.reaches("t3/c", "t1/a")
        assert node.reaches("t1/a", "t2/b")
    log = node.log
    assert log.count(f"the pins below {node.pin_dir} were removed") == 2
    assert "Traceback" not in log
    assert stop(agent) == 0
    subprocess.run(uninstall(node), check=True)
    assert not node.pin_dir.exists()


def uninstall(node: Node) -> list[str]:
    run = node.arguments()
    return [*run[: run.index("run")], "uninstall", "--pin-dir", str(node.pin_dir)]


# --- another version ----------------------------------------------------------------------------


def another_version(directory: Path) -> Path:
    """A copy of the product whose maps are laid out in another way: two structs have grown."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, directory / package, ignore=ignored)
    rewrite(
        directory / "bpf/lib/layout.h",
        (f"__u64 grace_until; {GRACE}", f"__u64 grace_until; {GRACE} __u64 spare;"),
        ("sizeof(struct endpoint) == 88", "sizeof(struct endpoint) == 96"),
        (f"__u64 tenure; {TENURE}", f"__u64 tenure; {TENURE} __u64 spare;"),
        ("sizeof(struct ct_value) == 48", "sizeof(struct ct_value) == 56"),
    )
    spare = '        ("spare", ctypes.c_uint64),\n'
    tenure = '        ("tenure", ctypes.c_uint64),\n'
    grace = '        ("grace_until", ctypes.c_uint64),\n'
    rewrite(
        directory / "enforcer/datapath/layout.py", (grace, grace + spare), (tenure, tenure + spare)
    )
    return directory


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


def start_version(node: Node, directory: Path, *more: str) -> subprocess.Popen[bytes]:
    """The agent of a copy of the product."""
    arguments = node.arguments(*more)
    at = next(i for i, argument in enumerate(arguments) if argument.endswith("/ringfence"))
    arguments[at : at + 1] = [sys.executable, "-c", MAIN]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    return node.begin(arguments, directory, environment)


@pytest.mark.parametrize("grown", ["the new", "the old"])
def test_upgrade_to_another_layout(
    node: Node, tmp_path_factory: pytest.TempPathFactory, grown: str
) -> None:
    """And back: a downgrade is an upgrade to something older."""
    versions = [ROOT, another_version(tmp_path_factory.mktemp("version"))]
    old, new = versions if grown == "the new" else reversed(versions)
    agent = start_version(node, old)
    in_force(node, agent)
    (pins,) = versions_pinned(node)
    with Traffic(node).started() as traffic:
        assert stop(agent) == 0
        agent = start_version(node, new)
        in_force(node, agent)
        traffic.wait_for_more(100)
    assert unharmed(traffic.tally), traffic.tally
    (pinned,) = versions_pinned(node)
    assert pinned != pins


def versions_pinned(node: Node) -> list[str]:
    return sorted(path.name for path in node.pin_dir.glob("v*"))


@pytest.mark.parametrize(
    ("spoiled", "says"),
    [
        pytest.param("this is not C;", "loading the programs failed", id="compiler"),
        pytest.param("for (;;) ct_now();", "loading the programs failed", id="verifier"),
        pytest.param("", "bcc", id="no bcc"),
    ],
)
def test_upgrade_that_does_not_load(
    node: Node, tmp_path_factory: pytest.TempPathFactory, spoiled: str, says: str
) -> None:
    """The agent of the new version ends and says why; the programs of the old one stay."""
    agent = start_version(node, ROOT)
    in_force(node, agent)
    pinned = versions_pinned(node)
    directory = another_version(tmp_path_factory.mktemp("version"))
    if spoiled:
        to_pod = "int to_pod(struct __sk_buff *skb)\n{\n"
        rewrite(directory / "bpf/ringfence.c", (to_pod, to_pod + spoiled))
    else:
        (directory / "bcc.py").write_text("raise ImportError('there is no bcc here')\n")
        # Not a source that was compiled before, whose bytecode is kept.
        with (directory / "bpf/ringfence.c").open("a") as source:
            source.write(f"/* {token_hex(8)} */\n")
    with Traffic(node).started() as traffic:
        assert stop(agent) == 0
        failed = start_version(node, directory)
        assert ended(failed, 120) != 0
    assert unharmed(traffic.tally), traffic.tally
    assert says in node.log
    assert versions_pinned(node) == pinned


def opened_ports(count: int) -> Document:
    """A NetworkPolicy that takes an entry of a map for each port."""
    ports = [{"port": 30000 + number} for number in range(0, 2 * count, 2)]
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]}
    return {**opened_to(0), "metadata": {"name": "wide", "namespace": "t1"}, "spec": spec}


def status_of(node: Node) -> control.Answer:
    """What the agent says of itself."""
    return control.ask(node.run_dir, {"command": "status"})


def test_upgrade_to_maps_without_room_for_a_policy(node: Node) -> None:
    """Its owner is closed and told, and nobody waits for that: the change-over goes on."""
    agent = node.start()
    node.write(opened_ports(100), file="wide.json")
    in_force(node, agent)
    (pinned,) = versions_pinned(node)
    with Traffic(node).started() as traffic:
        assert stop(agent) == 0
        agent = node.start("--map-size=pol_map=64")
        in_force(node, agent)
        (left,) = versions_pinned(node)
        assert left != pinned
        told = str(status_of(node)["withoutRoom"])
        assert "t1/wide" in told
        assert "--map-size pol_map=NUMBER" in told
        traffic.wait_for_more(100)
        node.write(opened_ports(1), file="wide.json")
        in_force(node, agent, 1)
        assert not status_of(node)["withoutRoom"]
    assert unharmed(traffic.tally), traffic.tally


def test_upgrade_whose_maps_refuse_a_write(
    node: Node, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The kernel has less room than it says: the programs of before stay, with their tables."""
    agent = start_version(node, ROOT)
    node.write(opened_ports(20), file="wide.json")
    in_force(node, agent)
    (pinned,) = versions_pinned(node)
    smaller = another_version(tmp_path_factory.mktemp("version"))
    rewrite(
        smaller / "enforcer/policy/tables.py",
        ("Table.POLICY: 131_072", "Table.POLICY: 8"),
    )
    rewrite(
        smaller / "enforcer/datapath/maps.py",
        ("SIZES = (64,", "SIZES = (2,"),
        ("table: self._info[table].max_entries for table", "table: 131_072 for table"),
    )
    with Traffic(node).started() as traffic:
        assert stop(agent) == 0
        for _ in range(2):  # a restart changes nothing
            agent = start_version(node, smaller)
            assert node.wait(node.digest(), agent)["error"]
            status = status_of(node)
            assert "datapath" in str(status["errors"])
            assert str(status["notEnforced"]).count("as before the upgrade") == 3
            traffic.wait_for_more(100)
            assert pinned in versions_pinned(node)
            assert stop(agent, signal.SIGKILL) == -signal.SIGKILL
        agent = start_version(node, smaller)
        node.wait(node.digest(), agent)
        node.write(opened_ports(1), file="wide.json")
        in_force(node, agent)
        traffic.wait_for_more(100)
    assert unharmed(traffic.tally), traffic.tally
    (left,) = versions_pinned(node)
    assert left != pinned


def test_upgrade_whose_maps_do_not_hold_the_pods_that_run(
    node: Node, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """None of them is closed: the new version ends and says why, and the old one may come back."""
    agent = start_version(node, ROOT)
    in_force(node, agent)
    pinned = versions_pinned(node)
    smaller = another_version(tmp_path_factory.mktemp("version"))
    rewrite(
        smaller / "enforcer/policy/tables.py",
        ("Table.ENDPOINTS: 1_024", "Table.ENDPOINTS: 2"),
    )
    rewrite(smaller / "enforcer/datapath/maps.py", ("SIZES = (64,", "SIZES = (2,"))
    with Traffic(node).started() as traffic:
        assert stop(agent) == 0
        for _ in range(2):
            assert ended(start_version(node, smaller), 120) != 0
            traffic.wait_for_more(50)
        log = node.log
        assert log.count(f"the programs of {pinned[0]} stay in force") == 2
        assert "--map-size ep_map=NUMBER" in log
        assert "Traceback" not in log
        agent = start_version(node, ROOT)
        in_force(node, agent, 1)
        traffic.wait_for_more(100)
    assert unharmed(traffic.tally), traffic.tally
    assert versions_pinned(node) == pinned


def fill(directory: Path) -> None:
    """Write until nothing more fits."""
    available = os.statvfs(directory)
    with (directory / "rubbish").open("wb", buffering=0) as rubbish:
        rubbish.write(bytes(available.f_bavail * available.f_bsize))
    assert os.statvfs(directory).f_bavail == 0


def test_full_disk(node: Node) -> None:
    """The run directory takes nothing any more: what is enforced does not depend on it."""
    node.run_dir.mkdir(mode=0o700)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", str(node.run_dir)]
    subprocess.run(mounted, check=True)
    try:
        agent = node.start()
        in_force(node, agent)
        fill(node.run_dir)
        with Traffic(node).started() as traffic:
            in_force(node, agent, 1)
            assert stop(agent) == 0
            agent = node.start()
            in_force(node, agent, 2)
        assert unharmed(traffic.tally), traffic.tally
        stop(agent)
    finally:
        subprocess.run(["umount", str(node.run_dir)], check=True)


def test_full_map(node: Node) -> None:
    """What does not fit closes its owner alone; what was in force elsewhere goes on."""
    agent = node.start("--map-size=cidr_map=8192")
    in_force(node, agent)
    blocks = [{"ipBlock": {"cidr": f"10.{n // 256}.{n % 256}.0/24"}} for n in range(9000)]
    huge = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "huge", "namespace": "t1"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": blocks}]},
    }
    with Traffic(node).started() as traffic:
        node.wait(node.write(*isolated(node), huge), agent)
        status = status_of(node)
        assert "cidr_map" in str(status["withoutRoom"])
        assert "t1/huge" in str(status["withoutRoom"])
        traffic.wait_for_more(100)
        in_force(node, agent, 1)
    assert unharmed(traffic.tally), traffic.tally
