"""What becomes of generated objects when something around them changes: every cell, for real.

All rows begin together, in namespaces of their own, and act together; each test looks at one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pytest

from generators.documents.json import Document, mapping, strings
from generators.kube.resources import CONFIG_MAPS, NETWORK_POLICIES, SECRETS, Resource
from tests.controller.background.ground import Ground, quiet, uid_of
from tests.controller.cluster import ControllerProcess
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class Then(StrEnum):
    """What is there afterwards."""

    BACK = "made again"
    ABSENT = "absent"
    AS_MADE = "as it was made"
    EDITED = "as it was edited"
    FOLLOWS = "as the rule or the source says now"


DATA_SYNC, DATA, CLONE_SYNC, CLONE = "data, sync", "data", "clone, sync", "clone"
COLUMNS = (DATA_SYNC, DATA, CLONE_SYNC, CLONE)
MATRIX: Mapping[str, tuple[Then | None, ...]] = {
    "downstream deleted": (Then.BACK, Then.ABSENT, Then.BACK, Then.ABSENT),
    "downstream edited": (Then.AS_MADE, Then.EDITED, Then.AS_MADE, Then.EDITED),
    "trigger deleted": (Then.ABSENT, Then.AS_MADE, Then.ABSENT, Then.AS_MADE),
    "trigger no longer matches": (Then.ABSENT, Then.AS_MADE, Then.ABSENT, Then.AS_MADE),
    "preconditions no longer hold": (Then.ABSENT, Then.AS_MADE, Then.ABSENT, Then.AS_MADE),
    "policy deleted": (Then.ABSENT, Then.AS_MADE, Then.AS_MADE, Then.AS_MADE),
    "policy deleted, orphan": (Then.AS_MADE, Then.AS_MADE, Then.AS_MADE, Then.AS_MADE),
    "rule deleted": (Then.ABSENT, Then.AS_MADE, Then.AS_MADE, Then.AS_MADE),
    "rule deleted, orphan": (Then.AS_MADE, Then.AS_MADE, Then.AS_MADE, Then.AS_MADE),
    "rule changed": (Then.FOLLOWS, Then.AS_MADE, Then.AS_MADE, Then.AS_MADE),
    "source changed": (None, None, Then.FOLLOWS, Then.AS_MADE),
    "source deleted": (None, None, Then.ABSENT, Then.AS_MADE),
}
"""kyverno.md's table; None where there is no source."""


