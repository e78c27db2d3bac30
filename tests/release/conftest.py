"""A release of the checkout, made once; its tests ask a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.charts.conftest import helm3, helm4
from tests.release.test_release import released
from tests.testbed.fixtures import api, pytest_collection_finish

__all__ = ["api", "helm3", "helm4", "pytest_collection_finish", "release"]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this machine's platform alone."""
    return released(tmp_path_factory.mktemp("release") / "files")
