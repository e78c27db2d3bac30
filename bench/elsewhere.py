"""When other nodes know a pod: two hollow nodes on a real API server.

An address goes back and forth between pods of two tenants. They are bound to a node without a
kubelet and their status is written here, so that the time from that write on is the agents' alone,
until the maps of both nodes say so. Then pods start on one node and send at once, to a pod beside
them and to one on the other node: a sample begins with the first datagram that the pod's own kernel
takes.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from bench.arrival import OWNER, PORT, runs
from bench.measure import Comparison, Scale, Series, Unit
from bench.traffic import lab
from enforcer.datapath import kernel, layout
from generators.documents.json import Document, mapping, text
from generators.kube.client import Client, PatchKind
from generators.kube.resources import NAMESPACES, PODS
from lab import machine, netns
from lab.names import Places
from lab.topology import LabNode, lab_nodes
from tests.testbed.waiting import eventually

TENANTS = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - {name: test01, namespaces: {suffixes: ["-test01"]}}
  - {name: test02, namespaces: {suffixes: ["-test02"]}}
"""
SPACES = ("app-test01", "app-test02")
NOWHERE = "nowhere"
"""The node of pods that only claim to run."""
HOST = 250
"""Of the address that changes hands: the nodes give the low ones to their own pods."""
POLL_SECONDS = 0.0002
GAP_SECONDS = 0.0005
AT_MOST_SECONDS = 20.0
NEAR, FAR = "near", "far"


@dataclass(frozen=True, slots=True)
class Lab:
    """Two nodes, and who writes at their API server."""

    client: Client
    places: Places
    nodes: Sequence[LabNode]


def run(scale: Scale) -> Iterator[Comparison]:
    """Owners of an address, then first datagrams."""
    machine.check()
    with _lab() as made:
        yield _owners(made, scale.of(200, 2))
        yield _first(made, scale.of(60, 2))


@contextmanager
def _lab() -> Iterator[Lab]:
    places = Places(f"bench-{token_hex(3)}")
    with TemporaryDirectory(prefix="ringfence-bench-") as folder, ExitStack() as stack:
        tenants = Path(folder, "tenants.yaml")
        tenants.write_text(TENANTS)
        stack.callback(lab, "down", places)
        lab("up", places, "--api-server", "--nodes", "2", "-c", str(tenants))
        kubeconfig = json.loads(lab("status", places, "-o", "json"))["kubeconfig"]
        client = stack.enter_context(Client.connect(kubeconfig))
        for name in SPACES:
            client.create(NAMESPACES, {"metadata": {"name": name}}, manager=OWNER)
        yield Lab(client, places, tuple(lab_nodes(places, 2)))


# --- an address and its owners --------------------------------------------------------------------


def _owners(made: Lab, rounds: int) -> Comparison:
    """The address of one pod after the other, each of the other tenant than the one before."""
    addresses = made.nodes[1].pod_addresses(HOST)
    samples: dict[str, list[float]] = {
        key: [] for key in ("written", "known", "ended", "forgotten")
    }
    with ExitStack() as stack:
        watcher = stack.enter_context(ThreadPoolExecutor(1))
        maps = [stack.enter_context(_address_map(node)) for node in made.nodes]

        def held() -> list[bytes | None]:
            return [_value(handle, address) for handle in maps for address in addresses]

        for number in range(rounds):
            space, name = SPACES[number % 2], f"owner-{number}"
            made.client.create(PODS, _pod(space, name, NOWHERE), manager=OWNER)
            starts = partial(_run, made.client, space, name, addresses)
            ends = partial(made.client.delete, PODS, name, space, grace_seconds=0)
            both = (
                *_timed(watcher, starts, lambda: all(held())),
                *_timed(watcher, ends, lambda: not any(held())),
            )
            for key, sample in zip(samples, both, strict=True):
                samples[key].append(sample)
    names = {
        "written": "the write alone, status of the new pod",
        "known": "written, until both nodes' maps name the new owner",
        "ended": "the write alone, deletion of the old pod",
        "forgotten": "deleted, until both nodes' maps name nobody",
    }
    series = tuple(Series(names[key], Unit.SECONDS, tuple(s)) for key, s in samples.items())
    return Comparison("An address that changes its owner, on two other nodes", series)


def _timed(
    watcher: ThreadPoolExecutor, write: Callable[[], object], holds: Callable[[], bool]
) -> tuple[float, float]:
    """Seconds from the beginning of a write to its end, and until something holds."""
    start = time.monotonic()
    seen = watcher.submit(_when, holds)
    write()
    written = time.monotonic() - start
    return written, seen.result() - start


