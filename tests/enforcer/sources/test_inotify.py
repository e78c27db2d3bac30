"""A change in a folder is told, on a machine that has watches left and on one that has none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from enforcer.sources.inotify import FolderWatch
from tests.testbed.waiting import patience

SOON = 10.0
CHANGES = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from enforcer.sources.inotify import FolderWatch

    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    told = threading.Event()
    watch = FolderWatch([folder])
    watch.start(told.set)

    def seen(what):
        print(what, told.wait(seconds), flush=True)
        told.clear()

    (folder / "below" / "a.json").write_text("1")
    seen("written")
    (folder / "below" / "new").write_text("2")
    (folder / "below" / "new").replace(folder / "below" / "a.json")
    seen("replaced")
    (folder / "deeper").mkdir()
    seen("folder made")
    (folder / "deeper" / "b.json").write_text("1")
    seen("written in it")
    (folder / "below" / "a.json").unlink()
    seen("removed")
    watch.stop()
    """
)


@pytest.mark.parametrize("limit", ["", "max_inotify_instances", "max_inotify_watches"])
def test_every_change_is_told_whatever_the_kernel_has_left(limit: str, tmp_path: Path) -> None:
    """The limits are those of a user namespace of its own."""
    (tmp_path / "below").mkdir()
    program = [sys.executable, "-c", CHANGES, str(tmp_path), str(patience(SOON))]
    if limit:
        own = ["unshare", "--user", "--map-root-user"]
        refused = subprocess.run([*own, "true"], capture_output=True, text=True, check=False).stderr
        if refused:
            pytest.skip(f"no user namespace of its own: {refused}")
        use_up = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
        program = [*own, "sh", "-c", use_up, "sh", *program]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "written True",
        "replaced True",
        "folder made True",
        "written in it True",
        "removed True",
    ]


def test_a_folder_that_is_made_later_is_found(tmp_path: Path) -> None:
    told = threading.Event()
    watch = FolderWatch(flat=[tmp_path / "later"])
    watch.start(told.set)
    try:
        (tmp_path / "later").mkdir()
        assert told.wait(patience(SOON))
        told.clear()
        (tmp_path / "later" / "a").write_text("1")
        assert told.wait(patience(SOON))
    finally:
        watch.stop()
