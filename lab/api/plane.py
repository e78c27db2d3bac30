"""A real control plane on loopback: its command lines, certificates and kubeconfigs.

The lab starts the programs as processes of its own (control_plane.py), the tests as children that
die with them (tests/testbed/plane.py); both ask here what to start. RBAC is on, identities are
client certificates. Peculiarities of each program are explained beside its flag.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab.names import LOOPBACK

if TYPE_CHECKING:
    from generators.certificates import Authority, Leaf

ADMINS = ("system:masters",)
SERVICE_RANGES = ("10.96.0.0/16", "fd00:10:96::/112")
ADMIN_PEM = "admin.pem"
DAYS = 90
"""The life of certificates."""
LISTENING = range(10_240, 30_000)
"""Ports below those of NodePorts, and of the kernel (net.ipv4.ip_local_port_range)."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the programs listen on loopback."""

    etcd: int
    etcd_peer: int
    apiserver: int
    controller_manager: int

    @staticmethod
    def free() -> Ports:
        """Ports that were free a moment ago."""
        return Ports(*free_ports(4))


@dataclass(frozen=True, slots=True)
class Plane:
    """One control plane: `folder` holds its data, `binaries` its programs."""

    folder: Path
    binaries: Path
    ports: Ports
    reached_at: str = ""
    """Its address for real nodes and their pods; empty: it is on loopback, for hollow ones."""

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"https://{LOOPBACK}:{self.ports.apiserver}"

    def etcd(self) -> tuple[str, ...]:
        """etcd's command line."""
        client = f"http://{LOOPBACK}:{self.ports.etcd}"
        peer = f"http://{LOOPBACK}:{self.ports.etcd_peer}"
        return (
            str(self.binaries / "etcd"),
            "--name=ringfence",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=ringfence={peer}",
            # Data that nobody keeps need not reach the disk.
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def apiserver(self, *further: str) -> tuple[str, ...]:
        """kube-apiserver's command line."""
        return (
            str(self.binaries / "kube-apiserver"),
            f"--etcd-servers=http://{LOOPBACK}:{self.ports.etcd}",
            *self._for_nodes(),
            f"--secure-port={self.ports.apiserver}",
            f"--cert-dir={self.folder}",
            f"--tls-cert-file={self._pem('apiserver.crt')}",
            f"--tls-private-key-file={self._pem('apiserver.key')}",
            f"--client-ca-file={self._pem('ca.crt')}",
            f"--service-cluster-ip-range={','.join(SERVICE_RANGES)}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self._pem('service-accounts.key')}",
            f"--service-account-key-file={self._pem('service-accounts.pub')}",
            f"--requestheader-client-ca-file={self._pem('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={self._pem('front-proxy.crt')}",
            f"--proxy-client-key-file={self._pem('front-proxy.key')}",
            "--profiling=false",
            *further,
        )

    def _for_nodes(self) -> tuple[str, ...]:
        """What depends on the kind of nodes."""
        if not self.reached_at:
            return (
                f"--bind-address={LOOPBACK}",
                f"--advertise-address={LOOPBACK}",
                # Loopback is no address for an Endpoints object, and nobody needs
                # `kubernetes.default`.
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                # Nobody would take the taint away again: no node-lifecycle controller runs.
                "--disable-admission-plugins=TaintNodesByCondition",
            )
        return (
            "--bind-address=0.0.0.0",
            f"--advertise-address={self.reached_at}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={self._pem('kubelet-client.crt')}",
            f"--kubelet-client-key={self._pem('kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            # It has no kube-proxy: webhooks are called by the addresses of their pods.
            "--enable-aggregator-routing=true",
        )

    def controller_manager(self, kubeconfig: Path) -> tuple[str, ...]:
        """kube-controller-manager's command line."""
        return (
            str(self.binaries / "kube-controller-manager"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={self.ports.controller_manager}",
            f"--cert-dir={self.folder}",
            "--leader-elect=false",
            # Its own identity may do next to nothing; each controller has a role of its own.
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._pem('service-accounts.key')}",
            f"--root-ca-file={self._pem('ca.crt')}",
            # node-lifecycle marks the pods of hollow nodes NotReady in a race with them.
            f"--controllers=*{'' if self.reached_at else ',-node-lifecycle-controller'}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def write_certificates(self, authority: Authority) -> None:
        """Everything that the programs read, and what `get` asks with."""
        # Imported by whoever makes some: all other commands of a lab start without cryptography.
        from cryptography.hazmat.primitives import serialization

        from generators import certificates

        front = authority_named("ringfence-front-proxy")
        names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        pairs = {
            "apiserver": server_pair(authority, *names, LOOPBACK, "10.96.0.1"),
            "front-proxy": client_pair(front, "front-proxy"),
            "kubelet-client": client_pair(authority, "kube-apiserver-kubelet-client", ADMINS),
        }
        accounts = certificates.new_key()
        public = accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        admin = client_pair(authority, "admin", ADMINS)
        files = {
            "ca.crt": authority.pem,
            "front-proxy-ca.crt": front.pem,
            "service-accounts.key": certificates.private_pem(accounts),
            "service-accounts.pub": public,
            ADMIN_PEM: admin.certificate + admin.key,
        }
        for name, pair in pairs.items():
            files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
        for name, content in files.items():
            self._pem(name).touch(mode=0o600)
            self._pem(name).write_bytes(content)

    def write_kubeconfig(self, path: Path, user: str, credentials: Mapping[str, str]) -> None:
        """A kubeconfig for this API server."""
        authority = _base64(self._pem("ca.crt").read_bytes())
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "ringfence",
                    "cluster": {"server": self.url, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": user, "user": dict(credentials)}],
            "contexts": [{"name": "ringfence", "context": {"cluster": "ringfence", "user": user}}],
            "current-context": "ringfence",
        }
        path.touch(mode=0o600)
        # JSON is YAML: every reader of kubeconfigs takes it.
        path.write_text(json.dumps(config, indent=1))

    def get(self, path: str) -> int:
        """The status of a GET as an admin; 0 without an answer."""
        context = ssl.create_default_context(cafile=str(self._pem("ca.crt")))
        context.load_cert_chain(self._pem(ADMIN_PEM))
        connection = http.client.HTTPSConnection(
            LOOPBACK, self.ports.apiserver, timeout=5, context=context
        )
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                return connection.getresponse().status
            except (OSError, http.client.HTTPException):
                return 0

    def ready(self) -> bool:
        """Whether the API server serves."""
        return self.get("/readyz") == http.HTTPStatus.OK

    def has_default_service_account(self) -> bool:
        """Whether the controller-manager is at work."""
        path = "/api/v1/namespaces/default/serviceaccounts/default"
        return self.get(path) == http.HTTPStatus.OK

    def _pem(self, name: str) -> Path:
        return self.folder / name


def authority_named(name: str) -> Authority:
    """A throw-away CA, for as long as a lab or a test lives."""
    from generators.certificates import new_authority

    return new_authority(datetime.now(UTC), DAYS, name)


def server_pair(authority: Authority, *hosts: str) -> Leaf:
    """A serving certificate for names and addresses."""
    from generators.certificates import issue

    return issue(authority, hosts, datetime.now(UTC), DAYS)


def client_pair(authority: Authority, user: str, groups: Sequence[str] = ()) -> Leaf:
    """What proves to the API server to be this user of these groups."""
    from generators.certificates import issue_client

    return issue_client(authority, user, groups, datetime.now(UTC), DAYS)


def certificate_credentials(pair: Leaf) -> dict[str, str]:
    """A client certificate as a kubeconfig carries it."""
    return {
        "client-certificate-data": _base64(pair.certificate),
        "client-key-data": _base64(pair.key),
    }


def free_ports(count: int) -> Sequence[int]:
    """Loopback ports that were free a moment ago; all held at once so that they differ.

    None that the kernel gives to connections by itself: one would be gone before it is used.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            one, port = held.enter_context(socket.socket()), secrets.choice(LISTENING)
            with contextlib.suppress(OSError):
                one.bind((LOOPBACK, port))
                found.append(port)
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
