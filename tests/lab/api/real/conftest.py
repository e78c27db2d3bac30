"""One lab with a real node for all tests that only add namespaces of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from lab.api.real import programs as needed
from tests.conftest import Run, lacking
from tests.lab.api.hollow import fresh_lab, skip_without
from tests.lab.api.real.nodes import TENANTS, RealLab

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: minutes of compiling must not count as a test's time."""
    needing = any(map(_needs_a_node, session.items))
    if session.config.option.collectonly or not needing or lacking():
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # What is wrong is told by the tests that need it.
    with capture.global_and_fixture_disabled(), suppress(MachineLacks):
        needed.check()


def _needs_a_node(item: pytest.Item) -> bool:
    return item.path.parent == HERE and "programs" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenant file with two strict tenants, red and blue."""
    file = tmp_path_factory.mktemp("real") / "tenants.yaml"
    file.write_text(TENANTS)
    return file


@pytest.fixture(scope="session")
def programs() -> None:
    """Skips where this machine cannot have a real node."""
    skip_without(needed.check)


@pytest.fixture(scope="session")
def real(programs: None, ringfence: Run, tenants: Path) -> Iterator[RealLab]:
    """One real node under the tenant file, made as a user would."""
    with fresh_lab(RealLab, ringfence) as lab:
        done = lab.up("--kubelet", "-c", tenants)
        assert done.returncode == 0, done.stderr
        yield lab
