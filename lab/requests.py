"""`lab probe --http`: one HTTP request from pod to pod, and the answer that really came.

The socket is made in the source pod's network namespace, so the request meets all that a program
in the pod would meet: policies of both ends, and the proxy of either node.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from generators.addresses import family
from generators.cluster import from_objects
from generators.http import Request
from generators.reachability.ends import BadQuestion
from generators.reachability.matrix import PortProtocol, questions
from generators.reachability.verdicts import Verdict
from lab import netns
from lab.pods import Running
from lab.view import View

LONGEST_BODY = 4_096
PORT = PortProtocol(80, "TCP")
REFUSING = 400


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back; status 0: no answer."""

    source: str
    destination: str
    address: str
    port: int
    status: int
    body: str

    @property
    def verdict(self) -> Verdict:
        """Whether the request was let through, as far as its client can tell."""
        return Verdict.FORWARDED if 0 < self.status < REFUSING else Verdict.DROPPED


def ask(
    view: View,
    request: Request,
    ports: Sequence[str],
    source: str | None,
    destination: str | None,
    silence: float,
) -> Iterator[HttpAnswer]:
    """The answers to a request of each pair of pods, at the first port that is named, else 80."""
    wanted = PortProtocol.parse(ports[0]) if ports else PORT
    cluster = from_objects(view.documents)
    running = {item.pod.key: item for item in view.pods}
    pairs = dict.fromkeys(
        (question.source, question.destination)
        for question in questions(cluster, [wanted], (), source, destination)
        if question.source != question.destination
    )
    for pair in pairs:
        ends = [running.get(name) for name in pair]
        if ends[0] is None or ends[1] is None:
            raise BadQuestion(f"{pair[0] if ends[0] is None else pair[1]} is no running pod here")
        address = _address(ends[0], ends[1])
        status, body = _send(ends[0].netns, address, wanted.port, request, silence)
        yield HttpAnswer(*pair, address, wanted.port, status, body)


def _address(source: Running, destination: Running) -> str:
    """The destination's first address of a family that both have."""
    families = {family(ip) for ip in source.pod.ips}
    found = next((ip for ip in destination.pod.ips if family(ip) in families), None)
    if found is None:
        raise BadQuestion(f"{source.pod.key} and {destination.pod.key} have no family in common")
    return found


def _send(where: str, address: str, port: int, request: Request, silence: float) -> tuple[int, str]:
    """Status and body; 0 and why, where none comes."""
    connection = http.client.HTTPConnection(address, port, timeout=silence)
    headers = {"Host": request.host} if request.host else {}
    try:
        with netns.inside(where):
            connection.sock = socket.create_connection((address, port), silence)
        connection.request(request.method, request.path, headers=headers | dict(request.headers))
        answer = connection.getresponse()
        return answer.status, answer.read(LONGEST_BODY).decode(errors="replace").strip()
    except TimeoutError:
        return 0, f"no answer within {silence:g} s"
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()


def table(request: Request, answers: Sequence[HttpAnswer]) -> str:
    """A line for each pair."""
    pairs = [f"{answer.source} -> {answer.destination}" for answer in answers]
    width = max(map(len, pairs), default=0)
    lines = [f"{request.method} {request.path}"]
    for pair, answer in zip(pairs, answers, strict=True):
        lines.append(f"  {pair:<{width}}  {answer.status or '---'}  {answer.body}")
    return "".join(f"{line}\n" for line in lines)


def document(request: Request, answers: Sequence[HttpAnswer]) -> dict[str, object]:
    """The same as plain values."""
    return {
        "method": request.method,
        "path": request.path,
        "answers": [
            {
                "source": answer.source,
                "destination": answer.destination,
                "address": answer.address,
                "port": answer.port,
                "status": answer.status,
                "body": answer.body,
                "verdict": answer.verdict.value,
            }
            for answer in answers
        ],
    }
