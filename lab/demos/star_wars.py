"""`lab demo star-wars`: policies for packets and for HTTP requests, in less than a minute."""

from __future__ import annotations

from lab.demos.stage import DemoStage, tell
from lab.names import Places

EXAMPLE = "star-wars"
DEATHSTAR, TIEFIGHTER, XWING = "galaxy/deathstar-1", "galaxy/tiefighter", "galaxy/xwing"
LAND, EXHAUST = "POST /v1/request-landing", "PUT /v1/exhaust-port"
HANGAR, SURRENDER = "GET /v1/hangar", "GET /v1/surrender"


def star_wars(places: Places, *, keep: bool = False) -> None:
    """The death star lets ships land, and nobody gets near its exhaust port."""
    tell(places, EXAMPLE, (_start, _open, _packets, _requests, _why, _paths), keep=keep)


def _start(stage: DemoStage) -> None:
    stage.chapter(
        "1. A death star and two ships, without a policy",
        "tiefighter is of the empire, xwing of the alliance. Both may land.",
    )
    stage.lab("up", "-f", stage.file("cluster.yaml"))


def _open(stage: DemoStage) -> None:
    _send(stage, LAND, TIEFIGHTER)
    _send(stage, LAND, XWING)


def _packets(stage: DemoStage) -> None:
    stage.chapter(
        "2. A policy for packets: only the empire reaches port 80",
        "xwing gets no answer. tiefighter does, and may do more than land.",
    )
    stage.cat("l3-l4.yaml")
    stage.lab("apply", "-f", stage.file("l3-l4.yaml"))
    _send(stage, LAND, XWING, passes=False)
    _send(stage, EXHAUST, TIEFIGHTER)


def _requests(stage: DemoStage) -> None:
    stage.chapter(
        "3. A policy for requests: the empire may land, and nothing else",
        "The death star still sees who asks. The exhaust port is out of reach.",
    )
    stage.cat("l7.yaml")
    stage.lab("apply", "-f", stage.file("l7.yaml"))
    _send(stage, LAND, TIEFIGHTER)
    _send(stage, EXHAUST, TIEFIGHTER, passes=False)
    _send(stage, LAND, XWING, passes=False)


def _why(stage: DemoStage) -> None:
    stage.chapter("4. Why", "What the rules say of a request, and what became of the last ones.")
    node = ("--run-dir", str(stage.places.enforcer_run))
    stage.show("trace", "--live", TIEFIGHTER, DEATHSTAR, "80/TCP", "--http", EXHAUST, *node)
    stage.show("observe", "--protocol", "http", "--no-node-name", *node)


def _paths(stage: DemoStage) -> None:
    stage.chapter(
        "5. Two clients, one port, a path for each",
        "Who asks is decided in the kernel, by labels.",
    )
    stage.lab("apply", "-f", stage.file("two-paths.yaml"))
    _send(stage, HANGAR, TIEFIGHTER)
    _send(stage, SURRENDER, TIEFIGHTER, passes=False)
    _send(stage, HANGAR, XWING, passes=False)
    _send(stage, SURRENDER, XWING)


def _send(stage: DemoStage, request: str, ship: str, *, passes: bool = True) -> None:
    expected = ("--expect", "FORWARDED" if passes else "DROPPED")
    stage.lab("probe", "--http", request, "--from", ship, "--to", DEATHSTAR, *expected)