@dataclass(frozen=True)
class Row:
    """One cell, with a namespace and a policy of its own."""

    event: str
    column: str
    then: Then
    name: str

    @property
    def clones(self) -> bool:
        return self.column in (CLONE_SYNC, CLONE)

    def rules(self, value: str = "made", source: str = "source") -> str:
        """The rule that the row is about, and one beside it."""
        synchronize = str(self.column in (DATA_SYNC, CLONE_SYNC)).lower()
        orphan = str("orphan" in self.event).lower()
        kind = "apiVersion: v1, kind: Secret, name: made"
        what = f"clone: {{namespace: {self.name}-source, name: {source}}}"
        if not self.clones:
            kind = "apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, name: made"
            spec = f"{{podSelector: {{matchLabels: {{v: {value}}}}}, policyTypes: [Ingress]}}"
            what = f"data: {{spec: {spec}}}"
        return f"""\
- name: generates
  match: {{any: [{{resources: {{kinds: [ConfigMap], namespaces: [{self.name}],
    selector: {{matchLabels: {{row: "yes"}}}}}}}}]}}
  preconditions:
    all: [{{key: "{{{{request.object.data.go}}}}", operator: Equals, value: "yes"}}]
  generate: {{{kind}, namespace: {self.name}, synchronize: {synchronize},
    orphanDownstreamOnPolicyDelete: {orphan}, {what}}}
{self.beside()}"""

    def beside(self) -> str:
        return f"""\
- name: another
  match: {{any: [{{resources: {{kinds: [ConfigMap], namespaces: [{self.name}-source]}}}}]}}
  generate: {{apiVersion: v1, kind: ServiceAccount, name: other, namespace: {self.name},
    synchronize: true, data: {{}}}}
"""

    # --- the live object ------------------------------------------------------------------------

    def live(self, on: Ground) -> Document | None:
        return on.find(self._resource, self.name, "made")

    def value(self, live: Document) -> str:
        if self.clones:
            return base64.b64decode(strings(live, "data")["v"]).decode()
        return strings(mapping(mapping(live, "spec"), "podSelector"), "matchLabels").get("v", "")

    def state(self, on: Ground, before: str) -> Then | None:
        live = self.live(on)
        if live is None:
            return Then.ABSENT
        if uid_of(live) != before:
            return Then.BACK if self.value(live) == "made" else None
        return {"made": Then.AS_MADE, "edited": Then.EDITED, "new": Then.FOLLOWS}[self.value(live)]

    # --- beginning and event --------------------------------------------------------------------

    def begin(self, on: Ground) -> None:
        on.make(self.name)
        on.make(f"{self.name}-source")
        for source, value in (("source", "made"), ("second", "new")):
            on.secret(f"{self.name}-source", source, v=value)
        on.policy_object(self.name, self.rules())

    def trigger(self, on: Ground) -> None:
        on.config(self.name, "trigger", {"row": "yes"}, go="yes")

    def act(self, on: Ground) -> None:
        deeds: Mapping[str, Callable[[], None]] = {
            "downstream deleted": lambda: on.admin.delete(self._resource, "made", self.name),
            "downstream edited": lambda: self._edit(on, self.name, "made", "edited"),
            "trigger deleted": lambda: on.admin.delete(CONFIG_MAPS, "trigger", self.name),
            "trigger no longer matches": lambda: on.merge(
                CONFIG_MAPS, self.name, "trigger", {"metadata": {"labels": {"row": "no"}}}
            ),
            "preconditions no longer hold": lambda: on.merge(
                CONFIG_MAPS, self.name, "trigger", {"data": {"go": "no"}}
            ),
            "policy deleted": lambda: on.drop(self.name),
            "policy deleted, orphan": lambda: on.drop(self.name),
            "rule deleted": lambda: on.policy_object(self.name, self.beside()),
            "rule deleted, orphan": lambda: on.policy_object(self.name, self.beside()),
            "rule changed": lambda: on.policy_object(self.name, self.rules("new", "second")),
            "source changed": lambda: self._edit(on, f"{self.name}-source", "source", "new"),
            "source deleted": lambda: on.admin.delete(SECRETS, "source", f"{self.name}-source"),
        }
        deeds[self.event]()

    @property
    def _resource(self) -> Resource:
        return SECRETS if self.clones else NETWORK_POLICIES

    def _edit(self, on: Ground, namespace: str, name: str, value: str) -> None:
        if self.clones:
            on.merge(SECRETS, namespace, name, {"stringData": {"v": value}})
        else:
            selector: Document = {"spec": {"podSelector": {"matchLabels": {"v": value}}}}
            on.merge(NETWORK_POLICIES, namespace, name, selector)


CELLS = [
    (event, column, then)
    for event, cells in MATRIX.items()
    for column, then in zip(COLUMNS, cells, strict=True)
    if then is not None
]


@pytest.fixture(scope="module")
def outcomes(
    carried_out: tuple[Ground, ControllerProcess],
) -> Mapping[tuple[str, str], Then | None]:
    on, controller = carried_out
    rows = [
        Row(event, column, then, f"row-{number}")
        for number, (event, column, then) in enumerate(CELLS)
    ]
    for row in rows:
        row.begin(on)
    eventually(lambda: all(on.is_ready(row.name) for row in rows), "policies are Ready", 60)
    for row in rows:
        row.trigger(on)
    eventually(lambda: all(row.live(on) is not None for row in rows), "all are made", 60)
    # What is made once is remembered when nothing is left to do.
    eventually(lambda: quiet(controller), "nothing waits")
    before = {row.name: uid_of(row.live(on)) for row in rows}
    for row in rows:
        row.act(on)

    def reached() -> bool:
        return all(row.state(on, before[row.name]) is row.then for row in rows)

    try:
        eventually(reached, "every row is where it belongs", 30)
        eventually(lambda: quiet(controller), "nothing waits")
    except AssertionError:
        pass  # each row says for itself
    return {(row.event, row.column): row.state(on, before[row.name]) for row in rows}


@pytest.mark.parametrize(("event", "column", "then"), CELLS, ids=[f"{e}: {c}" for e, c, _ in CELLS])
def test_matrix_of_changes(
    outcomes: Mapping[tuple[str, str], Then | None], event: str, column: str, then: Then
) -> None:
    assert outcomes[event, column] is then
