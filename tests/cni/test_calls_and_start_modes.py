"""Pure parts: calls as values, which namespaces are strict, what a start mode grants."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from enforcer.agent.state import Board, NodeState
from enforcer.cni import namespaces
from enforcer.cni.call import Call, CallRefused, CniCommand, SandboxPod, parse
from enforcer.cni.namespaces import Start, Strictness
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import Attachment, Inputs
from enforcer.policy.modes import StartMode
from enforcer.policy.start import Ground, provisional
from enforcer.policy.tables import EndpointEntry, EndpointFlag
from generators.cluster import Cluster
from generators.labels import MODE_ANNOTATION
from generators.objects import Namespace
from generators.tenants.model import Mode, Tenant, TenantConfig

READY, WALL = EndpointFlag.READY, EndpointFlag.WALL


def call(arguments: str = "", **config: object) -> Call:
    head = f"CNI_COMMAND=ADD\nCNI_CONTAINERID=c\nCNI_IFNAME=eth0\nCNI_ARGS={arguments}\n\n"
    return parse(head.encode() + json.dumps(config).encode())


@pytest.mark.parametrize(
    ("arguments", "sandbox"),
    [
        ("", None),
        ("IgnoreUnknown=1;K8S_POD_NAMESPACE=t1", None),
        (
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=t1;K8S_POD_NAME=a;K8S_POD_UID=u",
            SandboxPod("t1", "a", "u"),
        ),
        ("K8S_POD_NAME=a;K8S_POD_NAMESPACE=t1", SandboxPod("t1", "a", "")),
    ],
)
def test_a_pod_is_named_by_the_arguments(arguments: str, sandbox: SandboxPod | None) -> None:
    assert call(arguments).sandbox == sandbox


def test_the_result_before_us_names_addresses_and_interfaces_of_the_node() -> None:
    previous = {
        "interfaces": [
            {"name": "cni0", "mac": "x"},
            {"name": "veth1", "sandbox": ""},
            {"name": "eth0", "sandbox": "/run/netns/x"},
        ],
        "ips": [{"address": "10.0.0.5/24"}, {"address": "FD00:0::5/64"}],
    }
    found = call(prevResult=previous)
    assert found.command is CniCommand.ADD
    assert found.addresses == ("10.0.0.5", "fd00::5")
    assert found.host_interfaces == ("cni0", "veth1")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(None, 10), (3, 3), (2.5, 2.5), ("9", 10), (True, 10), (-1, 0), (9e9, 300)],
)
def test_time_to_wait_is_bounded(written: object, seconds: float) -> None:
    assert call(timeoutSeconds=written).seconds == seconds


@pytest.mark.parametrize(
    "data",
    [b"", b"CNI_COMMAND=ADD\n\n", b"CNI_COMMAND=ADD\n\n[]", b"CNI_COMMAND=X\n\n{}", b"\xff\n\n{}"],
)
def test_bytes_that_are_no_call_are_refused(data: bytes) -> None:
    with pytest.raises(CallRefused):
        parse(data)


@pytest.mark.parametrize("previous", [None, 3, {"ips": [{"address": "x"}]}])
def test_a_result_that_is_none_is_refused(previous: object) -> None:
    with pytest.raises(CallRefused):
        _ = call(prevResult=previous).addresses


ARRIVED = Attachment("c", "t1", "a", "u", 7, ("10.0.0.1", "fd00::1"))
GROUND = Ground(endpoint=5, tenant=9, wall=11, flags=WALL | EndpointFlag.USES_RANGE)


@pytest.mark.parametrize(
    ("mode", "ground", "flags", "wall"),
    [
        (StartMode.STRICT, GROUND, None, 0),
        (StartMode.TENANT_DEFAULT, None, None, 0),
        (StartMode.OPEN, None, None, 0),
        (StartMode.TENANT_DEFAULT, GROUND, READY | GROUND.flags, 11),
        (StartMode.TENANT_DEFAULT, Ground(5), READY, 0),
        (StartMode.OPEN, GROUND, READY, 0),
    ],
    ids=["strict", "unknown", "unknown, open", "tenant", "no tenant", "open"],
)
def test_what_a_start_mode_grants(
    mode: StartMode, ground: Ground | None, flags: EndpointFlag | None, wall: int
) -> None:
    entry = provisional(ARRIVED, ground, mode)
    if flags is None:
        assert entry is None
        return
    assert ground is not None
    assert entry == EndpointEntry(
        5, 0, wall, ground.tenant, 1, flags, ip4=("10.0.0.1",), ip6=("fd00::1",)
    )


def config(mode: Mode) -> TenantConfig:
    return TenantConfig(tenants={"t1": Tenant("t1")}, mode=mode)


def published(board: Board, given: TenantConfig, spaces: Sequence[Namespace]) -> None:
    """What an agent makes of these namespaces, when `shop` is recorded for t1."""
    compiler = Compiler("here")
    found = {space.name: space for space in spaces}
    cluster = Cluster(namespaces=found, config=given, tenants={"shop": "t1"}, pod_cidrs=())
    compiler.become(Inputs(cluster, {}))
    turned = compiler.walls_turned
    board.publish(
        NodeState(revision=1, config=given, walled=compiler.walled(), walls_turned=turned)
    )


@pytest.mark.parametrize(
    ("mode", "start", "others"),
    [
        (Mode.STRICT, Start.STRICT, Start.STRICT),
        (Mode.AUDIT, Start.OPEN, Start.OPEN),
        (Mode.OVERRIDABLE, Start.OPEN, Start.OPEN),
    ],
)
def test_strict_is_who_has_a_wall_that_drops(mode: Mode, start: Start, others: Start) -> None:
    board = Board()
    strictness = Strictness(board, configured=True)
    published(board, config(mode), (Namespace("shop"), Namespace("free")))
    assert strictness.is_strict("shop") is (start is Start.STRICT)
    assert strictness.is_strict("never heard of") is (others is Start.STRICT)
    assert not strictness.is_strict("free")
    page = strictness.page()
    assert page is not None
    assert namespaces.parse(page) == {"*": others, "shop": start, "free": Start.OPEN}


def test_a_namespace_under_audit_is_open_and_one_in_quarantine_strict() -> None:
    board, given = Board(), config(Mode.STRICT)
    audited = Namespace("shop", annotations={MODE_ANNOTATION: "audit"})
    forged = Namespace("forged", {given.label_key: "t1"})
    published(board, given, (audited, forged))
    strictness = Strictness(board, configured=True)
    assert not strictness.is_strict("shop")
    assert strictness.is_strict("forged")


def test_before_anything_is_known_the_file_of_an_earlier_agent_speaks() -> None:
    strictness = Strictness(Board(), configured=True)
    assert strictness.is_strict("free"), "nobody ever knew"
    strictness.restore("# x\n* strict\nfree open\nbroken\n")
    assert not strictness.is_strict("free")
    assert strictness.is_strict("shop")
    assert strictness.page() is None


def test_without_a_tenant_file_nobody_is_strict() -> None:
    assert not Strictness(Board(), configured=False).is_strict("any")
