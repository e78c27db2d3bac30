"""A node with three pods, one of which is isolated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enforcer.faults.traffic import PODS
from tests.enforcer.node import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        made.build()
        made.add_pod(PODS.stranger, 3)
        yield made
    finally:
        made.remove()
