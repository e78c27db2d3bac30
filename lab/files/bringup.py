"""The processes of a lab that keeps its objects itself: enforcer, responder, and with a tenant file
the webhook.

Called for every command that changes the lab, so whatever was killed is started again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from lab import netns
from lab.created import CreatedThings, State
from lab.names import NODE, POD_INTERFACES, Places
from lab.parts import (
    POLL_SECONDS,
    READY_SECONDS,
    agent_answers,
    alive,
    as_given,
    failure,
    module,
    ringfence,
    start,
    wait,
)
from lab.processes import Process

WEBHOOK = "webhook"
ENFORCER = "enforcer"
RESPONDER = "responder"


def expected(state: State) -> tuple[str, ...]:
    """The processes that such a lab should have."""
    return (ENFORCER, RESPONDER, *((WEBHOOK,) if state.config is not None else ()))


def start_processes(ledger: CreatedThings) -> None:
    """Start what should run and does not, and wait until all of it answers."""
    places, state = ledger.places, ledger.state
    waits: list[tuple[Process, Callable[[], bool]]] = []
    if not alive(ledger, ENFORCER):
        with netns.inside(places.node_netns):
            enforcer = start(ledger, ENFORCER, ringfence(*_enforcer_arguments(ledger)))
        waits.append((enforcer, lambda: agent_answers(places.enforcer_run)))
    if not alive(ledger, RESPONDER):
        socket = places.responder_socket
        socket.unlink(missing_ok=True)
        command = module("lab.responder", str(socket))
        waits.append((start(ledger, RESPONDER, command), socket.exists))
    if state.config is not None and not alive(ledger, WEBHOOK):
        waits.append(_start_webhook(ledger, state.config))
    for process, ready in waits:
        wait(places, process, ready)


def wait_for_config(ledger: CreatedThings, digest: str) -> None:
    """Return when the webhook has read the tenant file that we have read."""
    process, url = ledger.state.process(WEBHOOK), ledger.state.webhook
    if process is not None and url is not None:
        address = url.removeprefix("https://")
        ready = functools.partial(_webhook_ready, ledger.places, address, digest)
        wait(ledger.places, process, ready)


def _enforcer_arguments(ledger: CreatedThings) -> tuple[str, ...]:
    places, config = ledger.places, ledger.state.config
    file = () if config is None else ("-c", as_given(ledger.state, config))
    return (
        *("enforcer", "run", "--node-name", NODE),
        *("--manifests", str(places.manifests)),
        *file,
        *("--pin-dir", str(places.pins)),
        *("--run-dir", str(places.enforcer_run)),
        *("--watch-interfaces", POD_INTERFACES),
    )


def _start_webhook(ledger: CreatedThings, config: str) -> tuple[Process, Callable[[], bool]]:
    places = ledger.places
    if not places.certificates.is_dir():
        command = ringfence(
            *("webhook", "certificates", "--directory", str(places.certificates)),
            *("--host", "127.0.0.1"),
        )
        certificates = start(ledger, "certificates", command)
        _wait_for_end(places, certificates)
    log = places.log(WEBHOOK)
    begun = log.stat().st_size if log.exists() else 0
    command = ringfence(
        *("webhook", "serve", "-c", as_given(ledger.state, config)),
        *("--listen", "127.0.0.1:0", "--drain-seconds", "0"),
        *("--tls-cert", str(places.certificates / "tls.crt")),
        *("--tls-key", str(places.certificates / "tls.key")),
    )
    process = start(ledger, WEBHOOK, command)

    def ready() -> bool:
        address = _listening(log, begun)
        if address is None or not _webhook_ready(places, address):
            return False
        ledger.update(replace(ledger.state, webhook=f"https://{address}"))
        return True

    return process, ready


def _listening(log: Path, begun: int) -> str | None:
    """The address that the webhook logs as listening, after the given place in its log."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(begun)
        for line in file:
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == "listening":
                    return str(entry["address"])
    return None


def _webhook_ready(places: Places, address: str, config: str = "") -> bool:
    """Whether it is ready, with the tenant file of that digest where one is named."""
    import ssl

    context = ssl.create_default_context(cafile=str(places.certificates / "ca.crt"))
    url = f"https://{address}/readyz?verbose"
    try:
        with urlopen(url, timeout=5, context=context) as answer:
            return int(answer.status) == 200 and config in answer.read().decode()
    except (URLError, OSError):
        return False


def _wait_for_end(places: Places, process: Process) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.alive and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if not (places.certificates / "tls.key").exists():
        raise failure(places, process)
