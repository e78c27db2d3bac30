"""A real control plane on loopback: etcd, kube-apiserver, kube-controller-manager; thrown away.

    with ControlPlane() as plane:
        plane.kubectl("create", "namespace", "app-test01", user="alice", groups=["team-test01"])

Ready in about three seconds. RBAC is on, identities are client certificates or ServiceAccount
tokens. Several planes run side by side. Deleting a namespace takes the controller-manager about
five seconds: give each test its own, do not wait.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import http.client
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import IO, Self

from generators.certificates import Authority
from lab.api.plane import (
    ADMINS,
    Plane,
    Ports,
    authority_named,
    certificate_credentials,
    client_pair,
)
from tests.testbed import build
from tests.testbed.processes import Child
from tests.testbed.waiting import eventually, patience

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
START_ATTEMPTS = 3
FOLDER_PREFIX = "ringfence-plane-"
CLAIM = "claim"


class Controllers(Enum):
    """Whether kube-controller-manager runs.

    Without it the start is a second faster, but namespaces stay Terminating and have no
    ServiceAccounts.
    """

    RUN = "run"
    LEAVE_OUT = "leave out"


class PlaneFailed(AssertionError):
    """The control plane did not start; the message ends with the words of the program concerned."""


class ControlPlane:
    """One cluster without nodes, from `start` to `stop`."""

    def __init__(
        self,
        *,
        controllers: Controllers = Controllers.RUN,
        apiserver_flags: Sequence[str] = (),
        say: build.Say = lambda _: None,
    ) -> None:
        self._controllers = controllers
        self._apiserver_flags = tuple(apiserver_flags)
        self._say = say
        self._folder = Path()
        self._claim: IO[str] = io.StringIO()
        self._plane = Plane(Path(), Path(), Ports(0, 0, 0, 0))
        self._authority = authority_named("ringfence-testbed")
        self._children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the API server is ready and, with controllers, makes ServiceAccounts."""
        binaries = build.ensure(build.KUBERNETES, self._say)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once(binaries)
            except PlaneFailed:
                self.stop()
                # A port can be taken between looking and using; all else fails again.
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def _start_once(self, binaries: Path) -> None:
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        # It has its name when it is locked: others sweep away what they can lock.
        unnamed = self._folder / f"{CLAIM}.new"
        self._claim = unnamed.open("w")
        fcntl.flock(self._claim, fcntl.LOCK_EX)
        unnamed.rename(self._folder / CLAIM)
        self._plane = Plane(self._folder, binaries, Ports.free())
        self._plane.write_certificates(self._authority)
        self._spawn("etcd", self._plane.etcd())
        self.start_apiserver()
        if self._controllers is Controllers.RUN:
            self._start_controller_manager()
            self._wait("default ServiceAccount", self._plane.has_default_service_account)

    def stop(self) -> None:
        """Kill every program by pid and remove the data."""
        for child in reversed(self._children.values()):
            child.kill()
        self._children.clear()
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._claim.close()
            self._folder = Path()

    def pause(self) -> None:
        """Take no time of a core until `resume`; three idle programs take some percent of one."""
        for child in self._children.values():
            child.pause()

    def resume(self) -> None:
        """Undo `pause`; returns when the API server is ready again."""
        for child in self._children.values():
            child.resume()
        self._wait("kube-apiserver", self._plane.ready)

    def stop_apiserver(self) -> None:
        """Kill the API server and leave etcd: what a crash of the control plane looks like."""
        self._children.pop("kube-apiserver").kill()

    def start_apiserver(self) -> None:
        """Start it on the port that it had before, and wait until it is ready."""
        self._spawn("kube-apiserver", self._plane.apiserver(*self._apiserver_flags))
        self._wait("kube-apiserver", self._plane.ready)

    def child(self, name: str) -> Child:
        """The running program of that name, e.g. to pause it."""
        return self._children[name]

    @property
    def whole(self) -> bool:
        """Whether everything runs that runs after the start."""
        wanted = 2 if self._controllers is Controllers.LEAVE_OUT else 3
        return [child.ended for child in self._children.values()] == [False] * wanted

    @property
    def pids(self) -> dict[str, int]:
        """Program -> pid."""
        return {name: child.pid for name, child in self._children.items()}

    # --- for tests ------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Throw-away folder of certificates, data and logs; a test may put its own files there."""
        return self._folder

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return self._plane.url

    @property
    def port(self) -> int:
        """The API server's port on loopback."""
        return self._plane.ports.apiserver

    @property
    def ca(self) -> bytes:
        """PEM of the authority that signed the API server and all clients."""
        return self._authority.pem

    @property
    def authority(self) -> Authority:
        """For a test that needs a certificate the API server or a client trusts."""
        return self._authority

    def kubeconfig(self, user: str = "admin", groups: Sequence[str] = ADMINS) -> Path:
        """A kubeconfig with a client certificate of that user and those groups."""
        digest = hashlib.sha256("\0".join((user, *groups)).encode()).hexdigest()[:12]
        path = self._folder / f"kubeconfig-{digest}"
        if not path.exists():
            pair = client_pair(self._authority, user, groups)
            self._plane.write_kubeconfig(path, user, certificate_credentials(pair))
        return path

    def token_kubeconfig(self, token: str, *, name: str = "token") -> Path:
        """A kubeconfig with a bearer token."""
        path = self._folder / f"kubeconfig-token-{hashlib.sha256(token.encode()).hexdigest()[:12]}"
        self._plane.write_kubeconfig(path, name, {"token": token})
        return path

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of that ServiceAccount, which must exist."""
        token = self.kubectl("create", "token", name, "-n", namespace).strip()
        return self.token_kubeconfig(token, name=f"system:serviceaccount:{namespace}:{name}")

    def kubectl(
        self,
        *arguments: str,
        user: str = "admin",
        groups: Sequence[str] = ADMINS,
        stdin: str | None = None,
    ) -> str:
        """What kubectl prints; `subprocess.CalledProcessError` with its stderr when it fails."""
        done = self.try_kubectl(*arguments, user=user, groups=groups, stdin=stdin)
        if done.returncode != 0:
            error = subprocess.CalledProcessError(
                done.returncode, done.args, done.stdout, done.stderr
            )
            error.add_note(done.stderr)
            raise error
        return done.stdout

    def try_kubectl(
        self,
        *arguments: str,
        user: str = "admin",
        groups: Sequence[str] = ADMINS,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """The same for calls that are expected to be refused."""
        config = self.kubeconfig(user, groups)
        return subprocess.run(
            [self._plane.binaries / "kubectl", f"--kubeconfig={config}", *arguments],
            # Its discovery cache would otherwise land in the home folder, by ports that come again.
            env=os.environ | {"KUBECACHEDIR": str(self._folder / "kubectl-cache")},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience(READY_SECONDS),
            check=False,
        )

    def compact_history(self) -> None:
        """Make etcd forget old revisions, as it does every five minutes in a cluster."""
        head = self.etcd("/v3/kv/range", {"key": base64.b64encode(b"/").decode()})["header"]
        assert isinstance(head, dict)
        self.etcd("/v3/kv/compaction", {"revision": head["revision"], "physical": True})

    def etcd(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """etcd speaks JSON beside gRPC."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self._plane.ports.etcd, timeout=patience(10)
        )
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, object] = json.loads(response.read())
        assert response.status == http.HTTPStatus.OK, answer
        return answer

    # --- programs -------------------------------------------------------------------------------

    def _spawn(self, name: str, command: Sequence[str | Path]) -> None:
        self._children[name] = Child(name, command, self._folder / f"{name}.log")

    def _start_controller_manager(self) -> None:
        if not (self._plane.binaries / "kube-controller-manager").exists():
            raise PlaneFailed(
                f"{self._plane.binaries} has no kube-controller-manager: start the plane with "
                "Controllers.LEAVE_OUT, or unset KUBEBUILDER_ASSETS"
            )
        config = self.kubeconfig("system:kube-controller-manager", ())
        self._spawn("kube-controller-manager", self._plane.controller_manager(config))

    # --- waiting --------------------------------------------------------------------------------

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        def is_done() -> bool:
            for child in self._children.values():
                if child.ended:
                    raise PlaneFailed(f"{child.name} ended at start:\n{child.last_words()}")
            return done()

        try:
            eventually(is_done, f"{what} is ready", READY_SECONDS, POLL_SECONDS)
        except AssertionError as late:
            words = "\n".join(f"{c.name}: {c.last_words(5)}" for c in self._children.values())
            raise PlaneFailed(f"{late}\n{words}") from late


def _sweep() -> None:
    """Remove the folders of planes whose process was killed: the kernel let go of their lock."""
    for claim in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*/{CLAIM}"):
        with contextlib.suppress(OSError), claim.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(claim.parent, ignore_errors=True)
