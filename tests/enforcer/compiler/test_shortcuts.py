"""While others may hand packets on, addresses say behind which interface a pod of this node is."""

from __future__ import annotations

from dataclasses import replace

from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.policy.changes import Inputs, InterfaceChange, PodChange, ShortcutChange
from enforcer.policy.tables import EndpointFlag
from tests.enforcer.compiler.test_compile import INTERFACES, OTHER, WEB, cluster, in_force


def places(compiler: Compiler) -> dict[str, int]:
    found = compiler.tables().addresses
    return {address: entry.interface for address, entry in found.items() if entry.interface}


def flagged(compiler: Compiler) -> set[int]:
    found = compiler.tables().endpoints
    return {ifindex for ifindex, e in found.items() if EndpointFlag.SHORTCUT in e.flags}


def test_only_while_somebody_may_and_only_pods_of_this_node() -> None:
    compiler = in_force(cluster())
    assert not places(compiler)
    assert not flagged(compiler)
    compiler.apply([ShortcutChange(present=True)])
    assert places(compiler) == {"10.0.0.1": 5, "fd00::1": 5, "10.0.0.2": 6}
    assert flagged(compiler) == {5, 6}
    compiler.apply([ShortcutChange(present=False)])
    assert not flagged(compiler)
    assert compiler.tables().addresses == compile_tables(cluster(), "here", INTERFACES).addresses


def test_interfaces_and_pods_are_followed() -> None:
    compiler = in_force(cluster())
    compiler.apply([ShortcutChange(present=True)])
    compiler.apply([InterfaceChange("app/web", 7)])
    assert places(compiler) == {"10.0.0.1": 7, "fd00::1": 7, "10.0.0.2": 6}
    compiler.apply([PodChange("app/api", None), InterfaceChange("app/api", None)])
    assert places(compiler) == {"10.0.0.1": 7, "fd00::1": 7}
    compiler.apply([PodChange("app/web", replace(WEB, node="there"))])
    assert not places(compiler)
    here = replace(OTHER, node="here")
    compiler.apply([PodChange("other/x", here), InterfaceChange("other/x", 9)])
    assert places(compiler) == {"10.0.0.3": 9}


def test_it_is_written_at_once_and_what_is_open_is_judged_again() -> None:
    compiler = in_force(cluster())
    before = dict(compiler.tables().endpoints)
    compiler.apply([ShortcutChange(present=True)])
    assert compiler.plan()
    after = compiler.tables().endpoints
    assert all(after[ifindex].generation != before[ifindex].generation for ifindex in before)


def test_a_history_means_what_it_would_mean_from_nothing() -> None:
    compiler = Compiler("here")
    compiler.apply([ShortcutChange(present=True)])
    compiler.become(Inputs(cluster(), INTERFACES))
    again = in_force(cluster())
    again.apply([ShortcutChange(present=True)])
    assert places(compiler) == places(again)
    assert flagged(compiler) == flagged(again)
