from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from generators.kube.client import Client
from generators.kube.config import Source
from generators.kube.transport import Transport
from lab.api.plane import ADMINS
from tests.generators.kube.proxy import FaultProxy
from tests.testbed.fixtures import api, pytest_collection_finish
from tests.testbed.plane import ControlPlane

__all__ = ["admin", "api", "connect", "proxy", "pytest_collection_finish", "streams"]


@pytest.fixture(scope="session")
def streams(api: ControlPlane) -> bool:
    """Whether the API server streams a first state: by default in 1.32, and again since 1.34."""
    asked = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    path = f"/api/v1/namespaces?{asked}&allowWatchBookmarks=true&timeoutSeconds=1"
    return api.try_kubectl("get", "--raw", path).returncode == 0


@pytest.fixture
def admin(api: ControlPlane) -> Iterator[Client]:
    """A client that may do everything, without a proxy between."""
    with Client.connect(str(api.kubeconfig())) as client:
        yield client


@pytest.fixture
def connect() -> Iterator[Callable[[Source], Client]]:
    """Makes clients that are closed at the end of the test."""
    with ExitStack() as clients:
        yield lambda source: clients.enter_context(Client(Transport(source, "ringfence-test")))


@pytest.fixture
def proxy(api: ControlPlane) -> Iterator[FaultProxy]:
    """A way to the API server on which faults can be made."""
    with FaultProxy(api, "admin", ADMINS) as running:
        yield running
