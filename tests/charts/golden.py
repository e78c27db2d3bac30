"""Golden renders: what a chart renders, kept as files that a reviewer reads.

`UPDATE_GOLDEN=1 pytest tests/charts` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

UPDATE = "UPDATE_GOLDEN"


def compact(rendered: str) -> str:
    """Without empty lines: the two helms differ in them."""
    return "".join(f"{line.rstrip()}\n" for line in rendered.splitlines() if line.strip())


def matches(rendered: str, path: Path) -> None:
    """Fail unless the file holds what was rendered."""
    if os.environ.get(UPDATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(compact(rendered))
    assert path.exists(), f"{path} does not exist; {UPDATE}=1 writes it"
    assert compact(rendered) == path.read_text(), f"meant to change? {UPDATE}=1 writes {path}"
