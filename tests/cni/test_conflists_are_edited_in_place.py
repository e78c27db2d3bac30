"""Our entry comes last into the configurations of many CNIs, and out of them as if never there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.cni import build, conflist, install
from enforcer.cni.conflist import BadConflist, PluginEntry
from tests.cni import shapes

ENTRY = PluginEntry("/run/ringfence/cni.sock", "/etc/cni/net.d/ringfence-namespaces", 10)
OTHER_AGENT = PluginEntry("/run/other/cni.sock", "/etc/cni/net.d/ringfence-namespaces", 10)

LISTS = {name: s.text for name, s in shapes.SHAPES.items() if s.file.endswith(".conflist")}
LISTS |= {
    "one line": '{"cniVersion":"1.0.0","name":"b","plugins":[{"type":"bridge","ipam":{"dns":{}}}]}',
    "plugins first, other fields after": '{"plugins" : [ {"type":"x"} ],\r\n "x": [1, {"y": "]"}]}',
    "a second member of the same name inside": """{"name": "n", "args": {"plugins": []},
 "plugins": [{"plugins": [{"type": "z"}], "type": "multus"}]}""",
    "braces in names": '{"name": "}\\"]{", "plugins": [{"type": "a}]\\\\", "b": "]"}]}',
}
SINGLE = shapes.SHAPES["single"].text


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
def test_our_entry_is_last_and_everything_else_as_it_was(text: str) -> None:
    added = conflist.add(text, ENTRY, "x")
    before, after = json.loads(text), json.loads(added)
    assert after["plugins"][-1] == ENTRY.fields
    assert after == {**before, "plugins": [*before["plugins"], ENTRY.fields]}
    assert list(after) == list(before)


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
def test_added_twice_is_added_once_and_removed_leaves_every_byte(text: str) -> None:
    added = conflist.add(text, ENTRY, "x")
    assert conflist.add(added, ENTRY, "x") == added
    assert conflist.remove(added, ENTRY.socket, "x") == text
    assert conflist.remove(text, ENTRY.socket, "x") == text


def test_the_entry_is_indented_like_its_neighbours() -> None:
    added = conflist.add(LISTS["k3s flannel"], ENTRY, "x")
    assert '    },\n    {\n      "type": "ringfence-cni",\n      "socket"' in added


def test_an_entry_that_is_not_last_any_more_or_says_something_else_is_put_right() -> None:
    text = LISTS["calico"]
    longer = PluginEntry(ENTRY.socket, ENTRY.namespaces, 30)
    assert conflist.add(conflist.add(text, longer, "x"), ENTRY, "x") == conflist.add(
        text, ENTRY, "x"
    )
    held = json.loads(conflist.add(text, ENTRY, "x"))
    held["plugins"].insert(0, held["plugins"].pop())
    repaired = json.loads(conflist.add(json.dumps(held), ENTRY, "x"))
    assert repaired == json.loads(conflist.add(text, ENTRY, "x"))


def test_a_single_configuration_becomes_a_list_of_two() -> None:
    held = json.loads(conflist.add(SINGLE, ENTRY, "x"))
    assert held == {
        "cniVersion": "0.3.1",
        "name": "cilium",
        "plugins": [json.loads(SINGLE), ENTRY.fields],
    }


def test_a_single_configuration_without_a_version_gets_none() -> None:
    single = json.loads(shapes.SHAPES["single, no version"].text)
    held = json.loads(conflist.add(shapes.SHAPES["single, no version"].text, ENTRY, "x"))
    assert held == {"name": single["name"], "plugins": [single, ENTRY.fields]}


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ('"cniVersion": "2.0.0"', "cniVersion 2.0.0 is not one of those that ringfence-cni speaks"),
        ('"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.2.0"]', "install a newer ringfence"),
    ],
)
def test_a_version_that_the_plugin_does_not_speak_keeps_it_out(
    places: install.PluginPlaces, versions: str, told: str
) -> None:
    path = places.conf_dir / "10-new.conflist"
    path.write_text(text := "{" + versions + ', "name": "n", "plugins": [{"type": "x"}]}')
    install.install_program(places)
    with pytest.raises(BadConflist, match=told):
        install.join(places, places.entry())
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (None, "cannot be run here"),
        ("exit 3", "fails a trial VERSION"),
        ("echo hello", "is it the program of this agent?"),
        (
            '[ "$CNI_COMMAND" = VERSION ] && echo \'{"supportedVersions": ["1.0.0"]}\'',
            "fails a trial CHECK",
        ),
    ],
    ids=["missing", "broken", "another program", "cannot be part of a chain"],
)
def test_a_plugin_that_cannot_be_run_here_is_not_joined(
    places: install.PluginPlaces, program: str | None, told: str
) -> None:
    path = places.conf_dir / "10-x.conflist"
    path.write_text(text := LISTS["one line"])
    places.bin_dir.mkdir()
    if program is not None:
        places.program.write_text(f"#!/bin/sh\n{program}\n")
        places.program.chmod(0o755)
    with pytest.raises(BadConflist, match=told):
        install.join(places, places.entry())
    assert path.read_text() == text


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("name", ["10-calico.conflist", "05-cilium.conf"])
def test_a_link_stays_a_link(places: install.PluginPlaces, tmp_path: Path, name: str) -> None:
    written = tmp_path / "elsewhere" / "written-by-another"
    written.parent.mkdir()
    text = LISTS["calico"] if name.endswith("list") else SINGLE
    written.write_text(text)
    link = places.conf_dir / name
    link.symlink_to(written)
    install.install_program(places)
    changed = install.join(places, places.entry())
    assert changed is not None
    assert conflist.PLUGIN_TYPE in changed.read_text()
    assert changed.is_symlink() is name.endswith("list")
    install.leave(places)
    assert link.readlink() == written
    assert written.read_text() == text
    assert [p.name for p in written.parent.iterdir()] == [written.name]


def test_a_link_that_leads_nowhere_from_here_is_told(places: install.PluginPlaces) -> None:
    (places.conf_dir / "10-calico.conflist").symlink_to("/nowhere/10-calico.conflist")
    with pytest.raises(install.Unwritable, match=r"No such file.*/10-calico.conflist"):
        install.join(places, places.entry())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON"),
        ('{"plugins": [', "not JSON"),
        ("[]", "neither a list"),
        ('{"plugins": 3}', "neither a list"),
        ('{"name": "n", "plugins": []}', "no plugin for ringfence-cni to follow"),
        (conflist.add(LISTS["aws"], OTHER_AGENT, "x"), "another ringfence agent"),
    ],
)
def test_what_we_cannot_join_says_why(text: str, told: str) -> None:
    with pytest.raises(BadConflist, match=f"here.conflist: .*{told}"):
        conflist.add(text, ENTRY, "here.conflist")


@given(
    st.lists(
        st.dictionaries(st.text(), st.text() | st.lists(st.integers(), max_size=2), max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([None, 0, 1, 2, "\t"]),
    st.dictionaries(st.text().filter(lambda k: k != "plugins"), st.text(), max_size=2),
)
def test_any_list_is_restored_byte_by_byte(
    plugins: list[dict[str, object]], indent: int | str | None, more: dict[str, str]
) -> None:
    text = json.dumps({**more, "plugins": plugins, "last": 1}, indent=indent)
    added = conflist.add(text, ENTRY, "x")
    assert json.loads(added)["plugins"] == [*plugins, ENTRY.fields]
    assert conflist.remove(added, ENTRY.socket, "x") == text


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ([], None),
        (["calico-kubeconfig", "ringfence-namespaces", "10-x.conf.before-ringfence"], None),
        (["20-b.conflist", "10-a.conflist", "00-readme.txt"], "10-a.conflist"),
        (["10-a.conflist", "05-b.conf"], "05-b.conf"),
        (["10-a.conflist", "10-a.conf"], "10-a.conf"),
    ],
)
def test_runtimes_use_the_first_configuration_by_name(names: list[str], chosen: str | None) -> None:
    assert conflist.choose(names) == chosen


@pytest.fixture
def places(tmp_path: Path) -> install.PluginPlaces:
    found = install.PluginPlaces(tmp_path / "net.d", tmp_path / "bin", tmp_path / "run")
    found.conf_dir.mkdir()
    return found


@pytest.mark.usefixtures("plugin")
def test_installed_and_left_leaves_the_node_as_it_was(places: install.PluginPlaces) -> None:
    path = places.conf_dir / "10-calico.conflist"
    path.write_text(LISTS["calico"])
    path.chmod(0o600)
    install.install_program(places)
    assert install.join(places, places.entry()) == path
    assert install.join(places, places.entry()) is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert places.program.stat().st_mode & 0o777 == 0o755
    assert places.program.read_bytes() == build.find().read_bytes()
    places.namespaces.touch()
    install.leave(places)
    assert path.read_text() == LISTS["calico"]
    assert [p.name for p in places.conf_dir.iterdir()] == [path.name]
    assert not list(places.bin_dir.iterdir())


@pytest.mark.usefixtures("plugin")
def test_a_single_configuration_is_set_aside_and_comes_back(places: install.PluginPlaces) -> None:
    install.install_program(places)
    path = places.conf_dir / "05-cilium.conf"
    path.write_text(SINGLE)
    install.join(places, places.entry())
    assert {p.name for p in places.conf_dir.iterdir()} == {
        "05-cilium.conflist",
        "05-cilium.conf.before-ringfence",
    }
    install.leave(places)
    assert {p.name: p.read_text() for p in places.conf_dir.iterdir()} == {"05-cilium.conf": SINGLE}


@pytest.mark.usefixtures("plugin")
def test_a_single_configuration_written_again_is_joined_again(places: install.PluginPlaces) -> None:
    install.install_program(places)
    path = places.conf_dir / "05-cilium.conf"
    newer = SINGLE.replace("false", "true")
    for text in (SINGLE, newer):
        path.write_text(text)
        install.join(places, places.entry())
    held = json.loads((places.conf_dir / "05-cilium.conflist").read_text())
    assert held["plugins"] == [json.loads(newer), places.entry().fields]
    install.leave(places)
    assert path.read_text() == newer


@pytest.mark.usefixtures("plugin")
def test_a_list_that_grew_since_is_kept(places: install.PluginPlaces) -> None:
    install.install_program(places)
    (places.conf_dir / "05-cilium.conf").write_text(SINGLE)
    install.join(places, places.entry())
    path = places.conf_dir / "05-cilium.conflist"
    held = json.loads(path.read_text())
    held["plugins"].insert(1, {"type": "portmap"})
    path.write_text(json.dumps(held))
    install.leave(places)
    assert [p.name for p in places.conf_dir.iterdir()] == [path.name]
    assert [p["type"] for p in json.loads(path.read_text())["plugins"]] == ["cilium-cni", "portmap"]


@pytest.mark.usefixtures("plugin")
def test_the_program_stays_while_another_agent_needs_it(places: install.PluginPlaces) -> None:
    install.install_program(places)
    (places.conf_dir / "10-a.conflist").write_text(
        conflist.add(LISTS["aws"], OTHER_AGENT, "10-a.conflist")
    )
    install.leave(places)
    assert places.program.exists()


@pytest.mark.usefixtures("plugin")
def test_a_program_of_another_version_is_replaced(places: install.PluginPlaces) -> None:
    places.bin_dir.mkdir()
    places.program.write_bytes(b"older")
    install.install_program(places)
    assert places.program.read_bytes() == build.find().read_bytes()
    before = places.program.stat().st_ino
    install.install_program(places)
    assert places.program.stat().st_ino == before
