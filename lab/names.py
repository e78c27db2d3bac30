"""Names and addresses that a lab uses on this machine: pure, so that a crashed lab can be found
again by name.

    ringfence.LAB                  network namespace of the node: routes, veths, programs, agent
    ringfence.LAB.LAB-1            the same of a hollow node, where a lab runs on an API server
    ringfence.LAB.fabric           the bridge between hollow nodes
    ringfence.LAB.NAMESPACE.POD    network namespace of one pod
    rfXXXXXXXXXXXX                 host-side veth of one pod (a hash: names end at 15 characters)
    /run/ringfence/lab/LAB         run directory: ledger, objects, manifests, logs, sockets
    /sys/fs/bpf/ringfence/lab-LAB  pinned programs and maps

A lab's name has no dot and neither has a Kubernetes namespace, so no two pods share a network
namespace's name.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from generators.errors import RingfenceError

NODE = "lab"
"""The one node of a lab, as `spec.nodeName` and for the agent's `--node-name`."""
NODE_ADDRESSES = ("172.31.255.1", "fd00:10:245::1")
"""The node's own addresses, on its loopback: outside the pod ranges, so it is no pod."""
GATEWAYS = ("169.254.1.1", "fe80::1")
"""Next hop of every pod on a network `gateway`: an unused address, whose permanent neighbour entry
leads to the host-side veth.
"""
LOOPBACK = "127.0.0.1"
"""Where an API server listens, and inside every node the uplink to it."""
DEFAULT_LAB = "lab"
POD_INTERFACES = "rf[0-9a-f]*"
"""Host-side veths of pods, for the agent's `--watch-interfaces`."""

RUN_ROOT = Path("/run/ringfence/lab")
PIN_ROOT = Path("/sys/fs/bpf/ringfence")
NETNS_ROOT = Path("/run/netns")
FILE_NAME_MAX = 255

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class Shape(StrEnum):
    """How pods are wired to their node, as CNIs do it."""

    GATEWAY = "gateway"
    """The next hop is an unused address (Calico)."""
    PTP = "ptp"
    """The next hop is an address of the host side of each veth."""
    BRIDGE = "bridge"
    """Pods are behind one bridge, whose address is the next hop (flannel, kubenet)."""


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """The network of one node's pods; by default as Calico makes it."""

    shape: Shape = Shape.GATEWAY
    ranges: tuple[str, ...] = ()
    """The range on the link behind a bridge: one per family."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """The next hop of pods, in each family: the first address of the node's range, or an unused
        one.
        """
        if self.shape is Shape.GATEWAY:
            return GATEWAYS
        return tuple(str(ipaddress.ip_network(cidr)[1]) for cidr in self.ranges)


class BadName(RingfenceError):
    """A lab or pod name that cannot be one."""


@dataclass(frozen=True, slots=True)
class NodePlaces:
    """Where one node of a lab keeps its things, and what its processes are called."""

    name: str
    netns: str
    pins: Path
    enforcer_run: Path
    responder_socket: Path
    journal: Path
    """What the hollow kubelet has made; the node of a lab without API server has none of these."""
    cni_conf: Path
    cni_bin: Path
    enforcer: str
    responder: str
    kubelet: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where one lab keeps its things."""

    name: str

    @property
    def run(self) -> Path:
        """The run directory."""
        return RUN_ROOT / self.name

    @property
    def lock(self) -> Path:
        """Locked by a command that changes the lab; beside the run directory, because that comes
        and goes.
        """
        return RUN_ROOT / f"{self.name}.lock"

    @property
    def pins(self) -> Path:
        """Pinned programs, maps and links."""
        return PIN_ROOT / f"lab-{self.name}"

    @property
    def manifests(self) -> Path:
        """The directory that the agent reads."""
        return self.run / "manifests"

    @property
    def enforcer_run(self) -> Path:
        """The agent's run directory, with its control socket."""
        return self.run / "enforcer"

    @property
    def certificates(self) -> Path:
        """The webhook's certificate and key, and its CA."""
        return self.run / "certificates"

    @property
    def responder_socket(self) -> Path:
        """Where the responder takes the list of pods."""
        return self.run / "responder.sock"

    def log(self, process: str) -> Path:
        """What a process of the lab prints."""
        return self.run / f"{process}.log"

    @property
    def node_netns(self) -> str:
        """The node's network namespace."""
        return f"ringfence.{self.name}"

    @property
    def plane(self) -> Path:
        """Data, certificates and ports of the lab's own API server."""
        return self.run / "api-server"

    @property
    def kubeconfig(self) -> Path:
        """An admin's kubeconfig of the lab's API server."""
        return self.run / "kubeconfig"

    @property
    def inside_kubeconfig(self) -> Path:
        """The same API server as seen from inside a node."""
        return self.run / "kubeconfig-inside"

    @property
    def fabric_netns(self) -> str:
        """The network namespace of the bridge between hollow nodes."""
        return f"{self.node_netns}.fabric"

    def node(self, name: str) -> NodePlaces:
        """The places of one node: the only one of a lab from files, or a hollow one."""
        if name == NODE:
            only = (self.node_netns, self.pins, self.enforcer_run, self.responder_socket)
            none = (Path(), Path(), Path())
            return NodePlaces(name, *only, *none, "enforcer", "responder", "kubelet")
        return NodePlaces(
            name=name,
            netns=f"{self.node_netns}.{name}",
            pins=self.pins / name,
            enforcer_run=self.run / f"enforcer-{name}",
            responder_socket=self.run / f"responder-{name}.sock",
            journal=self.run / f"pods-{name}.json",
            cni_conf=self.run / f"cni-{name}" / "net.d",
            cni_bin=self.run / f"cni-{name}" / "bin",
            enforcer=f"enforcer-{name}",
            responder=f"responder-{name}",
            kubelet=f"kubelet-{name}",
        )

    def pod_netns(self, namespace: str, pod: str) -> str:
        """The pod's network namespace; a name too long for a file gets a hash for its tail."""
        name = f"{self.node_netns}.{namespace}.{pod}"
        if len(name) <= FILE_NAME_MAX:
            return name
        return f"{name[: FILE_NAME_MAX - 17]}-{_digest(name)[:16]}"

    def interface(self, namespace: str, pod: str) -> str:
        """The pod's host-side veth."""
        return f"rf{_digest(f'{namespace}/{pod}')[:12]}"

    def owns_netns(self, netns: str) -> bool:
        """Whether a network namespace has a name that this lab would give."""
        return netns == self.node_netns or netns.startswith(f"{self.node_netns}.")


@dataclass(frozen=True, slots=True, order=True)
class Wire:
    """One pod's wiring: its network namespace, its host-side veth, its addresses."""

    netns: str
    interface: str
    addresses: tuple[str, ...]


def places(name: str) -> Places:
    """The lab of that name, which has to be a short DNS label."""
    if not _DNS_LABEL.fullmatch(name):
        raise BadName(
            f"--name {name!r} cannot name a lab; use up to 40 characters of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit"
        )
    return Places(name)


def pod_key(text: str) -> tuple[str, str]:
    """`NAMESPACE/POD` in two parts."""
    namespace, slash, pod = text.partition("/")
    if not (namespace and slash and pod) or "/" in pod:
        raise BadName(f"{text!r} does not name a pod; write NAMESPACE/POD, such as app-test01/web")
    return namespace, pod


def mac(seed: str) -> str:
    """A locally administered hardware address, the same on every run."""
    digest = bytes.fromhex(_digest(seed)[:10])
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
