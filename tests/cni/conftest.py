"""The plugin is built for the tests where `make setup` did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.cni import build
from generators.errors import MachineLacks


@pytest.fixture(scope="session")
def plugin() -> Path:
    """The built plugin, of the present source."""
    try:
        return build.build()
    except MachineLacks as lack:
        pytest.skip(str(lack))
