"""Both families."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    """IPv4 and IPv6: the same rules, the same answers."""
    value: int = request.param
    return value
