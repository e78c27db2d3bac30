"""The programs of the testbed are built before the first test of the pages that need them."""

from __future__ import annotations

from tests.testbed.fixtures import pytest_collection_finish

__all__ = ["pytest_collection_finish"]
