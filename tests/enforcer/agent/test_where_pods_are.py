"""Nobody takes an interface by writing a pod: annotations of an API server, and of manifests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from secrets import token_hex

import pytest

from enforcer.agent import residents
from enforcer.agent.residents import Links, Residents
from enforcer.policy.changes import Attachment, InputChange, InterfaceChange, PodChange
from enforcer.sources.readers import PodReader, Unreadable
from generators.objects import Pod
from lab import netns

NODE = "here"
NAMES = {"eth0": 2, "v1": 11, "v2": 12}
VETHS = frozenset({11, 12})
ROUTES = {"10.0.0.1": 11, "10.0.0.2": 12}


def known(by_address: dict[str, int] | None = None) -> Residents:
    routes = ROUTES if by_address is None else by_address
    return Residents(
        NODE,
        lambda: Links(
            NAMES,
            frozenset(NAMES.values()),
            lambda ips: next((routes[ip] for ip in ips if ip in routes), None),
            leads_away=lambda ifindex: ifindex in VETHS,
        ),
    )


def pod(name: str, interface: str = "", ip: str = "", uid: str = "") -> Pod:
    annotations = {"ringfence.io/interface": interface} if interface else {}
    ips = (ip,) if ip else ()
    return Pod("n", name, annotations=annotations, ips=ips, node=NODE, uid=uid or name)


def follow(found: Residents, *pods: Pod) -> list[InterfaceChange]:
    changes = found.follow([PodChange(p.key, p) for p in pods])
    return [c for c in changes if isinstance(c, InterfaceChange)]


def test_an_api_servers_pod_cannot_name_an_interface() -> None:
    told = {"ringfence.io/interface": "eth0", "ringfence.io/keep-established": "true"}
    document = {
        "metadata": {"name": "p", "namespace": "n", "annotations": told},
        "spec": {"nodeName": NODE},
        "status": {"podIP": "10.0.0.9"},
    }
    read = PodReader(NODE, Unreadable())(document)
    assert read is not None
    assert read.annotations == {"ringfence.io/keep-established": "true"}
    found = known()
    assert follow(found, read) == []
    assert "no interface known" in found.missing["n/p"]


def test_an_annotation_cannot_name_the_node_s_own_interface() -> None:
    found = known()
    assert follow(found, pod("p", "eth0")) == []
    assert "not a veth into another network namespace" in found.missing["n/p"]
    assert follow(found, pod("p", "v1")) == [InterfaceChange("n/p", 11)]


def test_who_is_found_by_its_addresses_takes_its_interface_from_who_named_it() -> None:
    found = known()
    assert follow(found, pod("thief", "v1")) == [InterfaceChange("n/thief", 11)]
    assert follow(found, pod("owner", ip="10.0.0.1")) == [
        InterfaceChange("n/thief", None),
        InterfaceChange("n/owner", 11),
    ]
    assert "now belongs to n/owner" in found.missing["n/thief"]
    assert follow(found, pod("thief", "v1")) == []
    assert found.interfaces == {"n/owner": 11}


def test_who_is_attached_takes_its_interface_from_who_named_it() -> None:
    found = known({})
    follow(found, pod("thief", "v1"), pod("owner"))
    list(found.attach([Attachment("c", "n", "owner", "owner", 11, ("10.0.0.1",))]))
    assert found.interfaces == {"n/owner": 11}
    assert "now belongs to n/owner" in found.missing["n/thief"]


def test_two_pods_of_one_address_do_not_evict_each_other() -> None:
    found = known()
    follow(found, pod("first", ip="10.0.0.1"))
    assert follow(found, pod("second", ip="10.0.0.1")) == []
    assert found.interfaces == {"n/first": 11}


def test_a_pod_without_sandbox_is_nothing_to_enforce_yet() -> None:
    found = known({})
    assert follow(found, pod("pending")) == []
    assert found.missing == {}
    follow(found, pod("pending", ip="10.0.0.1"))
    assert "no interface known" in found.missing["n/pending"]
    follow(found, pod("named", "v7"))
    assert "no interface v7" in found.missing["n/named"]


def addresses(changes: Iterable[InputChange]) -> list[tuple[str, ...]]:
    return [c.pod.ips for c in changes if isinstance(c, PodChange) and c.pod is not None]


def test_a_new_sandbox_of_a_pod_speaks_for_its_addresses_before_its_status_does() -> None:
    found, stale = known({}), pod("p", ip="10.0.0.1")
    old = Attachment("old", "n", "p", "p", 11, ("10.0.0.1",))
    new = Attachment("new", "n", "p", "p", 12, ("10.0.0.2",))
    list(found.attach([old]))
    assert addresses(found.follow([PodChange("n/p", stale)])) == [("10.0.0.1",)]
    assert list(found.attach([old, new])) == [
        PodChange("n/p", replace(stale, ips=("10.0.0.2",))),
        InterfaceChange("n/p", 12),
    ]
    relabelled = replace(stale, labels={"app": "web"})
    assert addresses(found.follow([PodChange("n/p", relabelled)])) == [("10.0.0.2",)]
    assert list(found.attach([new])) == [], "the late end of the old one changes nothing"
    told = replace(relabelled, ips=("10.0.0.2",))
    assert list(found.follow([PodChange("n/p", told)])) == [PodChange("n/p", told)]


def test_an_attachment_of_another_pod_of_that_name_has_no_say() -> None:
    found = known({})
    list(found.follow([PodChange("n/p", pod("p", ip="10.0.0.1", uid="new"))]))
    other = Attachment("old", "n", "p", "old", 12, ("10.0.0.2",))
    assert list(found.attach([other])) == []


@pytest.fixture
def node() -> Iterator[str]:
    """A network namespace with a veth into another one, and a pair that stays in it."""
    name = f"rft-{token_hex(3)}"
    netns.create(name)
    netns.create(f"{name}-pod")
    try:
        with netns.inside(name):
            ip(
                "link",
                "add",
                "away",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                f"{name}-pod",
            )
            ip("link", "add", "near", "type", "veth", "peer", "name", "far")
            yield name
    finally:
        netns.remove(f"{name}-pod")
        netns.remove(name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.mark.bpf
def test_the_kernel_knows_which_interfaces_lead_to_pods(node: str) -> None:
    links = residents.links()
    leading = {name for name, ifindex in links.by_name.items() if links.leads_away(ifindex)}
    assert leading == {"away"}
