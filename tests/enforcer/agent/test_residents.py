"""Where the pods of a node are: attachments of the right UID, annotations, interfaces that go."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from enforcer.agent.residents import Links, Residents
from enforcer.policy.changes import (
    ArrivalChange,
    Attachment,
    InputChange,
    InterfaceChange,
    PodChange,
)
from generators.objects import Pod

NODE = "here"
NAMES = {"v1": 11, "v2": 12, "v3": 13}


def residents(names: dict[str, int] | None = None) -> Residents:
    present = NAMES if names is None else names
    return Residents(NODE, lambda: Links(dict(present), frozenset(present.values())))


def pod(uid: str = "u1", interface: str = "", ips: tuple[str, ...] = ("10.0.0.1",)) -> Pod:
    annotations = {"ringfence.io/interface": interface} if interface else {}
    return Pod("n", "p", annotations=annotations, ips=ips, node=NODE, uid=uid)


def attachment(container: str, ifindex: int, uid: str = "u1", ip: str = "10.0.0.1") -> Attachment:
    return Attachment(container, "n", "p", uid, ifindex, (ip,))


def interfaces(changes: Iterable[InputChange]) -> list[int | None]:
    return [c.ifindex for c in changes if isinstance(c, InterfaceChange)]


def test_an_attachment_says_where_a_pod_is_whatever_its_annotation_says() -> None:
    found = residents()
    list(found.attach([attachment("c1", 12)]))
    assert interfaces(found.follow([PodChange("n/p", pod(interface="v1"))])) == [12]
    assert interfaces(found.attach([])) == [11]


def test_a_pod_without_address_gets_that_of_its_attachment() -> None:
    found = residents()
    list(found.follow([PodChange("n/p", pod(ips=()))]))
    assert found.missing == {}, "it has no sandbox yet"
    changes = list(found.attach([attachment("c1", 11, ip="10.0.0.7")]))
    assert changes == [PodChange("n/p", pod(ips=("10.0.0.7",))), InterfaceChange("n/p", 11)]
    told = list(found.follow([PodChange("n/p", pod(ips=("10.0.0.7",)))]))
    assert interfaces(told) == []


def test_a_pod_made_anew_is_not_behind_the_interface_of_the_old_one() -> None:
    found = residents()
    list(found.attach([attachment("c1", 11)]))
    list(found.follow([PodChange("n/p", pod())]))
    assert interfaces(found.follow([PodChange("n/p", pod("u2"))])) == [None]
    assert "n/p" in found.missing
    both = [attachment("c1", 11), attachment("c2", 12, "u2")]
    assert interfaces(found.attach(both)) == [12]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_del_and_add_may_come_in_any_order(order: tuple[int, ...]) -> None:
    """The API's pod, the new sandbox and the end of the old one: all orders end the same."""
    found = residents()
    list(found.attach([attachment("c1", 11)]))
    list(found.follow([PodChange("n/p", pod())]))
    held = {"c1": attachment("c1", 11)}
    for step in order:
        match step:
            case 0:
                list(found.follow([PodChange("n/p", pod("u2"))]))
            case 1:
                held["c2"] = attachment("c2", 12, "u2")
                list(found.attach(held.values()))
            case 2:
                held.pop("c1")
                list(found.attach(held.values()))
    assert found.interfaces == {"n/p": 12}
    assert found.missing == {}


def test_a_sandbox_of_a_pod_that_nobody_knows_is_an_arrival_until_it_is_known() -> None:
    found = residents()
    first = attachment("c1", 11)
    assert list(found.attach([first])) == [ArrivalChange("n/p", first)]
    changes = list(found.follow([PodChange("n/p", pod())]))
    assert ArrivalChange("n/p", None) in changes
    assert interfaces(changes) == [11]


def test_an_interface_has_one_pod_and_the_attachment_decides_which() -> None:
    found = residents()
    other = Pod(
        "n", "q", annotations={"ringfence.io/interface": "v1"}, ips=("10.0.0.2",), node=NODE
    )
    list(found.follow([PodChange("n/q", other)]))
    list(found.follow([PodChange("n/p", pod(interface="v1"))]))
    assert found.interfaces == {"n/q": 11}
    assert "already belongs to n/q" in found.missing["n/p"]

    changes = list(found.attach([attachment("c1", 11)]))
    assert changes == [InterfaceChange("n/q", None), InterfaceChange("n/p", 11)]
    assert "now belongs to n/p" in found.missing["n/q"]


def test_interfaces_that_come_and_go_are_noticed_at_the_next_look() -> None:
    names = {"v1": 11}
    found = residents(names)
    list(found.follow([PodChange("n/p", pod(interface="v2"))]))
    assert "no interface v2" in found.missing["n/p"]
    names["v2"] = 12
    assert list(found.look_again()) == [InterfaceChange("n/p", 12)]
    assert list(found.look_again()) == []
    del names["v2"]
    assert list(found.look_again()) == [InterfaceChange("n/p", None)]
    names["v2"] = 22
    assert list(found.look_again()) == [InterfaceChange("n/p", 22)]


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(None, id="deleted"),
        pytest.param(Pod("n", "p", node=NODE, phase="Succeeded"), id="finished"),
        pytest.param(Pod("n", "p", node="elsewhere"), id="elsewhere"),
        pytest.param(Pod("n", "p", node=NODE, host_network=True), id="on the node's network"),
    ],
)
def test_who_is_no_resident_any_more_leaves_its_interface(gone: Pod | None) -> None:
    found = residents()
    list(found.follow([PodChange("n/p", pod(interface="v1"))]))
    assert interfaces(found.follow([PodChange("n/p", gone)])) == [None]
    assert (found.pods, found.interfaces, found.missing) == ({}, {}, {})
