"""The plugin, built where `make setup` did not, and a node whose agent most tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.cni import build
from generators.errors import MachineLacks
from tests.cni.node import Node, started
from tests.testbed import build as build_testbed


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The built plugin, of the present source."""
    try:
        return build.build()
    except MachineLacks as lack:
        pytest.skip(str(lack))


@pytest.fixture(scope="session")
def libcni() -> Path:
    """The library by which runtimes run plugins, as a command; built once and cached."""
    try:
        return build_testbed.ensure(build_testbed.LIBCNI, lambda _: None) / "libcni"
    except MachineLacks as lack:
        pytest.skip(str(lack))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[Node]:
    """An agent in start mode strict, which runs all the time; pods have names of their own."""
    with started(tmp_path_factory.mktemp("node")) as found:
        yield found
