"""An address goes to another tenant's pod while somebody who should follow that is away.

The pod at the other end is on a node of its own, on which nothing is enforced: what keeps it out is
the node of the victim alone.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import netns
from tests.enforcer.node import (
    PORT,
    SILENCE_SECONDS,
    STRICT_TENANTS,
    Document,
    Node,
    owned_namespaces,
    stop,
)
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

VICTIM, OTHER_END = "t1/victim", "t1/friend"
KINDS = {"UDP": socket.SOCK_DGRAM, "TCP": socket.SOCK_STREAM}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build((VICTIM, OTHER_END))
        (made.directory / "tenants.yaml").write_text(STRICT_TENANTS)
        yield made
    finally:
        made.remove()


def started(node: Node) -> subprocess.Popen[bytes]:
    return node.start("--config", str(node.directory / "tenants.yaml"))


def cluster(node: Node, other_end: str) -> list[Document]:
    """Everything, with a pod of that name on another node at the other end's addresses."""
    namespace, name = other_end.split("/")
    (remote,) = node.pods([OTHER_END])
    metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
    spec = {**_part(remote, "spec"), "nodeName": "there"}
    pods: list[Document] = [*node.pods([VICTIM]), {**remote, "metadata": metadata, "spec": spec}]
    ranges = {"podCIDRs": ["10.7.0.0/16", "fd07::/64"]}
    nodes: list[Document] = [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
        for name, spec in (("here", ranges), ("there", {}))
    ]
    return [*owned_namespaces("t1", "t2"), *nodes, *pods]


def _part(document: Document, name: str) -> Mapping[str, object]:
    part = document[name]
    assert isinstance(part, Mapping)
    return part


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation between the victim and the other end."""

    victim: socket.socket
    other: socket.socket

    def enters(self) -> bool:
        """Whether something of the other end reaches the victim."""
        return _passes(self.other, self.victim)

    def leaves(self) -> bool:
        """Whether something of the victim reaches the other end."""
        return _passes(self.victim, self.other)


def _passes(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.send(b"x")
    receiver.settimeout(SILENCE_SECONDS)
    try:
        return receiver.recv(64)[:1] == b"x"
    except TimeoutError:
        return False


def talks(stack: ExitStack, node: Node, family: int, port: int) -> dict[str, Talk]:
    """UDP and TCP, opened by either side and answered; `port`: the first of those that are used."""
    found = {}
    for number, (kind, opener) in enumerate((k, o) for k in KINDS for o in (VICTIM, OTHER_END)):
        answerer = OTHER_END if opener == VICTIM else VICTIM
        target = (node.wires[answerer].addresses[family == 6], port + number)
        of = socket.AF_INET6 if family == 6 else socket.AF_INET

        def opened(pod: str, of: int = of, kind: str = kind) -> socket.socket:
            with netns.inside(node.wires[pod].netns):
                made = stack.enter_context(socket.socket(of, KINDS[kind]))
            made.settimeout(patience(10))
            return made

        near, far = opened(opener), opened(answerer)
        far.bind(target)
        if kind == "TCP":
            far.listen()
            near.connect(target)
            accepted, _ = far.accept()
            far = stack.enter_context(accepted)
        else:
            near.connect(target)
            near.send(b"x")
            far.connect(far.recvfrom(64)[1])
            far.send(b"x")
            near.recv(64)
        ends = (near, far) if opener == VICTIM else (far, near)
        found[f"{kind} that {opener} opened"] = Talk(*ends)
    return found


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("away", ["the agent of the victim's node", "the stranger's node"])
def test_a_stranger_on_the_address_of_a_friend_is_kept_out_by_who_is_back(
    node: Node, away: str, family: int
) -> None:
    agent = started(node)
    node.wait(node.write(*cluster(node, OTHER_END)), agent)
    node.wait_until_enforced()
    with ExitStack() as stack:
        open_talks = talks(stack, node, family, 20_000)
        assert all(talk.enters() and talk.leaves() for talk in open_talks.values())
        if away.startswith("the agent"):
            assert stop(agent) == 0
            node.write(*cluster(node, "t2/stranger"))
            # Nobody can tell: docs/consistency.md, "A node that does not follow".
            assert all(talk.enters() for talk in open_talks.values())
            agent = started(node)
        node.wait(node.write(*cluster(node, "t2/stranger")), agent)
        for name, talk in open_talks.items():
            assert not talk.enters(), name
    assert not _calls(node, family)


def _calls(node: Node, family: int) -> bool:
    """Whether the other end makes a new connection to the victim."""
    of = socket.AF_INET6 if family == 6 else socket.AF_INET
    with netns.inside(node.wires[OTHER_END].netns):
        client = socket.socket(of, socket.SOCK_STREAM)
    with client:
        client.settimeout(SILENCE_SECONDS)
        try:
            client.connect((node.wires[VICTIM].addresses[family == 6], PORT))
        except TimeoutError:
            return False
    return True
