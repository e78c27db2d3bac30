"""The real programs, loaded once for all tests of this folder, and a fresh pod for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import attach, loader
from tests.bpf.veth import Veth, opened


@pytest.fixture(scope="session")
def pins() -> Iterator[Path]:
    """Loaded and pinned programs and maps."""
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    try:
        yield loader.ensure_loaded(directory)
    finally:
        attach.uninstall(directory)


@pytest.fixture
def veth(pins: Path) -> Iterator[Veth]:
    """A pod without state yet; `configure` gives it one."""
    with opened(pins) as fresh:
        yield fresh


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Both families: one policy for both, and the same answers."""
    value: int = request.param
    return value
