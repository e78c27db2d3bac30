"""The real plugin, the real agent, real packets: how pods come, go, come again and wait."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from enforcer.cni import conflist
from enforcer.datapath import attach, loader
from enforcer.sources.manifests import manifests_digest
from lab import netns
from lab.names import NETNS_ROOT
from tests.cni.node import CONFLIST, Node, pod, reaches, started
from tests.enforcer.node import deny_ingress
from tests.testbed.waiting import eventually, kill, patience

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("plugin"), pytest.mark.timeout(120)]


def test_add_returns_when_the_policy_of_the_pod_is_in_force(node: Node) -> None:
    ours, foreign = node.sandbox(), node.sandbox()
    node.write("one.json", pod("t1/a"), pod("t2/b"))
    for key, wire in (("t1/a", ours), ("t2/b", foreign)):
        added = node.add(key, wire)
        assert (added.code, added.json) == (0, node.previous(wire)), node.log
    assert not reaches(foreign.netns, ours.netns, ours.addresses[0])
    friend = node.sandbox()
    node.write("two.json", pod("t1/friend"))
    assert node.add("t1/friend", friend).code == 0
    assert reaches(friend.netns, ours.netns, ours.addresses[0], patience(60))


def test_add_of_a_pod_that_nobody_knows_fails_for_a_strict_tenant_only(node: Node) -> None:
    strict, free = node.sandbox(), node.sandbox()
    refused = node.add("t1/ghost", strict, seconds=1)
    assert (refused.code, refused.json["code"]) == (1, 11)
    assert "the agent does not know it" in refused.output
    started_all_the_same = node.add("free/ghost", free, seconds=1)
    assert (started_all_the_same.code, started_all_the_same.json) == (0, node.previous(free))
    with netns.inside(node.name):
        pins = loader.find_loaded(node.pin_dir)
        assert pins is not None
        for wire in (strict, free):
            assert attach.attached(pins, wire.interface) is not None, "closed until it is known"
    assert not reaches(free.netns, strict.netns, strict.addresses[0])
    numbers = {str(node.ifindex(wire)) for wire in (strict, free)}
    for key, wire in (("t1/ghost", strict), ("free/ghost", free)):
        assert node.delete(key, wire).code == 0
    eventually(lambda: not numbers & {p.name.partition("-")[0] for p in node.links()})


def test_a_pod_that_becomes_known_while_add_waits_starts(node: Node) -> None:
    wire = node.sandbox()
    node.write("late.json", pod("t1/late", uid="old"))
    assert node.add("t1/late", wire, uid="new", seconds=1).code == 1, "that is another pod"
    node.write("late.json", pod("t1/late", uid="new"))
    assert node.add("t1/late", wire, uid="new").code == 0


def test_a_new_sandbox_of_the_same_pod_outlives_the_late_end_of_the_old_one(node: Node) -> None:
    old, new, peer = node.sandbox(), node.sandbox(), node.sandbox()
    node.write("again.json", pod("t1/again"), pod("t1/peer"))
    for key, wire in (("t1/peer", peer), ("t1/again", old), ("t1/again", new)):
        assert node.add(key, wire).code == 0
    assert node.delete("t1/again", old).code == 0
    found = node.attachment("t1/again")
    assert found is not None
    assert (found.container, found.ifindex) == (new.netns, node.ifindex(new))
    assert reaches(peer.netns, new.netns, new.addresses[0], patience(60))


def test_a_new_sandbox_starts_while_the_status_has_the_addresses_of_the_old_one(node: Node) -> None:
    old, new, peer = node.sandbox(), node.sandbox(), node.sandbox()
    node.write("moved.json", pod("t1/moved", uid="u"), pod("t1/near"))
    for key, wire, uid in (("t1/near", peer, ""), ("t1/moved", old, "u")):
        assert node.add(key, wire, uid=uid).code == 0
    node.write("moved.json", pod("t1/moved", uid="u", ips=old.addresses), pod("t1/near"))
    files = {path.name: path.read_bytes() for path in node.manifests.iterdir()}
    eventually(lambda: node.status()["manifests"] == manifests_digest(files))
    assert node.delete("t1/moved", old).code == 0
    added = node.add("t1/moved", new, uid="u", seconds=5)
    assert (added.code, added.json) == (0, node.previous(new)), node.log
    assert reaches(peer.netns, new.netns, new.addresses[0], patience(60))


def test_a_pod_whose_sandbox_is_not_made_is_nothing_that_is_not_enforced(node: Node) -> None:
    node.write("pending.json", pod("t1/pending"))
    files = {path.name: path.read_bytes() for path in node.manifests.iterdir()}
    eventually(lambda: node.status()["manifests"] == manifests_digest(files))
    status = node.status()
    assert "t1/pending" not in str((status["notEnforced"], status["problems"]))
    wire = node.sandbox()
    assert node.add("t1/pending", wire).code == 0


def test_del_is_content_with_what_it_does_not_know(node: Node) -> None:
    wire = node.sandbox()
    for _ in range(2):
        gone = node.delete("t1/never", wire)
        assert (gone.code, gone.output) == (0, "")


def test_check_notices_that_somebody_took_the_programs_off(node: Node) -> None:
    wire = node.sandbox()
    node.write("checked.json", pod("t1/checked"))
    assert node.check("t1/checked", wire).json["code"] == 100, "never added"
    assert node.add("t1/checked", wire).code == 0
    assert (node.check("t1/checked", wire).code, node.check("t1/checked", wire).output) == (0, "")
    with netns.inside(node.name):
        pins = loader.find_loaded(node.pin_dir)
        assert pins is not None
        attach.detach(pins, wire.interface)
    told = node.check("t1/checked", wire)
    assert told.json["code"] == 100
    assert "programs are not on" in told.output


def test_garbage_is_what_the_runtime_does_not_name(node: Node) -> None:
    kept, lost = node.sandbox(), node.sandbox()
    node.write("garbage.json", pod("t1/kept"), pod("t1/lost"))
    for key, wire in (("t1/kept", kept), ("t1/lost", lost)):
        assert node.add(key, wire).code == 0
    named = {"cni.dev/valid-attachments": [{"containerID": kept.netns, "ifname": "eth0"}]}
    assert node.runtime().call("GC").code == 0
    assert node.attachment("t1/lost") is not None, "it did not say what stays"
    assert replace(node.runtime(), more=named).call("GC").code == 0
    assert node.attachment("t1/kept") is not None
    assert node.attachment("t1/lost") is None


def test_what_is_no_pod_is_let_through(node: Node) -> None:
    wire = node.sandbox()
    passed = node.add("", wire)
    assert (passed.code, passed.json) == (0, node.previous(wire))


def test_a_pod_without_a_veth_is_refused_to_a_strict_tenant(node: Node) -> None:
    wire = node.sandbox()
    told = node.runtime().call(
        "ADD", "c", "t1/a", netns=f"/run/netns/{node.name}", previous=node.previous(wire)
    )
    assert told.json["code"] == 11
    assert "does not lead to a veth of this node" in told.output


def test_the_namespaces_that_are_strict_are_written_down(node: Node) -> None:
    wanted = ["* strict", "free open", "t1 strict", "t2 strict"]
    eventually(lambda: set(wanted) <= set(node.places.namespaces.read_text().splitlines()))


def test_a_configuration_written_anew_by_its_owner_gets_our_entry_again(node: Node) -> None:
    newer = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge", "mtu": 9000}]}'
    for text in (newer, newer.replace("9000", "1500")):
        node.conflist.write_text(text)
        eventually(lambda: conflist.PLUGIN_TYPE in node.conflist.read_text())
        held = json.loads(node.conflist.read_text())["plugins"]
        assert held == [*json.loads(text)["plugins"], node.places.entry().fields]


def test_a_configuration_that_cannot_be_joined_is_in_the_status_until_it_can(node: Node) -> None:
    good = node.conflist.read_text()
    node.conflist.write_text("{")
    eventually(lambda: "this is not JSON" in str(node.status()["errors"]))
    assert "new pods start without the CNI plugin" in str(node.status()["errors"])
    node.conflist.write_text(good)
    eventually(lambda: node.status()["errors"] == {})
    node.places.program.unlink()
    node.conflist.touch()
    eventually(node.places.program.exists)


def test_agent_away_then_back_then_uninstalled(tmp_path: Path) -> None:
    with started(tmp_path / "n") as node:
        ours, friend = node.sandbox(), node.sandbox()
        node.write("pods.json", pod("t1/a"), pod("t1/friend"), deny_ingress("free"))
        assert node.add("t1/a", ours).code == 0
        eventually(lambda: "t1 strict" in node.places.namespaces.read_text())
        node.end(node.processes[0])

        refused = node.add("t1/friend", friend, seconds=1)
        assert (refused.code, refused.json["code"]) == (1, 11)
        assert "namespace t1 has a strict tenant" in refused.output
        passed = node.add("free/x", friend, seconds=1)
        assert (passed.code, passed.json) == (0, node.previous(friend))

        with ThreadPoolExecutor(1) as runtime:
            node.start()
            waiting = runtime.submit(node.add, "t1/later", friend)
            eventually(lambda: node.attachment("t1/later") is not None)
            kill(node.processes[-1])
            node.write("later.json", pod("t1/later"))
            node.start()
            assert waiting.result(patience(60)).code == 0, "the next agent answered"
        assert node.attachment("t1/a") is not None
        assert node.add("t1/friend", friend).code == 0
        assert node.check("t1/a", ours).code == 0
        assert reaches(friend.netns, ours.netns, ours.addresses[0], patience(60))

        refused_to_go = subprocess.run(node.command("uninstall"), capture_output=True, text=True)
        assert (refused_to_go.returncode, node.conflist.exists()) == (1, True)
        assert "end it first" in refused_to_go.stderr
        node.end(node.processes[-1])
        subprocess.run(node.command("uninstall"), check=True, timeout=patience(30))
        assert node.conflist.read_text() == CONFLIST
        assert [p.name for p in node.places.conf_dir.iterdir()] == [node.conflist.name]
        assert not node.pin_dir.exists()
        kept = {file.name for file in node.places.leaving.iterdir()}
        assert kept == {ours.netns, friend.netns}, "who was made with the plugin"
        installed = replace(node.runtime(seconds=1), program=node.places.program)
        for wire, left in ((ours, True), (ours, True), (friend, False)):
            netns_path = str(NETNS_ROOT / wire.netns)
            assert installed.call("CHECK", wire.netns, "t1/a", netns=netns_path).code == 0
            deleted = installed.call("DEL", wire.netns, "t1/a", netns=netns_path)
            assert (deleted.code, deleted.output) == (0, "")
            assert node.places.program.exists() is left
        assert not list(node.places.bin_dir.iterdir())
