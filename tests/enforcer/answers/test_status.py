"""What counts as a problem, and what of it makes an agent unready."""

from __future__ import annotations

import pytest

from enforcer.agent.state import Audit, NodeState
from enforcer.answers.status import problems, unready
from enforcer.commands.show import healthy, status_text
from enforcer.sources.supply import InputState

GOOD = InputState("pods", synced=True, connected=True)


def state(**changes: object) -> NodeState:
    return NodeState(revision=1, **{"sources": {"pods": GOOD}, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"revision": 0}, "has put nothing in force yet"),
        ({"sources": {"pods": InputState("pods")}}, "pods: not read completely yet"),
        ({"sources": {"pods": InputState("pods", synced=True)}}, "pods: no connection"),
        (
            {"sources": {"pods": InputState("pods", synced=True, connected=True, forbidden=True)}},
            "refuses access",
        ),
        (
            {
                "sources": {
                    "pods": InputState(
                        "pods", synced=True, connected=True, unreadable={"a/b": "bad"}
                    )
                }
            },
            "pods: a/b is invalid and is closed: bad",
        ),
        (
            {
                "sources": {
                    "config": InputState("config", synced=True, unreadable={"t.yaml": "bad"})
                }
            },
            "config: t.yaml is refused, the last good one is in force: bad",
        ),
        ({"errors": {"datapath": "map full"}}, "datapath: map full"),
        ({"audit": Audit(drift={"pol_map": 2})}, "map pol_map: 2 entries had drifted"),
    ],
    ids=[
        "start",
        "not synced",
        "away",
        "forbidden",
        "unreadable",
        "file",
        "error",
        "drift",
    ],
)
def test_each_reason_is_told(changes: dict[str, object], reason: str) -> None:
    found = unready(state() if not changes else NodeState(**{"revision": 1, **changes}))  # type: ignore[arg-type]
    assert [line for line in found if reason in line] == found != []


def test_a_pod_that_is_not_enforced_is_a_problem_but_leaves_the_agent_ready() -> None:
    lacking = state(unenforced={"a/b": "no interface"})
    assert unready(lacking) == []
    assert problems(lacking) == ["a/b is not enforced: no interface"]


def test_policies_that_are_not_read_are_a_problem_but_leave_the_agent_ready() -> None:
    told = state(notices=("nothing on this node enforces them",))
    assert unready(told) == []
    assert problems(told) == ["nothing on this node enforces them"]


def test_all_is_well() -> None:
    assert problems(state()) == []


def test_status_of_an_agent_with_problems_is_degraded_and_lists_its_sources() -> None:
    answer = {
        "ready": True,
        "problems": ["pods: no connection"],
        "sources": {"pods": {"synced": True, "connected": False, "objects": 3}},
        "audit": {"drift": {}, "corrections": 2},
    }
    assert not healthy(answer)
    text = status_text(answer, verbose=True)
    assert "degraded" in text
    assert "0 of 1 synced and connected" in text
    assert "none, 2 corrected so far" in text
    assert "synced; 3 objects" in text
