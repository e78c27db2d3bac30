"""One cluster with policies for all tests that only add to it; faults get clusters of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.controller.background.ground import Ground, ground, started
from tests.controller.cluster import ControllerProcess


@pytest.fixture(scope="session")
def carried_out(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Ground, ControllerProcess]]:
    with ground(tmp_path_factory.mktemp("policies")) as on:
        yield on, started(on)


@pytest.fixture
def on(carried_out: tuple[Ground, ControllerProcess]) -> Ground:
    """Shared: the cluster's policies are carried out."""
    return carried_out[0]


@pytest.fixture
def controller(carried_out: tuple[Ground, ControllerProcess]) -> ControllerProcess:
    return carried_out[1]


@pytest.fixture
def bare(programs: None, tmp_path: Path) -> Iterator[Ground]:
    """A cluster of its own, in which nothing of ours runs yet."""
    with ground(tmp_path) as made:
        yield made


@pytest.fixture
def mine(unique_name: Callable[[str], str]) -> str:
    """The label value of a test's own triggers."""
    return unique_name("p")
