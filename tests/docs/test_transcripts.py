"""What README and docs show is what a run prints today."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


transcripts = _load(CHECKOUT / "tools" / "transcripts.py")


PICTURE = "picture.svg"
"""`make docs` makes it; test_site.py looks for it where it belongs."""
REHEARSALS = {
    *("adopting.md", "back-out.md", "backup.md", "clients.md"),
    *("lab.md", "operations.md", "real-nodes.md", "troubleshooting.md"),
}
"""Pages that play something through on an API server with nodes, most of a minute or more each."""


def _needs(page: Path) -> list[pytest.MarkDecorator]:
    """Pages with a lab on an API server wait until last, as all tests with one."""
    if page.name in REHEARSALS:
        return [pytest.mark.cluster, pytest.mark.slow]
    return [pytest.mark.cluster if "--api-server" in page.read_text() else pytest.mark.bpf]


@pytest.mark.bpf
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=_needs(page), id=page.name) for page in PAGES]
)
def test_every_transcript_is_what_its_commands_print(page: Path) -> None:
    assert transcripts.check(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", page.read_text(), re.MULTILINE))
    assert {word for pair in named for word in pair if word} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists() and link != PICTURE] == []


def test_a_wrong_transcript_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one\ntwo\n$ echo three\nthree\n```\n")
    assert transcripts.check(page)[0] == "page.md:2: $ echo one"


def test_rewriting_makes_a_page_true_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n```console\n$ echo one\n$ printf 'a\\nb\\n'\nold\n```\nafter\n")
    transcripts.rewrite(page)
    assert page.read_text() == (
        "before\n```console\n$ echo one\none\n$ printf 'a\\nb\\n'\na\nb\n```\nafter\n"
    )
    assert transcripts.check(page) == []


def test_what_differs_from_run_to_run_is_masked() -> None:
    first = ("2026-01-01T00:00:00.1Z 10.0.0.1:43210 -> 10.0.0.2:80 pid 12",)
    second = ("2027-02-02T11:11:11.9Z 10.0.0.1:50000 -> 10.0.0.2:80 pid 99",)
    assert transcripts.masked(first) == transcripts.masked(second)
