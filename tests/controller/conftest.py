"""One guarded cluster for all tests that only add namespaces; faults get clusters of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from tests.controller.cluster import Cluster, ControllerProcess, cluster, guarded
from tests.controller.policies import Running, carried_out
from tests.testbed import build
from tests.testbed.fixtures import pytest_collection_finish
from tests.testbed.planes import Planes

__all__ = ["pytest_collection_finish"]


@pytest.fixture(scope="session")
def programs() -> None:
    """Skips where there is no API server to be had."""
    try:
        build.ensure(build.KUBERNETES, lambda _: None)
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")


@pytest.fixture(scope="session")
def deployment(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, ControllerProcess]]:
    with guarded(tmp_path_factory.mktemp("guarded")) as running:
        yield running


@pytest.fixture
def guarded_cluster(deployment: tuple[Cluster, ControllerProcess]) -> Cluster:
    """Shared: webhook and controller run, admission is in force."""
    return deployment[0]


@pytest.fixture(scope="session")
def planes(programs: None) -> Iterator[Planes]:
    """Control planes for tests that need one for themselves."""
    with Planes() as kept:
        yield kept


@pytest.fixture
def fresh(planes: Planes, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of its own, in which nothing of ours runs yet."""
    with cluster(tmp_path, plane=planes.one()) as made:
        yield made


@pytest.fixture
def name(unique_name: Callable[[str], str]) -> Callable[[str], str]:
    """`name("test01")` -> `n3f9a1c-test01`, which the tenant file claims for test01."""
    return lambda tenant: f"{unique_name('n')}-{tenant}"


@pytest.fixture(scope="module")
def running(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One cluster with policies for a module; policies of tests match different namespaces."""
    with carried_out(tmp_path_factory.mktemp("policies")) as made:
        yield made
