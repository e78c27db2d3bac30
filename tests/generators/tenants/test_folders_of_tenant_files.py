"""A folder of tenant files is one file in parts: merged, watched, packed, its errors by file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.errors import InputError, InvalidConfig
from generators.tenants.last_good import LastGood
from generators.tenants.load import load_tenants, tenant_bytes
from generators.tenants.packed import packed, unpacked
from generators.tenants.watched import WatchedTenants

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAD = "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\n"
PLATFORM = f"""{HEAD}labelKey: client
admins: {{groups: [platform]}}
shared:
- {{name: i, namespaces: {{names: [i]}}}}
"""
BLUE = f"""{HEAD}admins: {{groups: [blue-leads], users: [ann]}}
tenants:
- name: blue
  namespaces: {{suffixes: [-blue]}}
  allowFrom: [{{tenant: red}}]
"""
RED = f"""{HEAD}tenants:
- name: red
  namespaces: {{suffixes: [-red]}}
  allowTo: [{{tenant: blue}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "tenants.d"
    where.mkdir()
    for name, text in (("00-platform", PLATFORM), ("blue", BLUE), ("red", RED)):
        (where / f"{name}.yaml").write_text(text)
    return where


def test_lists_go_on_in_the_next_file_and_consents_meet(folder: Path) -> None:
    config = load_tenants(folder)
    assert list(config.tenants) == ["blue", "red"]
    assert config.admins.groups == {"platform", "blue-leads"}
    assert config.admins.users == {"ann"}
    assert config.label_key == "client"
    assert [grant.tenant for grant in config.consented("blue")] == ["red"]


def test_every_reason_names_the_file_and_its_line(folder: Path, ringfence: Run) -> None:
    config = load_tenants(folder)
    assert config.place(config.tenants["blue"].line) == f"{folder}/blue.yaml:5"
    assert config.place(config.tenants["red"].line) == f"{folder}/red.yaml:4"
    assert config.place(config.shared[0].line) == f"{folder}/00-platform.yaml:6"
    done = ringfence("tenants", "assign", "web-red", "-c", folder)
    assert f"({folder}/red.yaml:5)" in done.stdout


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("zz", f"{HEAD}labelKey: x\n", "zz.yaml:3: labelKey: is said otherwise in {}/00-platform"),
        (
            "zz",
            f"{HEAD}tenants:\n- {{name: red}}\n",
            'zz.yaml:4: tenants[2].name: tenant "red" is already in {}/red.yaml:4',
        ),
        ("zz", f"{HEAD}tenants:\n- {{name: Red}}\n", 'zz.yaml:4: tenants[2].name: "Red" is not a'),
        ("zz", "tenants: []\n", "zz.yaml:1: apiVersion: is required but missing"),
        ("zz", "", "zz.yaml:1: the file is nothing, not a mapping"),
        ("zz", "a: [\n", "zz.yaml:1: broken YAML"),
        (
            "red",
            f"{HEAD}tenants:\n- {{name: red, namespaces: {{names: [r]}}}}\n",
            "blue.yaml:7: tenants[0].allowFrom[0]: tenant red",
        ),
    ],
)
def test_each_defect_is_told_with_its_file(folder: Path, name: str, text: str, said: str) -> None:
    (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        load_tenants(folder)
    assert f"{folder}/{said.format(folder)}" in str(refused.value)


def test_a_folder_without_files_and_a_line_of_ours_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it holds none"):
        load_tenants(tmp_path / "empty")
    (folder / "red.yaml").write_text("\n# ringfence: file x\n")
    with pytest.raises(InputError, match=r"red\.yaml:2: a comment that begins with"):
        load_tenants(folder)


def test_hidden_files_are_left_out(folder: Path) -> None:
    """A mounted ConfigMap keeps its older contents in hidden folders."""
    (folder / "..2026").mkdir()
    (folder / "..2026" / "red.yaml").write_text(RED)
    (folder / ".red.yaml.swp.yaml").write_text("x")
    (folder / "README.md").write_text("x")
    assert list(load_tenants(folder).tenants) == ["blue", "red"]


def test_a_link_that_leads_nowhere_is_no_file_less(folder: Path) -> None:
    (folder / "green.yaml").symlink_to(folder / "gone")
    with pytest.raises(InputError, match=r"/green\.yaml:1: the tenant file cannot be read"):
        load_tenants(folder)


def test_a_folder_is_followed_kept_and_packed_as_a_file_is(folder: Path, tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "state")
    watched = WatchedTenants(folder, kept)
    assert watched.check() is not None
    assert watched.check() is None
    green = "tenants: [{name: green, namespaces: {names: [g]}}]\n"
    (folder / "green.yaml").write_text(HEAD + green)
    changed = watched.check()
    assert changed is not None
    assert not changed.refused
    (folder / "green.yaml").write_text("tenants: [")
    refused = watched.check()
    assert refused is not None
    assert refused.refused
    assert f"{folder}/green.yaml:1" in refused.detail
    last = kept.read()
    assert last is not None
    assert "green" in last[0].tenants
    text, config = packed(last[1]), last[0]
    again = unpacked(text, config.digest, "guard")
    assert again is not None
    assert again.tenants == config.tenants


def test_bytes_of_a_file_stay_as_they_are(folder: Path) -> None:
    assert tenant_bytes(folder / "red.yaml") == RED.encode()
