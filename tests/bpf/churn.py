"""Two tenants on one node, traffic that is forbidden, denied or allowed, and all that changes.

The programs are the real ones, made slow between finding a value and copying it, with so little
room for connections and fragments that their elements go from one to the next all the time; the
tables come from the real compiler and writer, change by change. Traffic is BPF_PROG_TEST_RUN in
processes of their own, in a network namespace that has an interface for each pod.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether

from enforcer.agent.delays import Tally
from enforcer.agent.writer import MapAccess, TableWriter
from enforcer.compiler.compile import Compiler
from enforcer.datapath import loader
from enforcer.datapath.flows import DropReason
from enforcer.datapath.maps import Maps
from enforcer.policy.changes import Inputs
from enforcer.policy.tables import Dir
from generators.cluster import Cluster
from generators.objects import (
    NAME_LABEL,
    EndpointSlice,
    Namespace,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    PolicyKind,
    PolicyPort,
    Rule,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from generators.reachability.verdicts import VERDICTS, Verdict
from generators.selectors import labels_selector
from generators.tenants.model import Grant, Port, SharedComponent, Tenant, TenantConfig
from tests.testbed.waiting import ending, patience

HERE = "here"
COUNT = 20
"""Pods of each tenant; the second half of `aa` is sent what is allowed, the first what is not."""
HALF = COUNT // 2
TENANTS = ("aa", "bb")
FIRST_INTERFACE = 100
SENDERS = 4
ROOM = {"MAX_CONNECTIONS": 32, "MAX_FRAGMENTS": 16}
"""Fewer than there are of either: whoever comes takes the element of somebody else."""


def widened(pin_dir: Path, widen: int, source: Path | None = None) -> Path:
    """Programs that wait between finding a value and copying it, and have `ROOM`; their pins."""
    copy = pin_dir.with_name(f"{pin_dir.name}-source")
    text = Path("/tmp") / copy.name
    shutil.copytree(source or loader.source_dir(), text)
    try:
        types = text / "lib" / "types.h"
        types.write_text(f"#define RINGFENCE_WIDEN {widen}\n{types.read_text()}")
        maps = text / "lib" / "maps.h"
        sized = maps.read_text()
        for name, room in ROOM.items():
            sized, found = re.subn(rf"(?m)^#define {name} \d+$", f"#define {name} {room}", sized)
            assert found == 1, name
        maps.write_text(sized)
        code = (
            "import sys; from pathlib import Path; from enforcer.datapath import loader; "
            "loader.source_dir = lambda: Path(sys.argv[1]); print(loader.load(Path(sys.argv[2])))"
        )
        pin_dir.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", code, str(text), str(pin_dir)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return Path(done.stdout.split()[-1])
    finally:
        shutil.rmtree(text)


EVERYBODY = labels_selector({"app": "e"})
DENIED = 9705
DENYING = NetworkPolicy(
    "n-aa",
    "denying",
    EVERYBODY,
    ingress=(
        Rule(name="ingress[0]"),
        Rule((Peer(EVERYBODY),), (PolicyPort("TCP", DENIED),), deny=True, name="ingressDeny[0]"),
    ),
    kind=PolicyKind.CILIUM,
)
"""Everybody may call `aa`, its own pods not at one port: who misses that entry finds the other."""


def addresses(tenant: str, number: int) -> tuple[str, str]:
    """Of one pod, in both families."""
    network = TENANTS.index(tenant) + 1
    return f"10.8.{network}.{number + 1}", f"fd08::{network}:{number + 1}"


def interface(tenant: str, number: int) -> int:
    """Of one pod; those of both tenants take turns."""
    return FIRST_INTERFACE + 2 * number + TENANTS.index(tenant)


def pod(tenant: str, number: int, version: int = 0) -> Pod:
    """A pod with labels that tell its version."""
    return Pod(
        f"n-{tenant}",
        f"e{number}",
        {"app": "e", "version": f"{version % 3}"},
        ips=addresses(tenant, number),
        node=HERE,
        uid=f"{tenant}-{number}",
    )


def start() -> Cluster:
    """Everybody is there and nothing has changed yet."""
    names = [*(f"n-{tenant}" for tenant in TENANTS), "n-shared"]
    return Cluster(
        namespaces={name: Namespace(name, {NAME_LABEL: name}) for name in names},
        pods=tuple(pod(tenant, number) for number in range(COUNT) for tenant in TENANTS),
        nodes=(Node(HERE, ("10.9.0.1", "fd09::1")), Node("there", ("10.9.0.2",))),
        policies=(DENYING,),
        config=config(0),
        tenants={f"n-{tenant}": tenant for tenant in TENANTS},
        pod_cidrs=("10.8.0.0/16", "fd08::/64"),
    )


def config(version: int) -> TenantConfig:
    """`cc` may enter `aa` at another port each time."""
    ports = (Port("TCP", 9000 + version % 5),)
    return TenantConfig(
        tenants={
            "aa": Tenant("aa", allow_from=(Grant("cc", ports),)),
            "bb": Tenant("bb"),
            "cc": Tenant("cc", allow_to=(Grant("aa", ports),)),
        },
        shared=(SharedComponent("shared", ("n-shared",)),),
    )


def nodes(cluster: Cluster, turn: int) -> Cluster:
    """Another node has another address: every endpoint is judged anew."""
    return replace(cluster, nodes=(cluster.nodes[0], Node("there", (f"10.9.1.{turn % 200 + 1}",))))


def tenant_file(cluster: Cluster, turn: int) -> Cluster:
    """Every wall is another group."""
    return replace(cluster, config=config(turn))


def pods(cluster: Cluster, turn: int) -> Cluster:
    """Labels of some pods of both tenants, and pods made anew under their old names."""
    changed = {pod(t, n).key: pod(t, n, turn) for t in TENANTS for n in range(turn % 2, COUNT, 2)}
    anew = f"n-bb/e{turn % COUNT}"
    if anew in changed:
        changed[anew] = replace(changed[anew], uid=f"anew-{turn}")
    return replace(cluster, pods=tuple(changed.get(p.key, p) for p in cluster.pods))


def policies(cluster: Cluster, turn: int) -> Cluster:
    """Policies that always let the own namespace in, and somebody else too."""
    own = Rule(peers=(Peer(pod_selector=EVERYBODY),))
    some = Rule(
        peers=(Peer(pod_selector=labels_selector({"version": f"{turn % 3}"})),),
        ports=(PolicyPort("TCP", 1000 + turn % 7, 1100 + turn % 7),),
    )
    found = tuple(
        NetworkPolicy(f"n-{tenant}", "p", EVERYBODY, ingress=(own, some)) for tenant in TENANTS
    )
    return replace(cluster, policies=(DENYING, *(found if turn % 4 else ())))


def services(cluster: Cluster, turn: int) -> Cluster:
    """A Service of `bb` with other backends each time."""
    behind = [SliceEndpoint((addresses("bb", (turn + n) % COUNT)[0],)) for n in range(3)]
    piece = EndpointSlice("n-bb", "s-1", "s", tuple(behind), (SlicePort(8080),))
    service = Service(
        "n-bb", "s", cluster_ips=("10.96.0.1",), ports=(ServicePort(80, target=8080),)
    )
    return replace(cluster, services=(service,), slices=(piece,))


KINDS: Mapping[str, Callable[[Cluster, int], Cluster]] = {
    kind.__name__: kind for kind in (nodes, tenant_file, pods, policies, services)
}


def _frames(source: tuple[str, str], target: tuple[str, str]) -> Iterator[bytes]:
    """UDP, SYNs, a segment in mid-stream and a datagram in two pieces, in both families."""
    datagram = UDP(sport=9703, dport=9703, len=24, chksum=0) / bytes(8)
    pieces = {
        IP: ((IP(proto=17, id=7, flags="MF"), datagram), (IP(proto=17, id=7, frag=2), bytes(8))),
        IPv6: (
            (IPv6() / IPv6ExtHdrFragment(nh=17, id=7, m=1), datagram),
            (IPv6() / IPv6ExtHdrFragment(nh=17, id=7, offset=2), bytes(8)),
        ),
    }
    for header, place in ((IP, 0), (IPv6, 1)):
        whole = (
            (header(), UDP(sport=9700, dport=9700) / b"x"),
            (header(), TCP(sport=9701, dport=80, flags="S")),
            (header(), TCP(sport=9702, dport=81, flags="A")),
            (header(), TCP(sport=9704, dport=DENIED, flags="S")),
        )
        for ends, transport in (*whole, *pieces[header]):
            ends[header].src, ends[header].dst = source[place], target[place]
            yield bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ends / transport)


def traffic(share: int, *, leaving: bool) -> list[tuple[str, int, str]]:
    """What one sender sends: from `bb` to the first half of `aa`, and within `aa`'s second."""
    found: list[tuple[str, int, str]] = []
    for number in range(share, COUNT, SENDERS):
        target, neighbour = addresses("aa", number), addresses("aa", HALF + (number + 1) % HALF)
        stranger = addresses("bb", (number * 7) % COUNT)
        forbidden = number < HALF
        for frame in _frames(stranger if forbidden else neighbour, target):
            found.append(("to_pod", interface("aa", number), frame.hex()))
        if forbidden and leaving:
            for frame in _frames(target, stranger):
                found.append(("from_pod", interface("aa", number), frame.hex()))
    return found


