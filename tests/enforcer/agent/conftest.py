"""One hollow node with a real agent that follows the session's API server, shared by its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.enforcer.agent.cluster import Cluster
from tests.testbed.fixtures import api, pytest_collection_finish
from tests.testbed.plane import ControlPlane

__all__ = ["api", "pytest_collection_finish"]


@pytest.fixture(scope="module")
def cluster(api: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Node, relay to the API server and a running agent."""
    made = Cluster(tmp_path_factory.mktemp("node"), api)
    try:
        made.build()
        made.start_agent()
        yield made
    finally:
        made.remove()


@pytest.fixture
def name(unique_name: Callable[[str], str]) -> Callable[[str], str]:
    """Namespaces of this test's own."""
    return unique_name