def _when(holds: Callable[[], bool]) -> float:
    eventually(holds, "both nodes follow", AT_MOST_SECONDS, POLL_SECONDS)
    return time.monotonic()


@contextmanager
def _address_map(node: LabNode) -> Iterator[kernel.Handle]:
    (pins,) = node.places.pins.glob("v*")
    with kernel.open_pin(pins / "addr_map") as handle:
        yield handle


def _value(handle: kernel.Handle, address: str) -> bytes | None:
    size = kernel.map_info(handle.fd).value_size
    return kernel.map_lookup(handle.fd, layout.pack_address(address), size)


def _run(client: Client, namespace: str, name: str, addresses: Sequence[str]) -> None:
    """Say that a pod runs, as a kubelet does."""
    status: Document = {
        "phase": "Running",
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
    }
    client.patch(
        PODS,
        name,
        namespace,
        {"status": status},
        kind=PatchKind.MERGE,
        manager=OWNER,
        subresource="status",
    )


# --- a pod and its first datagram -----------------------------------------------------------------


def _first(made: Lab, rounds: int) -> Comparison:
    """From the first datagram that a new pod sends to the first that arrives."""
    space = SPACES[0]
    receivers = {NEAR: made.nodes[1].name, FAR: made.nodes[0].name}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in receivers}
    with ExitStack() as stack:
        sockets = {}
        for name, node in receivers.items():
            made.client.create(PODS, _pod(space, name, node), manager=OWNER)
        for name in receivers:
            eventually(lambda: runs(made.client, space, name), "the receivers run")  # noqa: B023
            status = mapping(made.client.get(PODS, name, space), "status")
            sockets[name] = stack.enter_context(_socket_of(made.places.pod_netns(space, name)))
            sockets[name].bind((text(status, "podIP"), PORT))
        for number in range(rounds):
            name = f"sender-{number}"
            made.client.create(PODS, _pod(space, name, receivers[NEAR]), manager=OWNER)
            for key, arrived in _arrivals(made.places.pod_netns(space, name), sockets).items():
                found[key].append(arrived)
            made.client.delete(PODS, name, space, grace_seconds=0)
    names = {NEAR: "to a pod on the same node", FAR: "to a pod on another node"}
    return Comparison(
        "A new pod that is allowed: from its first datagram to the first that arrives",
        tuple(
            Series(
                names[key],
                Unit.SECONDS,
                tuple(seconds for seconds, _ in arrived),
                {"datagrams lost, p50": str(sorted(n for _, n in arrived)[len(arrived) // 2])},
            )
            for key, arrived in found.items()
        ),
    )


def _arrivals(
    sender: str, receivers: Mapping[str, socket.socket]
) -> Mapping[str, tuple[float, int]]:
    """Seconds until one of the sender's datagrams is there, and how many it had sent before."""
    targets = [opened.getsockname() for opened in receivers.values()]
    arrived: dict[str, tuple[float, int]] = {}
    sent: list[float] = []

    def step() -> bool:
        if _sent(out, targets):
            sent.append(time.monotonic())
        for name in receivers.keys() - arrived.keys():
            if _came(receivers[name], out.getsockname()[1]):
                arrived[name] = (time.monotonic() - sent[0], len(sent) - 1)
        return len(arrived) == len(receivers)

    with _socket_of(sender) as out:
        eventually(step, "datagrams arrive", AT_MOST_SECONDS, GAP_SECONDS)
    return arrived


def _sent(out: socket.socket, targets: Iterable[tuple[str, int]]) -> bool:
    """Whether the pod's kernel takes datagrams by now: it has addresses and routes."""
    try:
        for target in targets:
            out.sendto(b"x", target)
    except OSError:
        return False
    return True


def _came(receiver: socket.socket, port: int) -> bool:
    """Whether anything from that port is there; what others left over is forgotten."""
    with suppress(BlockingIOError):
        while True:
            if receiver.recvfrom(16)[1][1] == port:
                return True
    return False


def _socket_of(pod: str) -> socket.socket:
    """A socket in the network of a pod, as soon as there is one."""

    def is_there() -> bool:
        with suppress(netns.Gone), netns.inside(pod):
            return True
        return False

    eventually(is_there, f"{pod} is there", AT_MOST_SECONDS, GAP_SECONDS)
    with netns.inside(pod):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setblocking(False)
    return opened


def _pod(namespace: str, name: str, node: str) -> Document:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
    }