@dataclass
class Seen:
    """What came of it."""

    sent: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)
    """What passed that must not: connections, and packets by endpoint."""
    lost: dict[str, int] = field(default_factory=dict)
    """Packets within `aa` that did not pass, by reason, but for pieces whose first is forgotten."""
    connections: set[object] = field(default_factory=set)
    """All that were there at one time or another."""


class World:
    """The maps, what they should hold, and what has become of the traffic."""

    def __init__(self, pins: Path, maps: Maps) -> None:
        self.pins = pins
        self._maps = maps
        self._compiler = Compiler(HERE)
        self._cluster = start()
        self._interfaces = {pod(t, n).key: interface(t, n) for t in TENANTS for n in range(COUNT)}
        self._writer = TableWriter(
            self._compiler, MapAccess(maps.read, maps.apply), Tally(), maps.forget
        )
        self.put(self._cluster)

    def put(self, cluster: Cluster) -> None:
        """Have the kernel hold what follows from these objects."""
        self._cluster = cluster
        self._compiler.become(Inputs(cluster, self._interfaces))
        self._writer.write()

    def change(self, kind: str, turn: int) -> None:
        """One change of a kind."""
        self.put(KINDS[kind](self._cluster, turn))

    def look(self, seen: Seen) -> None:
        """What has arrived by now, and what has not."""
        tenant_of = {a: t for t in TENANTS for n in range(COUNT) for a in addresses(t, n)}
        for connection in self._maps.connections():
            seen.connections.add(
                (
                    connection.endpoint,
                    connection.protocol,
                    (connection.local, connection.local_port),
                    (connection.remote, connection.remote_port),
                )
            )
            ends = tenant_of[connection.local], tenant_of[connection.remote]
            if ends[0] != ends[1] or DENIED in (connection.local_port, connection.remote_port):
                seen.arrived.append(f"{connection}")
        entries = self._compiler.tables().endpoints
        allowed = {entries[interface("aa", n)].endpoint for n in range(HALF, COUNT)}
        seen.lost = {}
        for told in self._maps.statistics():
            if told.direction is not Dir.INGRESS:
                continue
            pushed_out = told.reason == DropReason.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND
            meant = pushed_out or told.reason == DropReason.POLICY_DENY
            if told.endpoint in allowed and told.verdict == DROPPED and not meant:
                seen.lost[str(told.reason)] = seen.lost.get(str(told.reason), 0) + told.packets
            if told.endpoint not in allowed and told.verdict != DROPPED:
                seen.arrived.append(f"{told}")


