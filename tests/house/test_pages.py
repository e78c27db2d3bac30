"""Pages about the code name files that exist."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_file_that_the_tests_page_names_exists(checkout: Path) -> None:
    page = (checkout / "tests/README.md").read_text()
    named = set(re.findall(r"`([a-z_/-]+/(?:[a-z_0-9-]+\.(?:py|yaml))?)`", page))
    assert len(named) > 20
    missing = {n for n in named if not any((checkout / f / n).exists() for f in ("tests", "."))}
    assert missing == set()
