"""Long policies wait for everybody else, but no pod waits for its policy, nor starts without it."""

from __future__ import annotations

from enforcer.agent.backlog import LATEST_SECONDS, LONG, Backlog
from enforcer.compiler.compile import Compiler
from enforcer.policy.changes import InterfaceChange, PodChange, PolicyChange, RecordChange
from generators.objects import IPBlock, NetworkPolicy, Peer, Pod, Rule


def long(name: str = "long", namespace: str = "t2", more: int = 1) -> PolicyChange:
    blocks = (Peer(ip_block=IPBlock(f"100.64.{n >> 8}.{n & 255}/32")) for n in range(LONG + more))
    policy = NetworkPolicy(namespace, name, ingress=(Rule(tuple(blocks)),))
    return PolicyChange(policy.key, policy)


def backlog_here() -> Backlog:
    """Beside a compiler that has no pods: no policy brings its blocks."""
    compiler = Compiler("here")
    owners = {"t1": "one", "t2": "two", "t3": "two"}
    compiler.apply([RecordChange(name, owner) for name, owner in owners.items()])
    return Backlog("here", compiler)


SHORT = PolicyChange("t1/deny", NetworkPolicy("t1", "deny"))
ELSEWHERE = PodChange("t2/far", Pod("t2", "far", node="there"))
HERE = PodChange("t2/near", Pod("t2", "near", node="here"))


def test_a_short_policy_and_everything_else_never_waits() -> None:
    assert backlog_here().admit((SHORT, ELSEWHERE), 10) == (SHORT, ELSEWHERE)


def test_a_long_policy_alone_never_waits() -> None:
    assert backlog_here().admit((long(more=1),), 10) == (long(more=1),)
    assert backlog_here().admit((long(more=0), SHORT), 10) == (long(more=0), SHORT)


def test_long_policies_come_one_at_a_time_and_wait_as_long_as_the_last_one_took() -> None:
    backlog = backlog_here()
    assert backlog.admit((long("a"), SHORT), 10) == (SHORT,)
    assert backlog.admit((), 10.1) == (long("a"),)
    backlog.took((long("a"),), 10.1, 10.6)
    assert backlog.admit((long("b"),), 10.6) == ()
    assert backlog.due(10.6, 1) == 0.5
    assert backlog.admit((long("c"), ELSEWHERE), 11.0) == (ELSEWHERE,)
    assert backlog.admit((), 11.1) == (long("b"),)
    assert backlog.admit((), 11.1) == (long("c"),)
    assert backlog.due(11.1, 1) == 1


def test_the_one_policy_of_a_tenant_does_not_wait_for_the_many_of_another() -> None:
    backlog = backlog_here()
    many = tuple(long(f"p{n}", namespace) for n, namespace in enumerate(("t2", "t3") * 5))
    backlog.admit((*many, SHORT), 10)
    assert backlog.admit((), 10.1) == (many[0],)
    backlog.admit((long("late", "t1"), SHORT), 10.2)
    assert [backlog.admit((), 10.3) for _ in range(2)] == [(long("late", "t1"),), (many[1],)]


def test_nobody_who_changes_something_all_the_time_keeps_a_policy_waiting() -> None:
    backlog = backlog_here()
    backlog.admit((long(), ELSEWHERE), 10)
    assert backlog.admit((ELSEWHERE,), 10 + LATEST_SECONDS / 2) == (ELSEWHERE,)
    assert backlog.admit((ELSEWHERE,), 10 + LATEST_SECONDS) == (ELSEWHERE, long())


def test_a_pod_of_this_node_takes_the_policies_of_its_namespace_along() -> None:
    for change in (HERE, InterfaceChange("t2/near", 7)):
        backlog = backlog_here()
        backlog.admit((long(), long("b", "t3"), SHORT), 10)
        assert backlog.admit((change,), 10) == (long(), change)


def test_the_last_word_about_a_policy_counts() -> None:
    backlog = backlog_here()
    backlog.admit((long(), SHORT), 10)
    gone = PolicyChange("t2/long", None)
    assert backlog.admit((gone,), 10) == (gone,)
    assert backlog.admit((), 11) == ()
