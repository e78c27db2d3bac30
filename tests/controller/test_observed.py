"""Events and readiness say what was observed: as values, without an API server."""

from __future__ import annotations

import pytest

from generators.documents.json import Document
from generators.kube.lease import Standing
from webhook.controller.reconcile import foreign_editors


def entry(manager: str, **fields: object) -> Document:
    return {"manager": manager, "fieldsV1": {f"f:{key}": value for key, value in fields.items()}}


OURS = entry("ringfence", spec={"f:ingress": {}}, metadata={"f:labels": {"f:a": {}}})
RULES: Document = {"f:ingress": {}}
MARK: Document = {"f:labels": {"f:app.kubernetes.io/managed-by": {}}}


@pytest.mark.parametrize(
    ("entries", "editors"),
    [
        ([OURS], []),
        ([OURS, entry("kubectl-edit", spec=RULES)], ["kubectl-edit"]),
        ([OURS, entry("kubectl-label", metadata={"f:labels": {"f:note": {}}})], []),
        ([OURS, entry("kubectl-label", metadata=MARK)], ["kubectl-label"]),
        ([], []),
    ],
    ids=["ours alone", "rules edited", "a label of theirs", "our mark edited", "not tracked"],
)
def test_a_policy_was_changed_by_others_when_they_own_what_we_generate(
    entries: list[Document], editors: list[str]
) -> None:
    assert foreign_editors({"metadata": {"managedFields": entries}}) == editors


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        (Standing("other", ours=False, silent=1, stale=False), "[+]standby of other"),
        (Standing("me", ours=True, silent=60, stale=True), "[-]no leader is known: "),
        (Standing("me", ours=True, silent=1, stale=False), "[-]no leader is known"),
        (Standing("", ours=False, silent=60, stale=True), "[-]no leader is known: "),
        (Standing("other", ours=False, silent=60, stale=True), "[!]standby; other led when "),
    ],
)
def test_nobody_is_a_standby_of_itself(standing: Standing, line: str) -> None:
    assert str(standing.check()).startswith(line)
