"""A tenant that writes a long policy anew, again and again, leaves nothing of former ones."""

from __future__ import annotations

import gc
from collections import Counter

from enforcer.policy.changes import PolicyChange
from generators.objects import BlockList, IPBlock, NetworkPolicy, Peer, Rule
from generators.selectors import labels_selector
from tests.enforcer.compiler.test_compile import cluster, in_force

BLOCKS, VERSIONS, FEW = 300, 60, 20


def version(number: int) -> NetworkPolicy:
    """The blocks move on by one."""
    last = (number + n for n in range(BLOCKS))
    blocks = (f"100.{64 + n // 256}.{n % 256}.0/24" for n in last)
    rule = Rule(tuple(Peer(ip_block=IPBlock(block)) for block in blocks))
    return NetworkPolicy("app", "long", labels_selector({"app": "web"}), ingress=(rule,))


def alive() -> Counter[str]:
    gc.collect()
    kept = (BlockList, IPBlock, NetworkPolicy)
    return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, kept))


def test_former_lists_are_not_kept() -> None:
    compiler = in_force(cluster())
    before = alive()
    for number in range(VERSIONS):
        compiler.apply([PolicyChange("app/long", version(number))])
        compiler.plan()
        compiler.commit()
    left = alive() - before
    assert left["BlockList"] < FEW
    assert left["IPBlock"] < FEW * BLOCKS
    assert left["NetworkPolicy"] < FEW
    compiler.apply([PolicyChange("app/long", None)])
    compiler.plan()
    compiler.commit()
    assert compiler.tables().cidrs == in_force(cluster()).tables().cidrs
