"""A clsact filter of somebody else that hands packets straight to pods, before or behind ours.

Ours are tcx links, or as on kernels before 6.6 clsact filters too: there the agent is one to which
the kernel refuses links.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from enforcer.datapath import kernel
from enforcer.datapath.attach import FILTER_PRIORITY
from lab import netns
from tests.enforcer.node import Node, deny_ingress
from tests.enforcer.redirecting import (
    FAMILIES,
    FIRST,
    FRIEND,
    OTHER,
    VICTIM,
    cluster,
    handing_on,
    index_of,
    put_filter,
    status,
    three_pods,
)
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(180)]

WITHOUT_TCX = """
import errno
from enforcer.datapath import kernel

def refused(*_):
    raise kernel.KernelError("link create", errno.EINVAL)

kernel.link_create = refused
from generators.cli import main
main()
"""
BEHIND = FILTER_PRIORITY + 8


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with three_pods(tmp_path) as made:
        yield made


@pytest.fixture
def programs() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def redirect_everything(node: Node, programs: ExitStack, priority: int) -> None:
    """Have all pods' packets go past the hooks where they would enter pods."""
    names = [wire.interface for wire in node.wires.values()]
    pods = {number: index_of(node, name) for number, name in enumerate(names, start=FIRST)}
    code = handing_on(pods)
    with netns.inside(node.name):
        program = programs.enter_context(kernel.program_load("neighbour", code))
        for name, ifindex in zip(names, pods.values(), strict=True):
            # There may be one already: whoever comes first makes it.
            words = ("tc", "qdisc", "add", "dev", name, "clsact")
            subprocess.run(words, check=False, capture_output=True)
            put_filter(ifindex, program.fd, priority)


def enforce(node: Node, *, tcx: bool) -> None:
    arguments = node.arguments("--config", str(node.directory / "tenants.yaml"))
    if not tcx:
        at = next(i for i, word in enumerate(arguments) if word.endswith("/ringfence"))
        arguments[at : at + 1] = [sys.executable, "-c", WITHOUT_TCX]
    agent = node.begin(arguments, env=dict(os.environ))
    node.wait(node.write(*cluster(node)), agent)
    node.wait_until_enforced()
    assert status(node)["attached"] == {"tcx" if tcx else "clsact": len(node.wires)}


def holds(node: Node, family: int) -> None:
    """Wall and policies, and what they let through."""
    eventually(lambda: status(node)["neighbours"], "the neighbour is noticed")
    eventually(lambda: not node.reaches(FRIEND, VICTIM, family), "the wall holds")
    assert node.reaches(FRIEND, OTHER, family)
    node.write(*cluster(node, deny_ingress("t1")))
    eventually(lambda: not node.reaches(FRIEND, OTHER, family), "policies hold")
    assert not status(node)["problems"]


@FAMILIES
@pytest.mark.parametrize("priority", [FILTER_PRIORITY, BEHIND])
@pytest.mark.parametrize("comes", ["first", "later"])
def test_beside_tcx_links_it_is_always_behind_and_held(
    node: Node, programs: ExitStack, comes: str, priority: int, family: int
) -> None:
    if comes == "first":
        redirect_everything(node, programs, priority)
    enforce(node, tcx=True)
    if comes == "later":
        redirect_everything(node, programs, priority)
    holds(node, family)


@FAMILIES
@pytest.mark.parametrize(
    ("comes", "priority"),
    [("first", BEHIND), ("later", BEHIND), ("first", FILTER_PRIORITY)],
    ids=["first, later in order", "later, later in order", "first, of our place"],
)
def test_behind_our_filter_it_is_held(
    node: Node, programs: ExitStack, comes: str, priority: int, family: int
) -> None:
    if comes == "first":
        redirect_everything(node, programs, priority)
    enforce(node, tcx=False)
    if comes == "later":
        redirect_everything(node, programs, priority)
    holds(node, family)


@FAMILIES
def test_before_our_filter_it_is_not_held_and_told(
    node: Node, programs: ExitStack, family: int
) -> None:
    """The kernel puts the newer filter of a priority first."""
    enforce(node, tcx=False)
    assert not node.reaches(FRIEND, VICTIM, family)
    redirect_everything(node, programs, FILTER_PRIORITY)
    told = eventually(lambda: status(node)["problems"], "it is told")
    assert "not enforced: program first" in str(told)
    assert "clsact ingress" in str(told)
    assert node.reaches(FRIEND, VICTIM, family), "held: say so in docs/platforms.md"
