"""A new agent goes on with the numbers of the old one, so that a full node can be restarted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import Inputs
from enforcer.policy.identity import Registry
from enforcer.policy.numbers import FILE, Numbers
from enforcer.policy.tables import CAPACITY, Table
from generators.cluster import Cluster
from generators.objects import Namespace, NetworkPolicy, Peer, Pod, PolicyPort, Rule
from generators.selectors import labels_selector

NODE = "here"
ROOM = {**CAPACITY, Table.POLICY: 30}
PORTS = tuple(PolicyPort("TCP", port) for port in range(8000, 8005))


def inputs(*, more: bool = False) -> Inputs:
    """Ten entries for a pod; five more where a second kind of peer may enter."""
    peers = [Peer(pod_selector=labels_selector({"app": app})) for app in ("web", "db", "cron")]
    policy = NetworkPolicy("n", "p", ingress=(Rule(tuple(peers), PORTS),))
    pods = [
        Pod("n", name, {"app": name}, ips=(f"10.0.0.{i}",), node=NODE if i == 1 else "there")
        for i, name in enumerate(("own", "web", "db", *(("cron",) if more else ())), start=1)
    ]
    cluster = Cluster(
        namespaces={"n": Namespace("n")}, pods=tuple(pods), policies=(policy,), pod_cidrs=()
    )
    return Inputs(cluster, {"n/own": 7})


def started(folder: Path, kernel: Compiler | None, maps: str = "these") -> Compiler:
    """An agent's compiler after its start, and the file that it leaves."""
    registry = Registry() if kernel is None else Registry.following(kernel.tables())
    numbers = Numbers(folder, maps)
    numbers.promise(registry)
    compiler = Compiler(NODE, registry, limits=ROOM)
    compiler.become(inputs())
    if kernel is not None:
        compiler.resync(kernel.tables())
    compiler.plan()
    numbers.save(registry, compiler.names())
    return compiler


def test_a_node_is_restarted_without_a_write(tmp_path: Path) -> None:
    old = started(tmp_path, None)
    old.commit()
    new = started(tmp_path, old)
    assert new.plan() == ()
    assert new.tables() == old.tables()


def test_what_changed_meanwhile_is_all_that_is_written(tmp_path: Path) -> None:
    old = started(tmp_path, None)
    old.commit()
    new = started(tmp_path, old)
    new.commit()
    new.become(inputs(more=True))
    assert {write.table for write in new.plan()} == {Table.POLICY, Table.ADDRESSES}
    assert len(new.plan()) == len(PORTS) + 1


@pytest.mark.parametrize("lost", ["no file", "a broken file", "other maps"])
def test_without_the_numbers_everything_is_built_beside_the_old(tmp_path: Path, lost: str) -> None:
    old = started(tmp_path, None)
    old.commit()
    if lost == "no file":
        (tmp_path / FILE).unlink()
    elif lost == "a broken file":
        (tmp_path / FILE).write_text('{"maps": "these", "groups": []')
    new = started(tmp_path, old, "others" if lost == "other maps" else "these")
    built = [w for w in new.plan() if w.table is Table.POLICY and w.value is not None]
    assert len(built) == 2 * len(PORTS)


def test_a_number_that_was_ever_given_never_gets_another_meaning(tmp_path: Path) -> None:
    old = started(tmp_path, None)
    old.commit()
    registry = Registry.following(replace(old.tables(), policy={}, endpoints={}, addresses={}))
    Numbers(tmp_path, "these").promise(registry)
    first = old.names()
    assert registry.groups.fresh() not in first["groups"].values()
    assert registry.identities.fresh() not in first["identities"].values()
