"""A change of the controller's record costs the same, however many namespaces there are.

Lines of Python that run are counted, not seconds: the count is the same on every machine.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.agent.state import Board, NodeState
from enforcer.cni.namespaces import Strictness, parse
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import (
    ConfigChange,
    InputChange,
    InterfaceChange,
    NamespaceChange,
    PodChange,
    RecordChange,
)
from enforcer.policy.identity import TenantNumbers, tenant_ids
from enforcer.sources import record
from enforcer.sources.record import Record
from generators.isolation.record import RecordEntry, entry_text, parse_entry
from generators.objects import NAME_LABEL, Namespace, Pod
from generators.tenants.model import Grant, Tenant, TenantConfig

FEW, MANY = 50, 1000
SIZES = (FEW, FEW, MANY)
"""The first one fills what the product remembers for all."""
SHARD = "ringfence-record-0"
CONFIG = TenantConfig(
    {
        "t1": Tenant("t1", allow_from=(Grant("t2"),)),
        "t2": Tenant("t2", allow_to=(Grant("t1"),)),
    }
)


def lines(work: Callable[[], object]) -> int:
    """How many lines of the product run; garbage collection runs lines of others."""
    count = 0

    def trace(frame: FrameType, happened: str, _value: object) -> object:
        nonlocal count
        if frame.f_globals.get("__name__", "").partition(".")[0] not in ("enforcer", "generators"):
            return None
        count += happened == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count


class Followed:
    """What a node with a pod of `n0` follows, in a cluster of so many namespaces of tenant t1."""

    def __init__(self, namespaces: int) -> None:
        self.record = Record()
        self.compiler = Compiler("here")
        self.board = Board()
        self.entries = {
            f"uid-{n}": entry_text(RecordEntry(f"n{n}", "t1")) for n in range(namespaces)
        }
        pod = Pod("n0", "web", ips=("10.0.0.1",), node="here")
        changes: list[InputChange] = [ConfigChange(CONFIG)]
        for number in range(namespaces):
            changes.append(self.namespace(f"n{number}", f"uid-{number}"))
        changes += [PodChange(pod.key, pod), InterfaceChange(pod.key, 5)]
        self.revision = 0
        self.follow(*changes)

    def namespace(self, name: str, uid: str) -> InputChange:
        found = Namespace(name, {NAME_LABEL: name}, uid=uid)
        self.record.put_namespace(name, found)
        return NamespaceChange(name, found)

    def follow(self, *changes: InputChange) -> None:
        """From a shard of the record to what is published."""
        data = dict(self.entries)
        self.record.put_shard(SHARD, data)
        found = [RecordChange(name, tenant) for name, tenant in self.record.changes()]
        self.compiler.apply([*changes, *found])
        self.compiler.plan()
        self.compiler.commit()
        self.revision += 1
        compiler = self.compiler
        self.board.publish(
            NodeState(
                revision=self.revision,
                config=CONFIG,
                walled=compiler.walled(),
                walls_turned=compiler.walls_turned,
            )
        )

    def move(self, number: int, tenant: str) -> None:
        """A namespace becomes another tenant's."""
        self.entries[f"uid-{number}"] = entry_text(RecordEntry(f"n{number}", tenant))
        self.follow()

    def tenant_of(self, number: int) -> str | None:
        return self.compiler.known.record.get(f"n{number}")


@pytest.mark.parametrize("tenant", ["t2", "of no tenant file"])
def test_a_namespace_becomes_another_tenants(tenant: str) -> None:
    nodes = [Followed(size) for size in SIZES]
    _, few, many = (lines(partial(node.move, 7, tenant)) for node in nodes)
    assert [node.tenant_of(7) for node in nodes] == [tenant] * 3
    assert few == many


def test_a_namespace_comes_and_goes() -> None:
    def come_and_go(node: Followed) -> None:
        node.entries["uid-new"] = entry_text(RecordEntry("new", "t1"))
        node.follow(node.namespace("new", "uid-new"))
        assert node.compiler.known.record["new"] == "t1"
        del node.entries["uid-new"]
        node.record.put_namespace("new", None)
        node.follow(NamespaceChange("new", None))
        assert "new" not in node.compiler.known.homes

    _, few, many = (lines(partial(come_and_go, Followed(size))) for size in SIZES)
    assert few == many


def test_only_entries_that_changed_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    node, parsed = Followed(MANY), list[str]()

    def counted(text: str) -> RecordEntry | None:
        parsed.append(text)
        return parse_entry(text)

    monkeypatch.setattr(record, "parse_entry", counted)
    node.move(7, "t2")
    assert parsed == [node.entries["uid-7"]]
    node.follow()
    assert len(parsed) == 1


def test_an_entry_that_makes_no_sense_is_told_until_it_is_repaired() -> None:
    node = Followed(3)
    node.entries |= {"uid-1": "{", "uid-2": "[]"}
    node.follow()
    told = "no entries: uid-1, uid-2; the controller repairs them"
    assert node.record.unreadable == {SHARD: told}
    assert node.tenant_of(1) is None
    node.entries["uid-1"] = entry_text(RecordEntry("n1", "t1"))
    del node.entries["uid-2"]
    node.follow()
    assert node.record.unreadable == {}
    assert (node.tenant_of(1), node.tenant_of(2)) == ("t1", None)


def test_the_file_of_start_modes_is_made_anew_only_when_one_changed() -> None:
    nodes = [Followed(size) for size in SIZES]
    told = {node: Strictness(node.board, configured=True) for node in nodes}
    pages = {node: told[node].page() for node in told}
    costs = []
    for node, strictness in told.items():
        node.move(7, "t2")
        costs.append(lines(strictness.page))
        assert strictness.page() is pages[node]
    assert costs[1] == costs[2]
    del nodes[2].entries["uid-7"]
    nodes[2].follow()
    page = told[nodes[2]].page()
    assert page is not None
    assert parse(page)["n7"] == "open"


steps = st.lists(
    st.lists(st.tuples(st.sampled_from([f"t{n}" for n in range(7)]), st.booleans()), max_size=4),
    max_size=20,
)


@pytest.mark.parametrize("among", [7, 50, 1 << 30])
@given(steps)
def test_tenants_are_numbered_as_from_nothing_whatever_came_and_went(
    among: int, happened: list[list[tuple[str, bool]]]
) -> None:
    """Among so few numbers most names find another in their place."""
    kept, uses = TenantNumbers(among), Counter[str]()
    for step in happened:
        before = dict(kept.ids)
        for name, comes in step:
            if comes:
                uses[name] += 1
                kept.use(name)
            elif uses[name]:
                uses[name] -= 1
                kept.leave(name)
        renumbered = kept.settle()
        assert kept.ids == tenant_ids((name for name in uses if uses[name]), among)
        assert kept.names == {number: name for name, number in kept.ids.items()}
        for name in before.keys() & kept.ids.keys():
            assert renumbered or before[name] == kept.ids[name]
        assert not renumbered or among == 7
