"""An agent that restarts while the tenant file is broken goes on with the last good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.sources.tenants import AgentTenants
from generators.tenants.last_good import NAME, LastGood

GOOD = b"tenants: [{name: red, namespaces: {suffixes: [-red]}}]\n"
HEAD = b"apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\nlabelKey: client\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "tenants.yaml"
    found.write_bytes(HEAD + GOOD)
    return found


def started(path: Path) -> AgentTenants:
    """The file as an agent has it that has just started."""
    file = AgentTenants(path, LastGood(path.parent))
    file.read()
    return file


@pytest.mark.parametrize("broken", [b"labelKey: [", None], ids=["broken", "missing"])
def test_a_restart_falls_back_to_what_was_good(path: Path, broken: bytes | None) -> None:
    assert started(path).error == ""
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken)
    again = started(path)
    assert again.settled
    assert again.config is not None
    assert list(again.config.tenants) == ["red"]
    assert str(path) in again.error
    assert not again.source().connected
    path.write_bytes(HEAD + GOOD.replace(b"red", b"blue"))
    assert again.read()
    assert list(again.config.tenants) == ["blue"]
    assert again.error == ""


@pytest.mark.parametrize("kept", [None, b"labelKey: ["], ids=["nothing", "nothing good"])
def test_without_a_good_one_nothing_is_ready(path: Path, kept: bytes | None) -> None:
    path.write_bytes(b"labelKey: [")
    if kept is not None:
        path.with_name(NAME).write_bytes(kept)
    assert not started(path).settled
