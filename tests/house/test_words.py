"""Nothing in the repository names where it was made: registries, private folders, helpers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

# Each word is written in two halves, so that this file does not contain it.
REGISTRIES = (
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("deb.debian", ".org"),
    ("registry.npmjs", ".org"),
    ("proxy.golang", ".org"),
    ("crates", ".io"),
    ("repo1.maven", ".org"),
)
PRIVATE_PLACES = (("/wo", "rk/"), ("/tmp/br", "ief"), ("../sha", "red/"), (".md", " §"))
HELPERS = (("clau", "de"), ("anthro", "pic"), ("chat", "gpt"), ("open", "ai"), ("co", "pilot"))
WORDS = re.compile(
    "|".join(re.escape(left + right) for left, right in REGISTRIES + PRIVATE_PLACES + HELPERS),
    re.IGNORECASE,
)


def offences(text: str) -> list[str]:
    return [
        f"{number}: {found[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        if (found := WORDS.search(line))
    ]


def files(checkout: Path) -> list[Path]:
    """What git holds or would hold: tracked files and new ones that are not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return [
        path for name in listing.stdout.split("\0") if name and (path := checkout / name).is_file()
    ]


@pytest.mark.parametrize(
    "line",
    ["--index-url https://" + "".join(REGISTRIES[0]), "cd " + "".join(PRIVATE_PLACES[0]) + "main"],
)
def test_words_that_do_not_belong_are_found(line: str) -> None:
    (found,) = offences(f"first line\n{line}\nlast line\n")
    assert found.startswith("2: ")


def test_no_file_has_words_that_do_not_belong(checkout: Path) -> None:
    found = {
        str(path.relative_to(checkout)): hits
        for path in files(checkout)
        if (hits := offences(path.read_text(errors="replace")))
    }
    assert found == {}
