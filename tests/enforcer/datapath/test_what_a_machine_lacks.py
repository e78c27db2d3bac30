"""What is missing to load programs is said with its cure: exit code 3, never a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from enforcer.datapath import attach, compilation, kernel, loader
from enforcer.datapath.compilation import CompileRequest
from generators.errors import MachineLacks

NOBODY = 65534

LOAD = """
import sys
from pathlib import Path
from enforcer.datapath import loader
from generators.errors import MachineLacks
try:
    loader.ensure_loaded(Path("/sys/fs/bpf/ringfence-test-never"))
except MachineLacks as lack:
    sys.exit(f"{lack.exit_code}: {lack}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_is_told_to_be() -> None:
    code = f"import os; os.setgroups([]); os.setuid({NOBODY})\n{LOAD}"
    code = "import enforcer.datapath.loader\n" + code  # what nobody may not read is read before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("3: ")
    assert "root" in done.stderr
    assert not Path("/sys/fs/bpf/ringfence-test-never").exists()


def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "SHIPPED", tmp_path / "programs.json")


@pytest.mark.usefixtures("nothing_shipped")
def test_missing_bcc_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch)
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(MachineLacks, match="python3-bpfcc"):
        loader.check_machine()


def test_bcc_of_another_project_is_recognised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bcc", ModuleType("bcc"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(CompileRequest("", (), ()))))
    assert compilation.main() == 3
    assert "unrelated package" in capsys.readouterr().err


def test_missing_gcc_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "check_compiler", lambda: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineLacks, match="no gcc; apt-get install gcc libc6-dev"):
        compilation.compiled(CompileRequest("", (), ()))


@pytest.mark.usefixtures("nothing_shipped")
def test_missing_headers_are_named_with_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch)
    monkeypatch.setitem(sys.modules, "bcc", ModuleType("bcc"))
    sys.modules["bcc"].__spec__ = loader.__spec__
    monkeypatch.setattr("platform.release", lambda: "0.0.0-none")
    if Path("/sys/kernel/kheaders.tar.xz").exists():
        pytest.skip("this kernel brings its own headers")
    with pytest.raises(MachineLacks, match=r"linux-headers-amd64.*/lib/modules/0\.0\.0-none"):
        loader.check_machine()


def test_uninstall_by_nobody_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(MachineLacks, match="root"):
        attach.uninstall(tmp_path)


def test_kernel_error_names_operation_and_object() -> None:
    error = kernel.KernelError("obj get /sys/fs/bpf/x", 2)
    assert str(error) == "obj get /sys/fs/bpf/x: No such file or directory (errno 2)"


MOUNT = """
import subprocess
from pathlib import Path
from enforcer.datapath import loader
while loader._is_bpffs():
    subprocess.run(["umount", "/sys/fs/bpf"], check=True)
loader.ensure_bpffs(Path("/sys/fs/bpf/ringfence"))
print(loader._is_bpffs())
"""


@pytest.mark.bpf
def test_bpf_filesystem_is_mounted_where_it_is_missing() -> None:
    """In a mount namespace of its own, so that nobody else's pins go."""
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
