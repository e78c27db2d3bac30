"""Names that a lab gives on this machine."""

from __future__ import annotations

import pytest

from lab.names import BadName, mac, places, pod_key

IFNAMSIZ = 15


@pytest.mark.parametrize("name", ["lab", "a", "team-1", "x" * 40])
def test_short_dns_labels_name_a_lab(name: str) -> None:
    assert places(name).node_netns == f"ringfence.{name}"


@pytest.mark.parametrize(
    "name", ["", "Lab", "a.b", "../etc", "-a", "a-", "a/b", "x" * 41, "a b", "lab\n"]
)
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    with pytest.raises(BadName, match="a-z"):
        places(name)


def test_one_lab_never_owns_a_network_namespace_of_another() -> None:
    lab, longer = places("lab"), places("lab-2")
    assert lab.owns_netns(lab.pod_netns("app", "web"))
    assert not lab.owns_netns(longer.node_netns)
    assert not lab.owns_netns(longer.pod_netns("app", "web"))
    assert not lab.owns_netns("ringfence.labx")


def test_pods_whose_names_join_to_the_same_text_are_told_apart() -> None:
    lab = places("lab")
    assert lab.pod_netns("a", "b.c") != lab.pod_netns("a-b", "c")
    assert lab.interface("a", "bc") != lab.interface("ab", "c")


def test_a_long_pod_name_still_names_a_file() -> None:
    lab = places("x" * 40)
    one, other = (lab.pod_netns("n" * 63, "p" * 200 + tail) for tail in ("1", "2"))
    assert len(one) <= 255
    assert one != other
    assert lab.owns_netns(one)


def test_interfaces_fit_the_kernel_and_differ_by_pod() -> None:
    names = {places("lab").interface("app", f"web-{number}") for number in range(1000)}
    assert len(names) == 1000
    assert max(map(len, names)) <= IFNAMSIZ


def test_hardware_addresses_are_local_and_unicast() -> None:
    first = int(mac("pod").split(":")[0], 16)
    assert first & 0b11 == 0b10


@pytest.mark.parametrize("text", ["web", "/web", "app/", "app/web/x", ""])
def test_what_does_not_name_a_pod_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadName, match="NAMESPACE/POD"):
        pod_key(text)
