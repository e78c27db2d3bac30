"""What the compiler made is kept, and means the same to the kernel when it is loaded again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import pytest

from enforcer.datapath import attach, compilation, kernel, loader
from enforcer.datapath.bytecode import (
    FILES_KEPT,
    Bytecode,
    Program,
    Reference,
    hash_of,
    keep,
    kept,
)
from enforcer.datapath.compilation import CompileRequest
from enforcer.datapath.kernel import MapShape, ProgramInfo
from tests.testbed.waiting import patience

SOURCE = "a source"
SMALL = Bytecode(
    hash_of(SOURCE),
    {"a_map": MapShape(1, 4, 8, 16, 0), "b_map": MapShape(9, 16, 8, 1024, 1)},
    {"to_pod": Program(bytes(range(32)), (Reference(0, "a_map"), Reference(16, "b_map")))},
)


def seen(pins: Path) -> dict[str, MapShape | ProgramInfo]:
    """All that the kernel knows of what was loaded, but for its numbers."""
    found: dict[str, MapShape | ProgramInfo] = {}
    for name in (*loader.PROGRAMS, *loader.MAPS):
        with kernel.open_pin(pins / name) as thing:
            program = name in loader.PROGRAMS
            ask = kernel.program_info if program else kernel.map_shape
            told = ask(thing.fd)
        found[name] = replace(told, id=0) if isinstance(told, ProgramInfo) else told
    return found


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Path]]:
    """Loads in another place each time, with a cache of its own and nothing shipped."""
    monkeypatch.setattr(loader, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(loader, "SHIPPED", tmp_path / "shipped" / "programs.json")
    made: list[Path] = []

    def one() -> Path:
        directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
        made.append(directory)
        loader.ensure_bpffs(directory)
        directory.mkdir()
        return loader.load(directory)

    yield one
    for directory in made:
        attach.uninstall(directory)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[CompileRequest]:
    """What the compiler is asked for while a test runs."""
    asked: list[CompileRequest] = []
    real = compilation.compiled

    def counted(wanted: CompileRequest) -> Bytecode:
        asked.append(wanted)
        return real(wanted)

    monkeypatch.setattr(compilation, "compiled", counted)
    return asked


@pytest.mark.bpf
def test_of_loads_at_once_one_compiles_and_the_others_take_what_it_made(
    load: Callable[[], Path], compilations: list[CompileRequest]
) -> None:
    with ThreadPoolExecutor() as at_once:
        loads = at_once.map(lambda _: seen(load()), range(2), timeout=patience(120))
        first, other = loads
        assert other == first
    assert seen(load()) == first
    assert len(compilations) == 1
    # What the kernel refuses is compiled again, and kept anew.
    (file,) = loader.CACHE.iterdir()
    good = Bytecode.from_json(file.read_bytes())
    spoiled = {name: replace(p, code=bytes(len(p.code))) for name, p in good.programs.items()}
    file.write_bytes(replace(good, programs=spoiled).to_json())
    assert seen(load()) == first
    assert len(compilations) == 2
    assert Bytecode.from_json(file.read_bytes()) == good


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """What an image gets, made by nobody in particular who may not use bpf()."""
    with TemporaryDirectory() as name:
        yield build_as_nobody(Path(name))


def build_as_nobody(folder: Path) -> Path:
    folder.chmod(0o777)
    target = folder / "programs.json"
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    command = [*become, "--no-new-privs", sys.executable, "-m", "enforcer.datapath.build"]
    environment = {**os.environ, "HOME": "/", "TMPDIR": str(folder)}
    done = subprocess.run(
        [*command, str(target)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.bpf
def test_it_is_made_where_no_program_of_a_temporary_folder_may_run(tmp_path: Path) -> None:
    mounted = f'mount -t tmpfs -o noexec tmpfs {tmp_path} && TMPDIR={tmp_path} exec "$@"'
    build = [sys.executable, "-m", "enforcer.datapath.build", str(tmp_path / "programs.json")]
    subprocess.run(["unshare", "--mount", "sh", "-c", mounted, "sh", *build], check=True)


@pytest.mark.bpf
def test_what_is_shipped_is_made_without_rights_and_loads_where_there_is_no_compiler(
    load: Callable[[], Path],
    built: Path,
    compilations: list[CompileRequest],
    monkeypatch: pytest.MonkeyPatch,
    pins: Path,
) -> None:
    ship(built)
    monkeypatch.setitem(sys.modules, "bcc", None)
    loader.check_machine()
    assert seen(load()) == seen(pins)
    assert compilations == []
    assert not loader.CACHE.exists()


@pytest.mark.bpf
@pytest.mark.parametrize("spoiled", ["other sources", "a damaged file"])
def test_what_is_shipped_for_other_sources_is_compiled_with_a_message(
    load: Callable[[], Path],
    built: Path,
    spoiled: str,
    compilations: list[CompileRequest],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ship(built)
    good = Bytecode.from_json(loader.SHIPPED.read_bytes())
    other = replace(good, source="another").to_json()
    loader.SHIPPED.write_bytes(other if spoiled == "other sources" else other[:100])
    with caplog.at_level("INFO"):
        load()
    assert len(compilations) == 1
    told = "bytecode_of_other_sources" if spoiled == "other sources" else "bytecode_unreadable"
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith(told) and str(loader.SHIPPED) in line for line in said)
    assert any("bcc compiles" in line and str(loader.source_dir()) in line for line in said)


@pytest.mark.bpf
def test_what_is_shipped_and_refused_by_the_verifier_says_why(
    load: Callable[[], Path], built: Path
) -> None:
    ship(built)
    good = Bytecode.from_json(loader.SHIPPED.read_bytes())
    endless = bytes((0x05, 0, 0xFF, 0xFF, 0, 0, 0, 0))  # a jump to itself
    spoiled = {name: Program(endless, ()) for name in good.programs}
    loader.SHIPPED.write_bytes(replace(good, programs=spoiled).to_json())
    with pytest.raises(loader.LoadError, match=r"(?s)prog load .*(infinite loop|back-edge)"):
        load()


def ship(built: Path) -> None:
    """As an image has it: of root, and nobody else may write."""
    loader.SHIPPED.parent.mkdir(mode=0o755)
    loader.SHIPPED.write_bytes(built.read_bytes())


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "one.json"
    assert kept(path, SOURCE) is None
    keep(SMALL, path)
    assert kept(path, SOURCE) == SMALL
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"maps": {}}', b'{"maps": {"a": [1]}, "programs": {}}', b"\xff"]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(text)
    assert kept(path, SOURCE) is None


def test_what_was_made_of_another_source_is_not_loaded(tmp_path: Path) -> None:
    keep(SMALL, tmp_path / "one.json")
    assert kept(tmp_path / "one.json", f"{SOURCE}, changed") is None


@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_others_may_write_is_not_loaded(tmp_path: Path, place: str) -> None:
    path = tmp_path / "cache" / "one.json"
    keep(SMALL, path)
    (path if place == "file" else path.parent).chmod(0o770)
    assert kept(path, SOURCE) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    keep(SMALL, tmp_path / "elsewhere" / "one.json")
    (tmp_path / "one.json").symlink_to(tmp_path / "elsewhere" / "one.json")
    assert kept(tmp_path / "one.json", SOURCE) is None


def test_where_nothing_can_be_kept_nothing_is_said_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    keep(SMALL, tmp_path / "cache" / "one.json")
    assert (tmp_path / "cache").is_file()


def test_those_used_last_are_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.json" for number in range(FILES_KEPT)]
    for age, path in enumerate(paths):
        keep(SMALL, path)
        os.utime(path, (age, age))
    assert kept(paths[0], SOURCE) == SMALL
    keep(SMALL, tmp_path / "new.json")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"new.json", *(path.name for path in paths)} - {"01.json"}
