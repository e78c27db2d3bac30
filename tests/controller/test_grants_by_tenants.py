"""Grants that members agree on in a real API server: accepted, explained, refused, withdrawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import cycle

import pytest

from generators.documents.json import Document
from generators.kube.client import Client, PatchKind
from generators.kube.errors import KubeError
from generators.kube.resources import NAMESPACES
from generators.labels import GRANTS_ANNOTATION
from generators.tenants.consents import Consent
from tests.conftest import Run
from tests.controller.cluster import TENANTS, Cluster, ControllerProcess, cluster
from tests.testbed.waiting import eventually, holds_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
HERE, THERE = "test02 from test01:8080", "test01 to test02"
OLD = "old-test02"
"""A namespace that said something before admission was in force."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, ControllerProcess]]:
    with cluster(tmp_path_factory.mktemp("grants")) as made:
        made.tenants.write_text(TENANTS + "grants: self-service\n")
        made.make(OLD, annotations={GRANTS_ANNOTATION: "test02 from test01:1"})
        controller = made.controller()
        made.webhook()
        eventually(controller.in_force, f"admission in force: {controller.log}")
        yield made, controller


def say(made: Cluster, name: str, word: str | None, by: Client) -> None:
    patch: Document = {"metadata": {"annotations": {GRANTS_ANNOTATION: word}}}
    by.patch(NAMESPACES, name, "", patch, kind=PatchKind.MERGE, manager="test")


def recorded(made: Cluster, name: str) -> tuple[Consent, ...]:
    entry = made.record().get(made.uid(name))
    return () if entry is None else entry.consents


def opened(made: Cluster, name: str, wanted: bool = True) -> Callable[[], bool]:
    return lambda: ('"port": 8080' in json.dumps(made.policy(name) or {})) is wanted


def test_members_of_two_tenants_open_and_close_a_way(
    served: tuple[Cluster, ControllerProcess], ringfence: Run
) -> None:
    made, _ = served
    one, two = made.as_user("one", "team-test01"), made.as_user("two", "team-test02")
    made.make("web-test01", one)
    made.make("api-test02", two)
    made.make("db-test02", two)
    eventually(lambda: made.isolated("db-test02", "test02"), "isolated")

    say(made, "api-test02", HERE, two)
    eventually(lambda: bool(recorded(made, "api-test02")), "recorded")
    holds_for(1.0, opened(made, "api-test02", False), "one side opens nothing")
    say(made, "web-test01", THERE, one)
    # The grant is the tenant's: each of its namespaces follows.
    for name in ("api-test02", "db-test02"):
        eventually(opened(made, name), f"{name} opens")

    shown = ringfence("tenants", "get", "test02", "--kubeconfig", str(made.plane.kubeconfig()))
    assert "from test01:8080/TCP(agreed)" in shown.stdout
    planned = ringfence(
        *("plan", "-c", str(made.tenants), "--kubeconfig", str(made.plane.kubeconfig())),
    )
    assert "test01 may enter as agreed in namespaces api-test02, web-test01" in planned.stdout

    say(made, "web-test01", None, one)
    for name in ("api-test02", "db-test02"):
        eventually(opened(made, name, False), f"{name} closes")


@pytest.mark.parametrize(
    ("word", "user", "group"),
    [
        ("test02 from test01", "robot", "robots"),
        ("test02 from test01", "one", "team-test01"),
        ("test01 to test02", "two", "team-test02"),
    ],
)
def test_nobody_else_gives_a_tenant_s_word(
    served: tuple[Cluster, ControllerProcess], word: str, user: str, group: str
) -> None:
    made, _ = served
    with pytest.raises(KubeError, match="the word of tenant"):
        say(made, OLD, word, made.as_user(user, group))


def test_what_was_said_before_admission_was_in_force_proves_nothing(
    served: tuple[Cluster, ControllerProcess],
) -> None:
    made, _ = served
    two = made.as_user("two", "team-test02")
    eventually(lambda: "GrantNotProven" in made.reasons(OLD), "told")
    assert recorded(made, OLD) == ()
    turns = cycle([None, "test02 from test01:1"])

    def believed() -> bool:
        """By turns taken back and written anew, until the controller has seen both."""
        if recorded(made, OLD):
            return True
        say(made, OLD, next(turns), two)
        return False

    eventually(believed, "believed once written anew", poll=1.0)


def test_a_namespace_that_moves_takes_no_word_along(
    served: tuple[Cluster, ControllerProcess],
) -> None:
    made, _ = served
    two = made.as_user("two", "team-test02")
    made.make("moving-test02", two, annotations={GRANTS_ANNOTATION: "test02 from test01:77"})
    eventually(lambda: bool(recorded(made, "moving-test02")), "recorded")
    made.label("moving-test02", "test01")
    eventually(lambda: made.recorded("moving-test02") == "test01", "moved")
    eventually(lambda: not recorded(made, "moving-test02"), "forgotten")
