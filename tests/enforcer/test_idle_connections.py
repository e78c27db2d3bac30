"""TCP that nobody speaks on for hours, with real connections: how long either side may be first.

The clients are a strict tenant's: across the wall, across a grant that goes one way, through a
Service. Hours pass by setting the kernel's entries back.
"""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from enforcer.datapath import kernel, layout, loader
from generators.isolation.record import RecordEntry, record_documents
from lab import netns
from tests.enforcer.node import PORT, SILENCE_SECONDS, Node
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120)]

IDLE_SECONDS = 9000
"""Told to the agent: another age than it has by itself."""
SECOND = 1_000_000_000
TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
mode: strict
tenants:
  - {name: t1, namespaces: {names: [t1]}, allowFrom: [{tenant: t2}]}
  - {name: t2, namespaces: {names: [t2]}, allowTo: [{tenant: t1}]}
"""
CLIENT = "t2/client"
SERVICE = ("10.96.0.1", "fd96::1")
PATHS = {"across the wall": "free/server", "across a grant": "t1/server", "Service": "free/server"}


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of one connection, as two sockets."""

    client: socket.socket
    server: socket.socket

    def says(self, client_first: bool) -> None:
        """One byte from one of the sides."""
        (self.client if client_first else self.server).sendall(b"x")

    def hears(self, client_first: bool, seconds: float) -> bool:
        """Whether a byte of that side arrives in time."""
        listening = self.server if client_first else self.client
        readable, _, _ = select.select([listening], [], [], seconds)
        return bool(readable) and listening.recv(1) == b"x"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = Node(tmp_path_factory.mktemp("idle"))
    try:
        made.build((CLIENT, "t1/server", "free/server"))
        config = made.directory / "tenants.yaml"
        config.write_text(TENANTS)
        agent = made.start("--config", str(config), f"--tcp-idle-seconds={IDLE_SECONDS}")
        record = {f"uid-{name}": RecordEntry(name, name) for name in ("t1", "t2")}
        spaces = [_namespace(name) for name in ("t1", "t2", "free")]
        ground = (*spaces, *record_documents(record))
        made.wait(made.write(*ground), agent)  # pods of before the agent have a grace period
        made.wait(made.write(*ground, *made.pods()), agent)
        made.wait_until_enforced()
        _serve(made, made.wires["free/server"].addresses)
        yield made
    finally:
        made.remove()


def _namespace(name: str) -> Mapping[str, object]:
    metadata = {"name": name, "uid": f"uid-{name}"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _serve(node: Node, backend: tuple[str, ...]) -> None:
    """A ClusterIP of each family, as kube-proxy does it."""
    rules = "".join(
        f"{ip} daddr {address} tcp dport 80 dnat {ip} to {target}\n"
        for ip, address, target in (
            ("ip", SERVICE[0], f"{backend[0]}:{PORT}"),
            ("ip6", SERVICE[1], f"[{backend[1]}]:{PORT}"),
        )
    )
    hook = "type nat hook prerouting priority -100;"
    text = f"table inet idle {{\nchain prerouting {{\n{hook}\n{rules}}}\n}}\n"
    with netns.inside(node.name):
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


@contextmanager
def connected(node: Node) -> Iterator[dict[str, Ends]]:
    """A connection by each path in each family."""
    listeners = dict(zip(node.wires, node.listeners, strict=True))
    with ExitStack() as stack:
        found = {}
        for path, server in PATHS.items():
            targets = SERVICE if path == "Service" else node.wires[server].addresses
            for number, address in enumerate(targets):
                kind = (socket.AF_INET, socket.AF_INET6)[number]
                with netns.inside(node.wires[CLIENT].netns):
                    client = stack.enter_context(socket.socket(kind, socket.SOCK_STREAM))
                client.settimeout(patience(10))
                client.connect((address, 80 if path == "Service" else PORT))
                accepted, _ = listeners[server].accept()
                found[f"{path}, IPv{(4, 6)[number]}"] = Ends(client, stack.enter_context(accepted))
        for ends in found.values():
            ends.says(client_first=True)
            assert ends.hears(client_first=True, seconds=patience(10))
        yield found


def rest(node: Node, seconds: int) -> None:
    """Let so much time pass for every connection of the node."""
    pins = loader.find_loaded(node.pin_dir)
    assert pins is not None
    with kernel.open_pin(pins / "ct_map") as handle:
        for key, value in kernel.map_dump(handle.fd, kernel.map_info(handle.fd)):
            entry = layout.ConnectionValue.from_buffer_copy(value)
            entry.last = entry.last - seconds * SECOND
            kernel.map_update(handle.fd, key, bytes(entry))


@pytest.mark.parametrize("client_first", [True, False], ids=["client first", "server first"])
def test_either_side_may_speak_first_as_long_as_the_connection_lives(
    node: Node, client_first: bool
) -> None:
    with connected(node) as ends:
        for _ in range(2):  # what was said keeps it alive for as long again
            rest(node, IDLE_SECONDS - 100)
            for each in ends.values():
                each.says(client_first)
            heard = {name: each.hears(client_first, patience(10)) for name, each in ends.items()}
            assert all(heard.values()), heard


def test_after_that_the_client_may_still_speak_and_is_answered(node: Node) -> None:
    with connected(node) as ends:
        rest(node, IDLE_SECONDS + 100)
        for name, each in ends.items():
            for client_first in (True, False):
                each.says(client_first)
                assert each.hears(client_first, patience(10)), name


def test_after_that_the_server_is_not_heard_until_the_client_has_spoken(node: Node) -> None:
    """But through a Service: what wears a ClusterIP is no pod, and none of the wall's business."""
    with connected(node) as ends:
        rest(node, IDLE_SECONDS + 100)
        for each in ends.values():
            each.says(client_first=False)
        heard = {n: each.hears(False, SILENCE_SECONDS) for n, each in ends.items()}
        assert heard == {name: name.startswith("Service") for name in ends}
        for each in ends.values():
            each.says(client_first=True)
        answered = {name: each.hears(True, patience(10)) for name, each in ends.items()}
        assert all(answered.values()), answered
        again = {n: each.hears(False, patience(10)) for n, each in ends.items() if not heard[n]}
        assert all(again.values()), again
