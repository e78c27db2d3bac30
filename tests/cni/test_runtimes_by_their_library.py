"""Real libcni runs chains with our plugin: every version, the configurations in use, the orders in
which containerd and CRI-O call.

CRI-O itself is no Debian package; its calls are made here in its order, by its library.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from enforcer.cni import conflist
from tests.cni.library import CONTAINERD, CRI_O, Library, Sandbox, failures
from tests.cni.node import Node, pod, started
from tests.cni.shapes import SHAPES, Shape
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("plugin"), pytest.mark.timeout(120)]

VERSIONS = (None, "", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
WITH_CHECK = ("0.4.0", "1.0.0", "1.1.0")
"""libcni refuses CHECK in older ones, and runtimes do not ask for it."""
NUMBERS = count()


@pytest.fixture
def library(libcni: Path, node: Node, tmp_path: Path) -> Library:
    """With directories of its own, before the agent of the node."""
    places = replace(node.places, conf_dir=tmp_path / "net.d", bin_dir=tmp_path / "bin")
    return Library(libcni, places, tmp_path / "cache")


def sandbox(node: Node) -> Sandbox:
    key = f"t1/library-{next(NUMBERS)}"
    node.write("library.json", pod(key))
    return Sandbox(key, node.sandbox())


def played(node: Node, library: Library, order: tuple[str, ...], version: str) -> list[str]:
    """What fails of an order of calls about a new pod."""
    made = sandbox(node)
    calls = [call for call in order if call != "CHECK" or version in WITH_CHECK]
    return failures(calls, library.run([made.call(call) for call in calls]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pods_come_and_go_by_each_configuration(node: Node, library: Library, shape: Shape) -> None:
    library.joined(shape.file, shape.text)
    version = str(json.loads(shape.text).get("cniVersion", ""))
    assert played(node, library, (*CRI_O, *CONTAINERD), version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_pods_come_and_go_in_each_version(
    node: Node, library: Library, version: str | None
) -> None:
    named = {} if version is None else {"cniVersion": version}
    plugins = [{"type": "bridge"}, {"type": "portmap"}]
    library.joined("10-x.conflist", json.dumps({**named, "name": "x", "plugins": plugins}))
    made = sandbox(node)
    added, *deleted = library.run([made.call(call) for call in ("ADD", "DEL", "DEL")])
    assert [added.error, *(done.error for done in deleted)] == ["", "", ""]
    found = json.dumps(added.result)
    assert all(address in found for address in made.wire.addresses), found


def test_a_pod_whose_network_namespace_is_gone_can_be_deleted(node: Node, library: Library) -> None:
    shape = SHAPES["calico"]
    library.joined(shape.file, shape.text)
    made = sandbox(node)
    gone = replace(made, netns="/run/netns/that-is-gone")
    outcomes = library.run([made.call("ADD"), gone.call("DEL"), gone.call("DEL")])
    assert [outcome.error for outcome in outcomes] == ["", "", ""]
    assert node.attachment(made.pod) is None


def test_after_uninstall_pods_are_deleted_with_the_configuration_of_before(
    libcni: Path, tmp_path: Path
) -> None:
    with started(tmp_path / "n") as node:
        library = Library(libcni, node.places, tmp_path / "cache")
        eventually(lambda: conflist.PLUGIN_TYPE in node.conflist.read_text())
        (node.places.bin_dir / "bridge").symlink_to(libcni)
        made = [sandbox(node), sandbox(node)]
        node.write("library.json", *(pod(one.pod) for one in made))
        added = library.run([one.call("ADD") for one in made])
        assert [done.error for done in added] == ["", ""]
        node.end(node.processes[-1])
        subprocess.run(node.command("uninstall"), check=True, timeout=patience(30))
        assert conflist.PLUGIN_TYPE not in node.conflist.read_text()
        for one, left in zip(made, (True, False), strict=True):
            calls = CRI_O[CRI_O.index("DEL cached") :]
            assert failures(calls, library.run([one.call(call) for call in calls])) == []
            assert node.places.program.exists() is left, "it stays for who was made with it"
        assert [p.name for p in node.places.bin_dir.iterdir()] == ["bridge"]


def test_garbage_is_collected_by_the_list_of_attachments(node: Node, library: Library) -> None:
    library.joined("10-x.conflist", json.dumps(NEWEST))
    kept, lost = sandbox(node), sandbox(node)
    node.write("library.json", pod(kept.pod), pod(lost.pod))
    named = {**kept.call("GC"), "valid": [{"containerID": kept.wire.netns, "ifname": "eth0"}]}
    assert (
        failures(["ADD", "ADD", "GC"], library.run([kept.call("ADD"), lost.call("ADD"), named]))
        == []
    )
    assert node.attachment(kept.pod) is not None
    assert node.attachment(lost.pod) is None
    assert [done.error for done in library.run([kept.call("DEL")])] == [""]


NEWEST = {"cniVersion": "1.1.0", "name": "x", "plugins": [{"type": "bridge"}]}
