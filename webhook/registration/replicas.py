"""The webhook's replicas, asked one by one which tenant files they have read.

The API server keeps its connections to a few of them, so an answer that came through it says
nothing about the others. Each is asked at its own address: at its port of health, where that is
known, since the admission port may admit only API servers; else there, with a request it must
refuse. One that cannot be reached serves nobody and is left out.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson

from generators.documents.json import Document, integer, mapping, mappings, text
from generators.kube.client import Client, WatchScope
from generators.kube.resources import ENDPOINT_SLICES
from webhook.registration.configuration import WebhookTarget
from webhook.review import API_VERSION, KIND, TENANT_FILE
from webhook.settings import FILES_PAGE

ANSWER_SECONDS = 2.0
AT_ONCE = 16
"""Replicas asked in parallel, so that those that do not answer delay no others."""
SAMPLES = 4
"""How often a URL is asked: it may stand for several replicas that take turns."""
LONGEST_ANSWER = 64 * 1024
SERVICE_LABEL = "kubernetes.io/service-name"
HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Replica:
    """One webhook: the file that decided what it was asked, empty for none, and its newest one."""

    address: str
    decided: str
    newest: str


@dataclass(frozen=True, slots=True)
class ReplicaQuestion:
    """What every replica is asked, and how it is reached."""

    target: WebhookTarget
    bundle: bytes
    """CAs of the webhook's certificate, PEM."""
    file: str
    """Digest of a tenant file."""
    label_key: str


def ask(client: Client, asked: ReplicaQuestion) -> list[Replica]:
    """What every reachable replica reports about the tenant file with that digest."""
    places = addresses(client, asked.target)
    with ThreadPoolExecutor(AT_ONCE, "replicas") as pool:
        answers = list(pool.map(partial(_ask, asked), places))
    return [answer for answer in answers if answer is not None]


def addresses(client: Client, target: WebhookTarget) -> list[tuple[str, int]]:
    """Where the replicas listen: those of the Service, or all that the URL's host stands for."""
    if target.url:
        split = urlsplit(target.url)
        return SAMPLES * _resolved(split.hostname or "", split.port or HTTPS_PORT)
    namespace, name = target.service
    scope = WatchScope(namespace=namespace, labels=f"{SERVICE_LABEL}={name}")
    return sorted({each for s in client.list_all(ENDPOINT_SLICES, scope) for each in _listed(s)})


def _resolved(host: str, port: int) -> list[tuple[str, int]]:
    with contextlib.suppress(OSError):
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return sorted({(str(info[4][0]), port) for info in infos})
    return []


def _listed(endpoints: Document) -> Iterator[tuple[str, int]]:
    """Those that are ready; the API server may call others, which then refuse."""
    ports = [port for each in mappings(endpoints, "ports") if (port := integer(each, "port"))]
    for endpoint in mappings(endpoints, "endpoints"):
        if mapping(endpoint, "conditions").get("ready") is False:
            continue
        listed = endpoint.get("addresses")
        for address in listed if isinstance(listed, list) else ():
            yield from ((str(address), port) for port in ports)


def _ask(asked: ReplicaQuestion, place: tuple[str, int]) -> Replica | None:
    """None: it cannot be reached."""
    failures = (OSError, ValueError, http.client.HTTPException)
    if asked.target.health:
        # A webhook of before has no such page.
        with contextlib.suppress(*failures):
            if (said := _read(asked, place)) is not None:
                return said
    with contextlib.suppress(*failures):
        return _have_it_refuse(asked, place)
    return None


def _read(asked: ReplicaQuestion, place: tuple[str, int]) -> Replica | None:
    """Its page of tenant files; None if it has no such page."""
    page = http.client.HTTPConnection(place[0], asked.target.health, timeout=ANSWER_SECONDS)
    with contextlib.closing(page):
        page.request("GET", FILES_PAGE, headers={"Connection": "close"})
        answer = page.getresponse()
        digests = answer.read(LONGEST_ANSWER).decode().split()
    if answer.status != HTTPStatus.OK or not digests:
        return None
    return Replica(_spelled(place), asked.file if asked.file in digests else "", digests[0])


def _have_it_refuse(asked: ReplicaQuestion, place: tuple[str, int]) -> Replica:
    """One question over TLS, as the API server asks: the certificate must name the target."""
    host, port = place
    context = ssl.create_default_context(cadata=asked.bundle.decode("ascii"))
    plain = socket.create_connection(place, ANSWER_SECONDS)
    with plain, context.wrap_socket(plain, server_hostname=asked.target.hosts[0]) as secured:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
        connection.sock = secured
        headers = {"Content-Type": "application/json", "Connection": "close"}
        question = _question(asked.label_key)
        connection.request("POST", f"/validate/{asked.file}", question, headers)
        answer = orjson.loads(connection.getresponse().read(LONGEST_ANSWER))
    return read_answer(_spelled(place), answer)


def _spelled(place: tuple[str, int]) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_answer(address: str, answer: object) -> Replica:
    """From a refusal; a webhook that names no files has read none."""
    causes = mappings(answer, "response", "status", "details", "causes")
    said = {
        text(cause, "field"): text(cause, "message")
        for cause in causes
        if text(cause, "reason") == TENANT_FILE
    }
    return Replica(address, said.get("decided", ""), said.get("newest", ""))


def _question(label_key: str) -> bytes:
    """A label that no tenant is called, on a namespace of everybody: it must be refused."""
    before: Document = {"metadata": {"name": "default", "labels": {}}}
    after: Document = {"metadata": {"name": "default", "labels": {label_key: "Ringfence_Probe"}}}
    request: Document = {
        "uid": "ringfence-asks-its-replicas",
        "kind": {"group": "", "version": "v1", "kind": "Namespace"},
        "resource": {"group": "", "version": "v1", "resource": "namespaces"},
        "name": "default",
        "operation": "UPDATE",
        "userInfo": {"username": "ringfence:replicas"},
        "object": after,
        "oldObject": before,
        "dryRun": True,
    }
    return orjson.dumps({"apiVersion": API_VERSION, "kind": KIND, "request": request})
