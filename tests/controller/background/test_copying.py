"""Rules that copy: one source or all of a kind, as sources, rules and triggers change."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from generators.documents.json import strings
from generators.kube.resources import NAMESPACES, SECRETS
from tests.controller.background.ground import Ground, quiet
from tests.controller.background.rules import labelled, rule
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually, patience

pytestmark = pytest.mark.cluster


def test_copies_of_a_list_come_and_go_with_their_sources(on: Ground, mine: str) -> None:
    on.make(f"{mine}-source")
    on.secret(f"{mine}-source", "one", v="1")
    on.policy_object(
        mine,
        rule(
            "list",
            mine,
            'synchronize: true, namespace: "{{request.object.metadata.name}}", cloneList:'
            f" {{namespace: {mine}-source, kinds: [v1/Secret],"
            " selector: {matchLabels: {copy: me}}}",
        ),
    )
    labelled(on, mine, mine)
    eventually(lambda: on.find(SECRETS, mine, "one") is not None, "copied")
    on.secret(f"{mine}-source", "two", v="2")
    eventually(lambda: on.find(SECRETS, mine, "two") is not None, "a further source")
    on.admin.delete(SECRETS, "one", f"{mine}-source")
    eventually(lambda: on.find(SECRETS, mine, "one") is None, "a source that is gone")
    assert on.find(SECRETS, mine, "two") is not None


def test_a_source_that_comes_later_is_copied_when_it_comes(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    on.make(f"{mine}-source")
    clone = (
        'apiVersion: v1, kind: Secret, name: pull, namespace: "{{request.object.metadata.name}}",'
        f" synchronize: true, clone: {{namespace: {mine}-source, name: pull}}"
    )
    on.policy_object(mine, rule("clone", mine, clone))
    labelled(on, mine, mine)
    missing = f"the source Secret {mine}-source/pull is not there"
    eventually(lambda: missing in controller.get("/readyz")[1], "told")
    on.secret(f"{mine}-source", "pull", v="1")
    eventually(lambda: on.find(SECRETS, mine, "pull") is not None, "copied")
    eventually(lambda: missing not in controller.get("/readyz")[1], "told no more")


def test_copies_stay_as_they_are_while_rule_and_triggers_change_at_once(
    on: Ground, controller: ControllerProcess, mine: str
) -> None:
    """An edit of a rule leaves copies alone; no worker may go by it before that is known."""
    on.make(f"{mine}-source")
    for number in range(6):
        on.secret(f"{mine}-source", f"s{number}", v=str(number))
    spaces = [f"{mine}-{number}" for number in range(8)]

    def clone(number: int) -> str:
        return rule(
            "clone",
            mine,
            "apiVersion: v1, kind: Secret, name: pull, synchronize: true,"
            ' namespace: "{{request.object.metadata.name}}",'
            f" clone: {{namespace: {mine}-source, name: s{number}}}",
        )

    on.policy_object(mine, clone(0))
    for space in spaces:
        labelled(on, space, mine)
    eventually(lambda: all(on.find(SECRETS, s, "pull") for s in spaces), "copied")
    over = threading.Event()

    def change_triggers() -> None:
        for count in itertools.count():
            if over.is_set():
                return
            for space in spaces:
                on.merge(NAMESPACES, "", space, {"metadata": {"labels": {"n": str(count)}}})

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change_triggers)
        try:
            for number in range(1, 6):
                on.policy_object(mine, clone(number))
                eventually(lambda: on.is_ready(mine), "Ready")
        finally:
            over.set()
        changing.result(patience(60))
    eventually(lambda: quiet(controller), "done")
    copies = [on.find(SECRETS, space, "pull") or {} for space in spaces]
    assert [strings(copy, "data")["v"] for copy in copies] == ["MA=="] * len(spaces)
