"""A cluster of one node for each test, on programs of its own or loaded once for all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import attach, loader
from enforcer.datapath.flows import FlowReader
from lab.netns import inside
from tests.enforcer.datapath.pods import Cluster, Pod


@pytest.fixture(scope="session")
def datapath_pins() -> Iterator[Path]:
    """Loaded and pinned programs and maps."""
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    try:
        yield loader.ensure_loaded(directory)
    finally:
        attach.uninstall(directory)


@pytest.fixture
def cluster(datapath_pins: Path) -> Iterator[Cluster]:
    """A node without pods."""
    made = Cluster(datapath_pins)
    try:
        made.up()
        yield made
    finally:
        made.enforce({})
        for pod in made.pods:
            with inside(made.node):
                attach.detach(datapath_pins, pod.interface)
        made.down()


@pytest.fixture
def client(cluster: Cluster) -> Pod:
    """A pod that nothing is attached to."""
    return cluster.pod()


@pytest.fixture
def server(cluster: Cluster, client: Pod) -> Pod:
    """A pod under enforcement."""
    del client  # made first: it is pod 1
    pod = cluster.pod()
    cluster.enforce({})
    cluster.attach(pod)
    return pod


@pytest.fixture
def events(datapath_pins: Path) -> Iterator[FlowReader]:
    """The ring of the programs, read up to now."""
    with FlowReader.open(datapath_pins) as reader:
        while reader.read():
            pass
        yield reader


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Both families."""
    value: int = request.param
    return value
