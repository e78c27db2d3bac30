"""What is done for a trigger is reported, also when it ends half-way."""

from __future__ import annotations

from typing import cast

import pytest

from generators.documents.json import Key, ObjectKey, ObjectKind
from generators.kube.errors import ApiStatus, Conflict, Forbidden
from generators.kube.resources import NAMESPACES, Resource
from generators.kyverno.failures import NotAllowed
from generators.kyverno.generation import WantedObject
from tests.controller.background.rules import SYNC, deny, rule
from tests.controller.background.test_what_is_decided_beforehand import policy
from tests.generators.kyverno.policies import EVERY_KIND, environment, ns, policies
from webhook.background.caches import Caches
from webhook.background.index import GeneratedIndex, TriggerName
from webhook.background.memory import Memory, Since
from webhook.background.reconcile import TriggerReconciler, TriggerReport
from webhook.background.rules import RuleTable, table_of
from webhook.background.stored import StoredObject, keep, raw
from webhook.background.targets import Targets
from webhook.background.writer import Done, ObjectWriter, Wrote
from webhook.policies.book import HeldPolicy, Policies, PolicySource
from webhook.policies.kinds import GuessedKinds

SHOP = TriggerName(ObjectKey(ObjectKind("", "", "Namespace"), "", "shop"))


class Cluster:
    """One namespace, nothing made for it yet."""

    def followed(self, group: str, kind: str) -> Resource | None:
        return NAMESPACES

    def trigger(self, resource: Resource, key: Key) -> StoredObject | None:
        shop = ns("shop", run="x")
        shop["metadata"] = {
            "name": "shop",
            "uid": "1",
            "resourceVersion": "9",
            "labels": {"run": "x"},
        }
        return keep(raw(shop)) if key == Key("", "shop") else None

    def made_named(self, key: ObjectKey) -> None:
        return None


class Nothing:
    """No rule is older than anything."""

    def since(self, name: object) -> Since:
        return Since(0, 0, "")

    def noted(self, resource: object) -> str:
        return ""

    def had(self, name: object, pattern: str) -> bool:
        return False


class Failing:
    """Writes until the object of one name."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def ensure(self, namespace: str, wanted: WantedObject, present: object) -> Done:
        if wanted.key.name == "second":
            raise self._error
        return Done.CREATED


def table() -> RuleTable:
    names = ("first", "second", "third")
    rules = policies(policy("".join(rule(n, "x", deny(n, SYNC)) for n in names)))
    return table_of(
        Policies(tuple(HeldPolicy(each, PolicySource.FILE, "") for each in rules)), GuessedKinds()
    )


def carried_out(error: Exception) -> TriggerReport:
    carrier = TriggerReconciler(
        cast(Caches, Cluster()),
        GeneratedIndex(),
        cast(Memory, Nothing()),
        cast(ObjectWriter, Failing(error)),
        cast(Targets, None),
    )
    return carrier.carry_out(table(), environment([ns("shop")], EVERY_KIND), SHOP, None)


def written(report: TriggerReport) -> list[str]:
    assert all(each.done is Done.CREATED for each in report.wrote)
    return [each.key.name for each in report.wrote]


@pytest.mark.parametrize(
    "error", [Forbidden("POST x", ApiStatus()), Conflict("POST x", ApiStatus())]
)
def test_every_write_is_tried_and_the_failure_is_reported_with_what_was_written(
    error: Exception,
) -> None:
    report = carried_out(error)
    assert written(report) == ["first", "third"]
    assert report.failure is error
    assert report.problems == {("p", "second"): str(error)}


def test_what_may_not_be_written_is_a_problem_and_does_not_come_again() -> None:
    report = carried_out(NotAllowed("no"))
    assert written(report) == ["first", "third"]
    assert report.failure is None
    assert report.problems == {("p", "second"): "no"}


def test_a_defect_leaves_the_report_of_what_was_written_before_it() -> None:
    error = ZeroDivisionError()
    report = carried_out(error)
    assert report.wrote == [Wrote(("p", "first"), report.wrote[0].key, Done.CREATED)]
    assert report.failure is error
    assert report.problems is None, "of rules that were not looked at nothing is known"
