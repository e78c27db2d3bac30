"""One control plane for what an API server says to generated objects."""

from __future__ import annotations

from tests.testbed.fixtures import api, pytest_collection_finish

__all__ = ["api", "pytest_collection_finish"]
