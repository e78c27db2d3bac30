"""However pods are wired to their node: its own packets enter, those that wear its address do not.

Each attempt is followed by a datagram of the node itself: what the pod gets first, it is.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from generators.isolation.record import RecordEntry, record_documents
from lab import netns
from lab.names import NODE_ADDRESSES, PodNetwork, Shape
from tests.enforcer.node import NODE_NAME, PORT, Document, Node, deny_ingress

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

RANGES = ("10.7.0.0/24", "fd07::/64")
OTHER_BRIDGE = {4: "10.7.1.1", 6: "fd07:0:0:1::1"}
SERVER, FORGER = "t1/a", "t2/b"
KINDS = {4: socket.AF_INET, 6: socket.AF_INET6}
UDP_PORT = 8081
TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 6: (socket.IPPROTO_IPV6, 75)}
"""With it a socket may have an address that is not its host's."""
SECONDS = 20.0
TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - {name: t1, namespaces: {names: [t1]}}
  - {name: t2, namespaces: {names: [t2]}}
"""


@pytest.fixture(scope="module", params=list(Shape))
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A node with an isolated pod of a tenant, one of another tenant, and two strangers: `next` is
    wired as pods are and is none, `outside` is routed.
    """
    made = Node(tmp_path_factory.mktemp("node"), network=PodNetwork(request.param, RANGES))
    try:
        made.build((SERVER, FORGER), first=2)
        bridge_without_netfilter(made)
        for number, stranger in enumerate(("x/next", "x/outside"), start=4):
            of = PodNetwork() if stranger == "x/outside" else made.network
            made.add_pod(stranger, number, of)
        config = made.directory / "tenants.yaml"
        config.write_text(TENANTS)
        agent = made.start("-c", str(config))
        made.wait(made.write(*documents(made)), agent)
        made.wait_until_enforced()
        yield made
    finally:
        made.remove()


def bridge_without_netfilter(node: Node) -> None:
    """As on most nodes: frames of a neighbour then keep its socket on their way to the pod."""
    with netns.inside(node.name):
        for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-ip*tables"):
            path.write_text("0")


def documents(node: Node) -> list[Document]:
    names = ("t1", "t2")
    record = {f"uid-{n}": RecordEntry(n, n) for n in names}
    return [
        *(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n, "uid": f"uid-{n}"}}
            for n in names
        ),
        *record_documents(record),
        *node.pods((SERVER, FORGER)),
        deny_ingress("t1"),
        node_document(NODE_NAME, NODE_ADDRESSES, RANGES),
        node_document("there", ("192.0.2.7",), ("10.7.1.0/24", "fd07:0:0:1::/64")),
    ]


def node_document(name: str, addresses: tuple[str, ...], ranges: tuple[str, ...]) -> Document:
    told = [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": list(ranges)},
        "status": {"addresses": told},
    }


def own_address(node: Node, family: int) -> str:
    """The address that the node's own packets to its pods have."""
    shape = node.network.shape
    addresses = NODE_ADDRESSES if shape is Shape.GATEWAY else node.network.gateways
    return addresses[0 if family == 4 else 1]


def address_of(node: Node, pod: str, family: int) -> str:
    return node.wires[pod].addresses[0 if family == 4 else 1]


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


def test_the_nodes_own_connection_enters_an_isolated_pod(node: Node, family: int) -> None:
    """As a kubelet's probe does, from whatever address the node's routes choose."""
    with netns.inside(node.name):
        client = socket.socket(KINDS[family])
    with client:
        client.settimeout(SECONDS)
        client.connect((address_of(node, SERVER, family), PORT))
        assert client.getsockname()[0] == own_address(node, family)
    assert not node.reaches(FORGER, SERVER, family)


def say(namespace: str, source: str, to: str, word: bytes) -> None:
    """One datagram from a network namespace, wearing a source address."""
    family = 6 if ":" in to else 4
    with netns.inside(namespace):
        talker = socket.socket(KINDS[family], socket.SOCK_DGRAM)
    with talker:
        level, transparent = TRANSPARENT[family]
        talker.setsockopt(level, transparent, 1)
        talker.bind((source, 0))
        talker.sendto(word, (to, UDP_PORT))


def forged_by_a_pod(node: Node, family: int) -> None:
    say(
        node.wires[FORGER].netns,
        own_address(node, family),
        address_of(node, SERVER, family),
        b"forged",
    )


def forged_by_a_neighbour(node: Node, family: int) -> None:
    """It is behind no program: a container of somebody else on the same bridge."""
    say(
        node.wires["x/next"].netns,
        own_address(node, family),
        address_of(node, SERVER, family),
        b"forged",
    )


def another_nodes_bridge(node: Node, family: int) -> None:
    say(
        node.wires["x/outside"].netns,
        OTHER_BRIDGE[family],
        address_of(node, SERVER, family),
        b"another node",
    )


def masqueraded(node: Node, family: int) -> None:
    """By the node, which gives it the address of the interface that it leaves by."""
    with masquerading(node, family):
        say(
            node.wires["x/outside"].netns,
            address_of(node, "x/outside", family),
            address_of(node, SERVER, family),
            b"masqueraded",
        )


@contextmanager
def masquerading(node: Node, family: int) -> Iterator[None]:
    name = "ip" if family == 4 else "ip6"
    source, own = address_of(node, "x/outside", family), own_address(node, family)
    rules = f"""table {name} rft {{
        chain out {{
            type nat hook postrouting priority 100
            {name} saddr {source} snat to {own}
        }}
    }}"""
    run_inside(node, "nft", rules)
    try:
        yield
    finally:
        run_inside(node, "nft", f"delete table {name} rft")


def run_inside(node: Node, *words: str) -> None:
    with netns.inside(node.name):
        subprocess.run(words, check=True, capture_output=True)


ATTEMPTS: Mapping[str, Callable[[Node, int], None]] = {
    "a pod forges the node's address": forged_by_a_pod,
    "a neighbour that is no pod forges it": forged_by_a_neighbour,
    "another node's bridge": another_nodes_bridge,
    "a masqueraded client": masqueraded,
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_who_only_wears_an_address_of_a_node_does_not_enter(
    node: Node, family: int, attempt: str
) -> None:
    if attempt == "a masqueraded client" and shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    own, server = own_address(node, family), address_of(node, SERVER, family)
    with netns.inside(node.wires[SERVER].netns):
        listener = socket.socket(KINDS[family], socket.SOCK_DGRAM)
    with listener:
        listener.bind((server, UDP_PORT))
        listener.settimeout(SECONDS)
        ATTEMPTS[attempt](node, family)
        say(node.name, own, server, b"the node")
        heard, (sender, *_) = listener.recvfrom(100)
    assert (heard, sender) == (b"the node", own)
