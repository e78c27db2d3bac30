"""One archive with all that the agent reports, for a bug report.

`ringfence sysdump` writes it. It holds no Secret, no environment, no kubeconfig and no annotations
of objects; the names inside are always the same, so that two dumps can be compared; failed answers
are in it as their errors.
"""

from __future__ import annotations

import io
import json
import platform
import tarfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from enforcer.answers import control
from generators.documents.json import shown

QUESTIONS: Mapping[str, Mapping[str, object]] = {
    "status.json": {"command": "status"},
    "endpoints.json": {"command": "endpoints"},
    "identities.json": {"command": "identities"},
    "policies.json": {"command": "policies"},
    "selectors.json": {"command": "selectors"},
    "audit.json": {"command": "audit"},
    **{
        f"bpf-{table}.json": {"command": "bpf", "table": table}
        for table in ("policy", "ct", "ipcache", "endpoint", "metrics", "diff")
    },
}
FLOWS = 4096
FOLDER = "ringfence-sysdump"
SECRET_KEYS = frozenset({"annotations"})
"""Left out wherever they stand: people put anything into annotations."""


def collect(run_dir: Path, wanted: Path | None) -> Path:
    """Ask everything and write the archive; its path."""
    status = control.ask(run_dir, QUESTIONS["status.json"])
    path = wanted or Path(f"ringfence-sysdump-{shown(status, 'node') or 'node'}.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for name, data in _files(run_dir):
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(data)
            info.mode = 0o600
            archive.addfile(info, io.BytesIO(data))
    path.chmod(0o600)
    return path


def _files(run_dir: Path) -> Iterator[tuple[str, bytes]]:
    machine = {
        "ringfence": version("ringfence"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    yield "machine.json", _json(machine)
    for name, question in sorted(QUESTIONS.items()):
        yield name, _json(without_secrets(control.gather(run_dir, question)))
    flows = control.stream(run_dir, {"command": "flows", "last": FLOWS})
    yield "flows.json", b"".join(json.dumps(flow).encode() + b"\n" for flow in flows)


def without_secrets(value: object) -> object:
    """The value without keys that could hold anything."""
    if isinstance(value, dict):
        return {k: without_secrets(v) for k, v in value.items() if k not in SECRET_KEYS}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
