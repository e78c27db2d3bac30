"""A webhook as its users run it: the real command, over TLS, in a process of its own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import orjson

from generators.certificates import issue, new_authority
from tests.testbed.waiting import eventually, kill, patience
from tests.webhook.reviews import TENANTS, JSONObject, body
from webhook.registration.certificates import write_files

COMMAND = Path(sys.executable).with_name("ringfence")
DEADLINE = 60.0


def new_certificate(folder: Path, days: int = 30, name: str = "localhost") -> None:
    """A new CA and leaf in ca.crt, tls.key, tls.crt."""
    now = datetime.now(UTC)
    authority = new_authority(now, days)
    write_files(folder, authority.pem, issue(authority, ("127.0.0.1", name), now, days))


def prepare(folder: Path) -> Path:
    """The files that the command wants."""
    (folder / "tenants.yaml").write_text(TENANTS)
    new_certificate(folder)
    return folder


class Webhook:
    """The running command; ask it, read its log, signal it."""

    def __init__(
        self, folder: Path, *options: str, ready: Callable[[Webhook], bool] | None = None
    ) -> None:
        self.folder = folder
        self.log = folder / "webhook.log"
        command: list[str | Path] = [
            *(COMMAND, "webhook", "serve", "-c", folder / "tenants.yaml"),
            *("--tls-cert", folder / "tls.crt", "--tls-key", folder / "tls.key"),
            *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", *options),
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        listening = eventually(lambda: self.events("listening"), self.log.read_text())[0]
        self.port = int(str(listening["address"]).rpartition(":")[2])
        self.metrics_port = int(str(listening["metrics"]).rpartition(":")[2])
        answers = ready or (lambda webhook: webhook.get("/readyz")[0] == 200)
        eventually(lambda: answers(self), "ready")

    def events(self, name: str) -> list[JSONObject]:
        """Log events of that name; every whole line of the log is JSON."""
        lines = self.log.read_bytes().split(b"\n")[:-1]
        return [event for line in lines if (event := orjson.loads(line))["event"] == name]

    def socket(self) -> ssl.SSLSocket:
        """A TLS connection that trusts the CA on disk."""
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=patience(DEADLINE))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=patience(DEADLINE), context=context
        )

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; 0 when nobody answers."""
        with suppress(OSError, http.client.HTTPException), closing(self.connect()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        return 0, ""

    def metrics(self) -> dict[str, float]:
        with urlopen(
            f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=patience(DEADLINE)
        ) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def workers(self) -> list[int]:
        """Processes that the command forked."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def stop(self) -> None:
        """End it in the way that cannot fail; workers first, by their own pid."""
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kill(self.process)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Webhook]:
    webhook = Webhook(folder, *options)
    try:
        yield webhook
    finally:
        webhook.stop()


def ask(connection: http.client.HTTPSConnection, path: str, asked: JSONObject) -> JSONObject:
    """The `response` of the answer to a review."""
    connection.request("POST", path, body(asked), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status == 200, data
    response: JSONObject = orjson.loads(data)["response"]
    return response


def gone(pid: int) -> bool:
    """Whether no process has that id, or only its parent has not noticed yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"
