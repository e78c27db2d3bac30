"""Walls hold between pods of two real nodes as on one, in both families, and Services lead to a
backend on the other node for whom its wall lets in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from generators.addresses import Family, family
from lab.topology import lab_node
from tests.conftest import Run
from tests.lab.api.hollow import fresh_lab
from tests.lab.api.real.nodes import RealLab, serving
from tests.lab.api.real.test_services import OPEN, node_port, service, spec_of
from tests.testbed.waiting import eventually

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def pair(programs: None, ringfence: Run, tenants: Path) -> Iterator[RealLab]:
    """Two real nodes."""
    with fresh_lab(RealLab, ringfence) as lab:
        done = lab.up("--kubelet", "--nodes", "2", "-c", tenants)
        assert done.returncode == 0, done.stderr
        yield lab


def _on(lab: RealLab, number: int) -> str:
    """The part of a pod's spec that has it on that node."""
    return f"nodeName: {lab_node(lab.places, number).name}"


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if family(address) is Family.IPV6 else f"{address}:{port}"


class Spread:
    """`web` and its neighbour `near` on one node, `own` of its tenant and `other` on the other."""

    def __init__(self, lab: RealLab, services: Mapping[str, str] | None = None) -> None:
        """`services`: what each says beside its port and that it leads to `web`."""
        self.red, self.blue = lab.spaces("red", "blue")
        here, there = _on(lab, 1), _on(lab, 2)
        self.web, self.near = f"{self.red}/web", f"{self.red}/near"
        self.own, self.other = f"{self.red}/own", f"{self.blue}/other"
        text = serving(self.web, "80", "53/udp", spec=here) + serving(self.near, spec=here)
        text += serving(self.own, "80", "53/udp", spec=there)
        text += serving(self.other, "80", "53/udp", spec=there)
        text += "".join(service(self.web, *one) for one in (services or {}).items())
        lab.make(text, self.web, self.near, self.own, self.other)


@pytest.mark.parametrize("of", list(Family))
def test_a_tenant_is_one_across_nodes_and_another_is_kept_out(pair: RealLab, of: Family) -> None:
    spread = Spread(pair)
    by_pod = {
        pod: next(ip for ip in pair.ips(pod) if family(ip) is of)
        for pod in (spread.web, spread.own, spread.other)
    }
    ways = ((80, ()), (53, ("-udp",)))
    for asking, asked in ((spread.own, spread.web), (spread.web, spread.own)):
        sees = f"{asked.split('/')[1]} sees {_at(by_pod[asking], 0).removesuffix('0')}"
        for port, flags in ways:
            assert pair.answer(asking, _at(by_pod[asked], port), *flags).startswith(sees)
    for asking, asked in ((spread.other, spread.web), (spread.web, spread.other)):
        for port, flags in ways:
            assert pair.asks(asking, _at(by_pod[asked], port), *flags) == ""


def test_a_service_leads_to_the_other_node_with_its_client_s_address(pair: RealLab) -> None:
    spread = Spread(pair, {"cluster": "ipFamilyPolicy: RequireDualStack"})
    addresses = spec_of(pair, spread.red, "cluster")["clusterIPs"]
    assert isinstance(addresses, list)
    assert len(addresses) == len(Family)
    for address in addresses:
        target = _at(address, 8080)
        own = next(ip for ip in pair.ips(spread.own) if family(ip) is family(address))
        assert _at(own, 0).removesuffix("0") in pair.answer(spread.own, target)
        assert pair.asks(spread.other, target) == ""


def test_node_ports_lead_to_a_backend_on_the_other_node_by_both_policies(pair: RealLab) -> None:
    policies = ("local", "cluster")
    kinds = {name: f"type: NodePort, externalTrafficPolicy: {name.title()}" for name in policies}
    spread = Spread(pair, kinds)
    pair.make(OPEN.format(space=spread.red))
    ports = {name: node_port(pair, spread.red, name) for name in kinds}
    at = {
        (name, number): f"{lab_node(pair.places, number).addresses[0]}:{ports[name]}"
        for name in kinds
        for number in (1, 2)
    }
    # Where the backend is, outside comes with its own address, which the policy names.
    outside = lambda: pair.outside(at["local", 1]).startswith("web sees 172.31.")  # noqa: E731
    eventually(outside, "the policy lets outside in", 30)
    # Where it is not, a node that keeps addresses has nowhere to lead to; one that hides them
    # behind its own is nobody to the wall.
    for way in (("local", 2), ("cluster", 1), ("cluster", 2)):
        assert (way, pair.outside(at[way])) == (way, "")
    # Pods of the tenant come with their own address where kube-proxy keeps it.
    sees = f"web sees {pair.ip(spread.own)}:"
    assert pair.asks(spread.own, at["local", 1]).startswith(sees)
    for way, target in at.items():
        assert (way, pair.asks(spread.other, target)) == (way, "")


def test_names_of_services_lead_to_the_other_node(pair: RealLab) -> None:
    spread = Spread(pair, {"cluster": ""})
    target = f"cluster.{spread.red}.svc.cluster.local:8080"
    for pod in (spread.own, spread.near):
        assert pair.answer(pod, target).startswith(f"web sees {pair.ip(pod)}")
    assert pair.asks(spread.other, target) == ""
