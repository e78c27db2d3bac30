"""One lab with its own API server for all tests that only add namespaces of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.api import assets
from tests.conftest import Run
from tests.lab.api.hollow import ApiLab, fresh_lab, skip_without
from tests.lab.builders import CLUSTER, TENANTS
from tests.testbed.fixtures import api, pytest_collection_finish

__all__ = ["api", "pytest_collection_finish"]


@pytest.fixture(scope="session")
def programs() -> None:
    """Skips where a lab cannot have an API server."""
    skip_without(assets.control_plane)


@pytest.fixture(scope="session")
def hollow(programs: None, ringfence: Run) -> Iterator[ApiLab]:
    """The example on two hollow nodes, made as a user would."""
    with fresh_lab(ApiLab, ringfence) as lab:
        done = lab.up("--api-server", "-c", TENANTS, "-f", CLUSTER)
        assert done.returncode == 0, done.stderr
        yield lab
