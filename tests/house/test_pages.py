"""Pages about the code name files that exist."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest


def test_every_file_that_the_tests_page_names_exists(checkout: Path) -> None:
    page = (checkout / "tests/README.md").read_text()
    named = set(re.findall(r"`([a-z_/-]+/(?:[a-z_0-9-]+\.(?:py|yaml))?)`", page))
    assert len(named) > 20
    missing = {n for n in named if not any((checkout / f / n).exists() for f in ("tests", "."))}
    assert missing == set()


NAMED = re.compile(r"`((?:[A-Za-z_0-9.*-]+/)*[A-Za-z_0-9-]+(?:/|\.(?:py|c|h|md|yaml)))`")
IN_PROSE = re.compile(r"(?<![\w/.-])((?:[a-z_0-9-]+/)*[a-z_0-9]+\.(?:py|h))\b")


def missing(checkout: Path, page: str) -> set[str]:
    """From the root or the page; in a row of a table also from the folder of its first cell."""
    found = set()
    for line in (checkout / page).read_text().splitlines():
        first = line.split("|")[1] if line.startswith("|") else ""
        folders = [
            checkout,
            (checkout / page).parent,
            *(checkout / name for name in NAMED.findall(first)),
        ]
        found |= {n for n in NAMED.findall(line) if not any((f / n).exists() for f in folders)}
    return found


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "bpf/README.md"])
def test_every_path_in_the_guides_exists(checkout: Path, page: str) -> None:
    assert missing(checkout, page) == set()


@pytest.mark.parametrize("package", ["generators", "webhook", "enforcer", "lab", "bench"])
def test_every_file_that_the_head_of_a_module_names_exists(checkout: Path, package: str) -> None:
    """From the module's folder, from its package, or from the root."""
    wrong = {}
    for path in sorted((checkout / package).rglob("*.py")):
        head = ast.get_docstring(ast.parse(path.read_text())) or ""
        folders = (path.parent, checkout / package, checkout)
        lost = {n for n in IN_PROSE.findall(head) if not any((f / n).exists() for f in folders)}
        if lost:
            wrong[str(path.relative_to(checkout))] = lost
    assert wrong == {}


def test_every_room_has_its_line_in_the_drawing(checkout: Path) -> None:
    page = (checkout / "docs/architecture.md").read_text()
    rooms = {
        f"{folder.relative_to(checkout)}/"
        for package in ("generators", "webhook", "enforcer", "lab")
        for folder in (checkout / package).iterdir()
        if (folder / "__init__.py").exists()
    }
    assert len(rooms) > 20
    assert {room for room in rooms if f"`{room}`" not in page} == set()


def test_no_folder_of_code_has_more_than_25_files(checkout: Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "*.py", "*.c", "*.h", "*.sh"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    counts = Counter(str(Path(name).parent) for name in listing.stdout.split())
    assert len(counts) > 50
    assert {folder: n for folder, n in counts.items() if n > 25} == {}


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


def test_every_page_has_its_place_in_the_site(checkout: Path) -> None:
    """`make docs` refuses a page that mkdocs.yml does not name."""
    navigation = (checkout / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = re.findall(r"(?<![\w/-])([\w-]+\.md)\b", navigation)
    assert Counter(named) == Counter(path.name for path in (checkout / "docs").glob("*.md"))
