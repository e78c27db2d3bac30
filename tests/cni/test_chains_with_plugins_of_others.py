"""Behind plugins that others wrote (Debian's): the node's configuration, run as a runtime does."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lab import netns
from lab.names import NETNS_ROOT
from tests.cni.library import Library, Sandbox
from tests.cni.node import Node, pod, reaches
from tests.cni.runtime import PLUGINS, Chain, Result, conflist_of
from tests.enforcer.node import deny_ingress
from tests.testbed.waiting import eventually, patience

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.usefixtures("plugin"),
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not (PLUGINS / "ptp").exists(),
        reason="no containernetworking-plugins; tools/setup.sh test installs them",
    ),
]


@pytest.fixture(autouse=True)
def _link_local(node: Node) -> Iterator[None]:
    """These plugins count on link-local addresses of the node."""
    setting = Path("/proc/sys/net/ipv6/conf/default/addr_gen_mode")
    with netns.inside(node.name):
        before = setting.read_text()
        setting.write_text("0")
    yield
    with netns.inside(node.name):
        setting.write_text(before)


def chain(node: Node, kind: str) -> Chain:
    """The configuration of another CNI, into which the agent puts our plugin."""
    text = conflist_of(kind, node.directory / "addresses" / kind)
    node.conflist.write_text(text)
    wanted = [*json.loads(text)["plugins"], node.places.entry().fields]
    eventually(lambda: json.loads(node.conflist.read_text())["plugins"] == wanted)
    return Chain(node.conflist, NETNS_ROOT / node.name, node.places.bin_dir)


def address(added: Result, family: int) -> str:
    ips = added.json["ips"]
    assert isinstance(ips, list)
    found = [str(ip["address"]).partition("/")[0] for ip in ips]
    return next(a for a in found if (":" in a) is (family == 6))


@pytest.mark.parametrize("kind", ["ptp", "bridge"])
def test_pods_of_another_cni_start_behind_their_policy(node: Node, kind: str) -> None:
    runtime = chain(node, kind)
    server, friend, stranger = keys = (f"t1/{kind}-server", f"t1/{kind}-friend", f"t2/{kind}")
    node.write("chain.json", *(pod(key) for key in keys))
    boxes = {key: node.empty().netns for key in keys}
    added = {key: runtime.add(boxes[key], NETNS_ROOT / boxes[key], key) for key in keys}
    assert [done.code for done in added.values()] == [0, 0, 0], (added, node.log)
    for family in (4, 6):
        target = address(added[server], family)
        for key in keys:  # IPv6 addresses are tried out first
            eventually(partial(ready, boxes[key], address(added[key], family)))
        assert reaches(boxes[friend], boxes[server], target, patience(60)), node.log
        assert not reaches(boxes[stranger], boxes[server], target)
    node.write("deny.json", deny_ingress("t1"))
    eventually(lambda: not reaches(boxes[friend], boxes[server], target))
    (node.manifests / "deny.json").unlink()
    for key in keys:
        ended = runtime.delete(boxes[key], NETNS_ROOT / boxes[key], key, added[key])
        assert [done.code for done in ended] == [0, 0]
    assert all(node.attachment(key) is None for key in keys)


def ready(name: str, address: str) -> bool:
    """Whether an address of a pod can be used."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.inside(name), socket.socket(kind, socket.SOCK_STREAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("kind", ["ptp", "bridge"])
def test_a_pod_that_started_without_the_plugin_is_found_all_the_same(
    node: Node, libcni: Path, tmp_path: Path, kind: str
) -> None:
    """By its route behind ptp, by what the runtime's library has written down on a bridge."""
    places = replace(node.places, conf_dir=tmp_path, bin_dir=PLUGINS)
    inside = ("nsenter", f"--net={NETNS_ROOT / node.name}", "--")
    library = Library(libcni, places, node.records.parent, {kind}, inside)
    library.write("10-x.conflist", conflist_of(kind, node.directory / "addresses" / kind))
    sandbox = Sandbox(f"t1/late-{kind}", node.empty())
    (added,) = library.run([sandbox.call("ADD")])
    assert added.error == ""
    done = Result(0, json.dumps(added.result))
    node.write("found.json", pod(sandbox.pod, ips=(address(done, 4), address(done, 6))))
    eventually(lambda: node.enforces(sandbox.pod), "it is found")
    assert [ended.error for ended in library.run([sandbox.call("DEL")])] == [""]
