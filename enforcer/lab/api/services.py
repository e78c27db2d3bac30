"""ClusterIPs on a hollow node: a kube-proxy of one nftables table in the node's network namespace.

The kubelet runs it beside its pods. Each Service port becomes one rule that sends new connections
to a backend at random, as the EndpointSlices name them. The programs on the client's veth have
seen the ClusterIP, those on the backend's veth see the backend: both judge. What may surprise: a
pod whose Service picks that very pod gets no answer, as nothing is masqueraded here.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from enforcer.lab import netns
from generators.addresses import Family, family
from generators.errors import RingfenceError
from generators.kube.client import Client
from generators.kube.documents import Document
from generators.kube.reflector import Reflector
from generators.kube.resources import ENDPOINT_SLICES, SERVICES, Key
from generators.logs import event
from generators.manifests import parse_object
from generators.objects import EndpointSlice, Origin, Service
from generators.services import Backend, ServiceKey, service_map

log = logging.getLogger("ringfence.lab.services")

TABLE = "ringfence-lab-services"
PRIORITY = -100
"""`dstnat`, whose name nft knows for one of the two hooks only."""
COLLECT_SECONDS = 0.02
RETRY_SECONDS = 1.0
_ORIGIN = Origin("api-server", 1)


class ProxyFailed(RingfenceError):
    """nftables does not take the rules."""

    exit_code = 1


def ruleset(services: Mapping[ServiceKey, Sequence[Backend]]) -> str:
    """The whole table, replaced in one transaction."""
    rules = "".join(f"\t\t{_rule(key, backends)}\n" for key, backends in services.items())
    chains = "".join(
        f"\tchain {hook} {{\n"
        f"\t\ttype nat hook {hook} priority {PRIORITY}; policy accept;\n{rules}\t}}\n"
        for hook in ("prerouting", "output")
    )
    return f"table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{chains}}}\n"


def _rule(key: ServiceKey, backends: Sequence[Backend]) -> str:
    ip = "ip" if family(key.address) is Family.IPV4 else "ip6"
    protocol = key.protocol.lower()
    targets = ", ".join(f"{n} : {b.address} . {b.port}" for n, b in enumerate(backends))
    return (
        f"{ip} daddr {key.address} {protocol} dport {key.port} "
        f"dnat {ip} to numgen random mod {len(backends)} map {{ {targets} }}"
    )


class Proxy:
    """Follows Services and EndpointSlices; `run` in a thread until `stop`."""

    def __init__(self, client: Client, node_netns: str) -> None:
        self._netns = node_netns
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._written = ""
        self._services = Reflector(client, SERVICES, _service, self._wake)
        self._slices = Reflector(client, ENDPOINT_SLICES, _slice, self._wake)

    def run(self) -> None:
        """Write the rules after each change until stopped."""
        for reflector in (self._services, self._slices):
            reflector.start()
        while not self._stopping.is_set():
            self._changed.wait()
            self._stopping.wait(COLLECT_SECONDS)
            self._changed.clear()
            try:
                self._write()
            except (RingfenceError, OSError) as error:
                event(log, "services_failed", logging.ERROR, error=str(error))
                self._stopping.wait(RETRY_SECONDS)
                self._changed.set()

    def stop(self) -> None:
        """End `run`; the rules stay."""
        self._stopping.set()
        self._changed.set()
        for reflector in (self._services, self._slices):
            reflector.stop()

    def _wake(self, _: Key) -> None:
        self._changed.set()

    def _write(self) -> None:
        if self._stopping.is_set() or not (self._services.synced and self._slices.synced):
            return
        services = self._services.store.snapshot().values()
        slices = self._slices.store.snapshot().values()
        text = ruleset(service_map(services, slices, ()))
        if text != self._written:
            apply(text, self._netns)
            self._written = text


def apply(text: str, where: str) -> None:
    """Have the kernel take a ruleset, in the named network namespace."""
    program = next((p for p in ("/usr/sbin/nft", "/sbin/nft") if Path(p).exists()), "nft")
    with netns.inside(where):
        done = subprocess.run(
            [program, "-f", "-"], input=text, capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise ProxyFailed(f"nft refuses the Services: {done.stderr.strip()}")


def _service(document: Document) -> Service | None:
    item = parse_object(document, _ORIGIN)
    return item if isinstance(item, Service) else None


def _slice(document: Document) -> EndpointSlice | None:
    item = parse_object(document, _ORIGIN)
    return item if isinstance(item, EndpointSlice) else None
