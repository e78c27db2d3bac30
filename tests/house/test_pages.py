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


def test_the_tests_page_says_when_each_slow_file_was_last_run(checkout: Path) -> None:
    section = (
        (checkout / "tests/README.md").read_text().partition("## Time")[2].partition("\n## ")[0]
    )
    files = {
        path.relative_to(checkout / "tests").as_posix()
        for path in (checkout / "tests").rglob("test_*.py")
        if "mark.slow" in path.read_text() and path.name != Path(__file__).name
    }
    assert len(files) > 3
    unnamed = {
        f for f in files if f"`{f}`" not in section and f"`{f.partition('/')[0]}/`" not in section
    }
    assert unnamed == set()