DROPPED = VERDICTS.index(Verdict.DROPPED)


def run(
    pins: Path,
    namespace: str,
    seconds: float,
    kinds: tuple[str, ...] = tuple(KINDS),
    *,
    leaving: bool = True,
) -> Seen:
    """Traffic and changes for so long, or until something arrives."""
    seen = Seen()
    with Maps.open(pins) as maps, ExitStack() as stack:
        world = World(pins, maps)
        senders = [
            stack.enter_context(sending(pins, namespace, traffic(share, leaving=leaving)))
            for share in range(SENDERS)
        ]
        deadline, looked = time.monotonic() + seconds, time.monotonic()
        for turn, kind in zip(itertools.count(), itertools.cycle(kinds)):
            if time.monotonic() > deadline or seen.arrived:
                break
            world.change(kind, turn)
            seen.changes[kind] = seen.changes.get(kind, 0) + 1
            if time.monotonic() > looked + 1:
                world.look(seen)
                looked = time.monotonic()
        seen.sent = sum(ended(sender) for sender in senders)
        world.look(seen)
    return seen


@contextmanager
def sending(
    pins: Path, namespace: str, frames: list[tuple[str, int, str]]
) -> Iterator[subprocess.Popen[str]]:
    """A sender that runs."""
    command = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-m", "tests.bpf.sender"]
    sender = subprocess.Popen(
        [*command, str(pins)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with ending(sender) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(frames) + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def ended(sender: subprocess.Popen[str]) -> int:
    """End a sender; how much it has sent."""
    told, _ = sender.communicate(timeout=patience(30))
    return int(told)


@contextmanager
def interfaces() -> Iterator[str]:
    """A network namespace with an interface for each pod."""
    name = f"rft-churn-{token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = [
            f"link add c{n} index {FIRST_INTERFACE + 2 * n} type veth peer name d{n} "
            f"index {FIRST_INTERFACE + 2 * n + 1}"
            for n in range(COUNT)
        ]
        subprocess.run(
            ["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True
        )
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
