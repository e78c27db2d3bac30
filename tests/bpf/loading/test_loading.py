"""Loading: once per source, complete or not at all, and old pins outlive a failure."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import attach, kernel, loader
from enforcer.datapath.maps import Maps
from enforcer.policy.tables import CAPACITY, Table
from generators.errors import MachineLacks
from tests.bpf.veth import ISOLATED, PEER, POD, Veth, ip, tcp

pytestmark = pytest.mark.bpf

MAIN = "return handle(skb, DIR_INGRESS);"


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    try:
        yield directory
    finally:
        attach.uninstall(directory)


@pytest.fixture
def loaded(pin_dir: Path, pins: Path) -> Path:
    """The programs of the whole session, pinned once more: what a loader would have left here."""
    again = pin_dir / pins.name
    again.mkdir(parents=True)
    for pin in pins.iterdir():
        with kernel.open_pin(pin) as thing:
            kernel.pin(thing.fd, again / pin.name)
    return again


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the C that a test may spoil; the loader of this process uses it."""
    copy = tmp_path / "bpf"
    shutil.copytree(loader.source_dir(), copy)
    monkeypatch.setattr(loader, "source_dir", lambda: copy)
    monkeypatch.setattr(loader, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(loader, "SHIPPED", tmp_path / "programs.json")
    return copy


def rewrite(sources: Path, old: str, new: str) -> None:
    unit = sources / "ringfence.c"
    assert old in unit.read_text()
    unit.write_text(unit.read_text().replace(old, new))


def load_here(pin_dir: Path) -> Path:
    """Load in this process, which sees the spoiled source."""
    loader.ensure_bpffs(pin_dir)
    pin_dir.mkdir(exist_ok=True)
    return loader.load(pin_dir)


def program_id(pins: Path) -> int:
    with kernel.open_pin(pins / "to_pod") as program:
        return kernel.program_info(program.fd).id


def test_pins_that_fit_are_used_again(pin_dir: Path, loaded: Path, pins: Path) -> None:
    assert loader.ensure_loaded(pin_dir) == loaded
    assert program_id(loaded) == program_id(pins)


def test_another_source_is_loaded_beside_the_old_one(
    pin_dir: Path, loaded: Path, sources: Path
) -> None:
    rewrite(sources, MAIN, f"/* another source */ {MAIN}")
    new = load_here(pin_dir)
    assert loaded != new
    assert program_id(loaded) != program_id(new)
    attach.retire(new)
    assert [p.name for p in pin_dir.iterdir()] == [new.name]


@pytest.mark.parametrize(
    ("spoiled", "complaint"),
    [
        pytest.param("this is not C", "error:", id="syntax"),
        pytest.param("int unused; " + MAIN, "unused variable", id="a warning of clang"),
        pytest.param("while (skb->len) {} " + MAIN, "loop", id="a refusal of the verifier"),
    ],
)
def test_failure_leaves_the_pins_in_force(
    pin_dir: Path,
    loaded: Path,
    sources: Path,
    spoiled: str,
    complaint: str,
) -> None:
    rewrite(sources, MAIN, spoiled)
    with pytest.raises(loader.LoadError, match=complaint):
        load_here(pin_dir)
    assert [p.name for p in pin_dir.iterdir()] == [loaded.name]
    assert program_id(loaded)


def test_half_loaded_directory_is_never_used(pin_dir: Path, loaded: Path) -> None:
    """Nor are the leftovers of a loader that was killed; both make way for a complete one."""
    (loaded / "pol_map").unlink()
    (pin_dir / "loading-1").mkdir()
    assert loader.find_loaded(pin_dir) is None
    assert loader.ensure_loaded(pin_dir) == loaded
    assert (loaded / "pol_map").exists()
    assert [p.name for p in pin_dir.iterdir()] == [loaded.name]


def test_pins_of_another_source_under_this_name_are_not_believed(
    pin_dir: Path, loaded: Path
) -> None:
    with kernel.open_pin(loaded / "meta_map") as meta:
        digest = kernel.map_lookup(meta.fd, bytes(4), 32)
        assert digest is not None
        kernel.map_update(meta.fd, bytes(4), bytes(32))
        try:
            assert loader.find_loaded(pin_dir) is None
        finally:
            kernel.map_update(meta.fd, bytes(4), digest)


def test_connections_are_carried_into_the_next_version(
    pin_dir: Path, loaded: Path, veth: Veth
) -> None:
    """To be judged again there: the numbers of the old tables mean nothing in the new ones."""
    veth.configure(ISOLATED)
    assert veth.from_pod(ip(4, POD, PEER) / tcp()).passed
    loaded.rename(pin_dir / "v1-older")
    new = loader.ensure_loaded(pin_dir)
    with Maps.open(new) as maps:
        (carried,) = [c for c in maps.connections() if c.endpoint == veth.endpoint]
    assert (carried.remote, carried.remote_port, carried.generation) == (PEER[4], 80, 0)


def test_a_process_that_loads_never_imports_bcc(pin_dir: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from enforcer.datapath import loader, maps, flows, attach;"
        f"loader.ensure_loaded(Path({str(pin_dir)!r})); assert 'bcc' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pin_directory_off_the_bpf_filesystem_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="/sys/fs/bpf"):
        loader.ensure_loaded(tmp_path)


def test_maps_have_the_sizes_that_were_asked_for_in_a_directory_of_their_own(
    pin_dir: Path,
) -> None:
    usual = loader.ensure_loaded(pin_dir)
    sizes = {**CAPACITY, Table.CIDRS: 64, Table.POLICY: 1024}
    sized = loader.ensure_loaded(pin_dir, sizes)
    assert sized != usual
    with Maps.open(sized) as maps:
        assert maps.capacity() == sizes
