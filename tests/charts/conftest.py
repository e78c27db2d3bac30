"""Helm 3 and 4 and a node that executes hooks, on the session's API server.

`helm` runs a test under both majors; `helm4` and `helm3` where one is enough. What is installed
gets a namespace of its own (`namespace`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from generators.errors import MachineLacks
from lab.api import container
from tests.charts.helm import Helm, Major
from tests.testbed import build, fixtures
from tests.testbed.fixtures import api
from tests.testbed.node import JobNode
from tests.testbed.plane import ControlPlane

__all__ = ["api"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test: minutes of compiling must not count as a test's time."""
    fixtures.pytest_collection_finish(session)
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    for major in Major:
        if wanted & {"helm", major.value}:
            fixtures.build_now(session.config, major.product)
    if "promtool" in wanted:
        fixtures.build_now(session.config, build.PROMTOOL)


def _helm(major: Major, folders: pytest.TempPathFactory) -> Helm:
    try:
        program = build.ensure(major.product, lambda _: None) / "helm"
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")
    return Helm(major, program, folders.mktemp(major.value))


@pytest.fixture(scope="session")
def helm3(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 3; `helm3.at(api)` where it needs an API server."""
    return _helm(Major.V3, tmp_path_factory)


@pytest.fixture(scope="session")
def helm4(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm 4; `helm4.at(api)` where it needs an API server."""
    return _helm(Major.V4, tmp_path_factory)


@pytest.fixture(params=list(Major), ids=lambda major: major.value)
def helm(request: pytest.FixtureRequest) -> Helm:
    """Each of the two in turn."""
    major: Major = request.param
    chosen: Helm = request.getfixturevalue(major.value)
    return chosen


@pytest.fixture(scope="session")
def job_node(api: ControlPlane) -> Iterator[JobNode]:
    """Executes the pods of Jobs and hooks of every namespace."""
    try:
        container.check()
    except MachineLacks as lack:
        pytest.skip(f"testbed: {lack}")
    with JobNode(api) as node:
        yield node


@pytest.fixture
def namespace(api: ControlPlane, unique_name: Callable[[str], str]) -> str:
    """An empty namespace; the plane's end removes it."""
    name = unique_name("team")
    api.kubectl("create", "namespace", name)
    return name
