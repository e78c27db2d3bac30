"""pytest's way to the testbed. A conftest that needs it says:

    from tests.testbed.fixtures import api, pytest_collection_finish

    __all__ = ["api", "pytest_collection_finish"]

and its tests carry `pytest.mark.cluster`. `api` is one control plane for the whole session,
however many conftests import it; tests share it and keep apart by namespaces of their own
(`unique_name`). A test that stops the API server starts a `ControlPlane` of its own.
"""

from __future__ import annotations

import contextlib

import pytest

from generators.errors import MachineLacks, RingfenceError
from tests.testbed import build
from tests.testbed.plane import ControlPlane

_PLANE = pytest.StashKey[ControlPlane]()
_MARKER = "cluster"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: minutes of compiling must not count as a test's time."""
    if session.config.option.collectonly:
        return
    if any(item.get_closest_marker(_MARKER) for item in session.items):
        build_now(session.config, build.KUBERNETES)


def build_now(config: pytest.Config, product: build.Product) -> None:
    """Build what is not there yet, and show how far it is."""
    capture = config.pluginmanager.getplugin("capturemanager")
    reporter = config.pluginmanager.getplugin("terminalreporter")

    def say(line: str) -> None:
        if capture is None or reporter is None:
            return
        with capture.global_and_fixture_disabled():
            reporter.write_line(line)

    # What is wrong is told by the tests that need it: skipped on a laptop, failed in CI.
    with contextlib.suppress(RingfenceError):
        build.ensure(product, say)


@pytest.fixture(scope="session")
def api(request: pytest.FixtureRequest) -> ControlPlane:
    """The session's control plane, running."""
    config = request.config
    plane = config.stash.get(_PLANE, None)
    if plane is None:
        try:
            build.ensure(build.KUBERNETES, lambda _: None)
        except MachineLacks as lack:
            pytest.skip(f"testbed: {lack}")
        plane = ControlPlane()
        plane.start()
        config.stash[_PLANE] = plane
        config.add_cleanup(plane.stop)
    return plane
