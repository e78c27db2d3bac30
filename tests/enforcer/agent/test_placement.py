"""Endpoints of pods that are made anew, of sandboxes nobody knows, and in dying namespaces."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcer.agent.remembered import LATELY, Lately
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import (
    ArrivalChange,
    Attachment,
    ConfigChange,
    InputChange,
    InterfaceChange,
    NamespaceChange,
    PodChange,
    PolicyChange,
    RecordChange,
)
from enforcer.policy.modes import StartMode
from enforcer.policy.tables import EndpointEntry, EndpointFlag
from generators.objects import Namespace, NetworkPolicy, Pod
from generators.tenants.load import parse_tenants

NODE = "here"
IFINDEX = 7
POD = Pod("n", "p", ips=("10.0.0.1",), node=NODE, uid="u1")
DENY = NetworkPolicy("n", "deny")
ARRIVAL = Attachment("c1", "n", "p", "u1", IFINDEX, ("10.0.0.1",))
TENANTS = b"""
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
tenants:
  - {name: t1, namespaces: {names: ["n"]}}
"""


def compiler(mode: StartMode = StartMode.STRICT, *changes: InputChange) -> Compiler:
    made = Compiler(NODE, start_mode=mode)
    made.apply(changes)
    made.plan()
    made.commit()
    return made


def endpoint(of: Compiler) -> EndpointEntry | None:
    return of.tables().endpoints.get(IFINDEX)


def happens(to: Compiler, *changes: InputChange) -> frozenset[int]:
    """The endpoints that leave."""
    to.apply(changes)
    to.plan()
    leaving = to.leaving()
    to.commit()
    return leaving


@pytest.mark.parametrize("squashed", [True, False], ids=["one change", "gone, then there"])
def test_a_pod_made_anew_behind_the_same_interface_is_another_endpoint(squashed: bool) -> None:
    here = compiler(StartMode.STRICT, PodChange("n/p", POD), InterfaceChange("n/p", IFINDEX))
    old = endpoint(here)
    assert old is not None
    left = frozenset[int]() if squashed else happens(here, PodChange("n/p", None))
    left |= happens(here, PodChange("n/p", replace(POD, uid="u2")))
    new = endpoint(here)
    assert new is not None
    assert new.endpoint != old.endpoint
    assert left == {old.endpoint}


@pytest.mark.parametrize(
    ("mode", "known", "flags"),
    [
        pytest.param(StartMode.STRICT, True, None, id="strict: closed"),
        pytest.param(StartMode.TENANT_DEFAULT, True, EndpointFlag.WALL, id="the tenant's wall"),
        pytest.param(StartMode.TENANT_DEFAULT, False, None, id="unknown namespace: closed"),
        pytest.param(StartMode.OPEN, True, EndpointFlag(0), id="open"),
        pytest.param(StartMode.OPEN, False, None, id="open, unknown namespace: closed"),
    ],
)
def test_a_sandbox_of_a_pod_that_is_not_known_has_what_the_start_mode_grants(
    mode: StartMode, known: bool, flags: EndpointFlag | None
) -> None:
    config = parse_tenants(TENANTS, "tenants.yaml")
    here = compiler(mode, ConfigChange(config), PolicyChange("n/deny", DENY))
    happens(here, RecordChange("n", "t1"))
    if known:
        happens(here, NamespaceChange("n", Namespace("n", uid="n")))
    happens(here, ArrivalChange("n/p", ARRIVAL))
    arrived = endpoint(here)
    if flags is None:
        assert arrived is None
        return
    assert arrived is not None
    # REACH says only that the walls which let it in are known.
    assert arrived.flags & ~EndpointFlag.REACH == EndpointFlag.READY | flags
    assert (arrived.group, bool(arrived.wall)) == (0, EndpointFlag.WALL in flags)

    known_now = (ArrivalChange("n/p", None), PodChange("n/p", POD), InterfaceChange("n/p", IFINDEX))
    assert happens(here, *known_now) == frozenset()
    judged = endpoint(here)
    assert judged is not None
    assert judged.group
    assert EndpointFlag.WALL in judged.flags
    assert judged.endpoint == arrived.endpoint

    assert happens(here, PodChange("n/p", None), InterfaceChange("n/p", None)) == {judged.endpoint}
    assert endpoint(here) is None


@pytest.mark.parametrize("last", ["terminating", "gone"])
def test_a_policy_holds_for_a_pod_that_is_known_longer_than_its_namespace(last: str) -> None:
    there = Namespace("n", uid="n")
    here = compiler(
        StartMode.STRICT,
        *(NamespaceChange("n", there), PolicyChange("n/deny", DENY)),
        *(PodChange("n/p", POD), InterfaceChange("n/p", IFINDEX)),
    )
    before = endpoint(here)
    dying = replace(there, terminating=True) if last == "terminating" else None
    happens(here, NamespaceChange("n", dying))
    happens(here, PolicyChange("n/deny", None))
    assert endpoint(here) == before
    assert "n/deny" in here.policies()
    happens(here, PodChange("n/p", None))
    assert endpoint(here) is None
    assert "n/deny" not in here.policies()


@pytest.mark.parametrize(
    ("seconds", "reborn", "holds"),
    [
        pytest.param(0.5, False, True, id="the namespace's end is heard a moment later"),
        pytest.param(60.0, False, False, id="much later: the policy was really deleted"),
        pytest.param(0.5, True, False, id="deleted, made again, deleted by a user long before"),
    ],
)
def test_a_policys_end_may_be_heard_before_its_namespaces(
    seconds: float, reborn: bool, holds: bool
) -> None:
    there = Namespace("n", uid="n")
    here = compiler(
        StartMode.STRICT,
        *(NamespaceChange("n", there), PolicyChange("n/deny", DENY)),
        *(PodChange("n/p", POD), InterfaceChange("n/p", IFINDEX)),
    )
    now = 0.0
    lately = Lately(lambda: now)

    def later(by: float, change: InputChange) -> None:
        nonlocal now
        now += by
        happens(here, *lately.follow((change,), here.policies()))

    later(0, PolicyChange("n/deny", None))
    assert "n/deny" not in here.policies()
    if reborn:
        later(0, PolicyChange("n/deny", DENY))
        later(0, PolicyChange("n/deny", None))
        now += LATELY
    later(seconds, NamespaceChange("n", replace(there, terminating=True)))
    assert ("n/deny" in here.policies()) is holds
    later(0, PodChange("n/p", None))
    assert "n/deny" not in here.policies()


def test_endpoints_that_come_and_go_leave_nothing_behind() -> None:
    here = compiler(StartMode.STRICT, NamespaceChange("n", Namespace("n")))
    for number in range(50):
        pod = replace(POD, uid=f"u{number}", ips=(f"10.0.1.{number}",))
        happens(here, PodChange("n/p", pod), InterfaceChange("n/p", IFINDEX + number))
        happens(here, PodChange("n/p", None), InterfaceChange("n/p", None))
    assert here.registry.endpoints.known == {}
    assert here.tables().addresses == {}
