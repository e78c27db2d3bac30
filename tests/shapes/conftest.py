"""The real programs, loaded once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import attach, loader


@pytest.fixture(scope="session")
def pins() -> Iterator[Path]:
    """Loaded and pinned programs and maps."""
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    try:
        yield loader.ensure_loaded(directory)
    finally:
        attach.uninstall(directory)
