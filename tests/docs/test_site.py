"""`make docs`: the site is whole, has a picture that was made now, and no link leads nowhere."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Page(HTMLParser):
    """Its links, what it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {name for key in ("id", "name") if (name := given.get(key))}
        link = given.get("href") or given.get("src")
        if link and tag == "a":
            self.links.add(link)
        elif link and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.add(link)


@pytest.fixture(scope="module")
def site() -> Path:
    done = subprocess.run(
        ["make", "-s", "docs"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return CHECKOUT / "dist" / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in site.rglob("*.html") if path.stem != "404"}


def test_every_page_of_docs_is_there_and_reference_beside(
    site: Path, pages: dict[Path, Page]
) -> None:
    names = {path.relative_to(site).as_posix() for path in pages}
    written = {f"{path.stem}.html" for path in (CHECKOUT / "docs").glob("*.md")}
    made = {"commands", "tenant-file-schema", "changelog", "security"}
    assert names == written | {f"reference/{name}.html" for name in made}


def test_no_link_leads_nowhere(pages: dict[Path, Page]) -> None:
    lost = set()
    for path, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file()
            known = target not in pages or not parts.fragment
            if not there or not (known or unquote(parts.fragment) in pages[target].anchors):
                lost.add(f"{path.name}: {link}")
    assert lost == set()


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    found = {link for page in pages.values() for link in page.loads if urlsplit(link).netloc}
    assert found == set()


def test_the_picture_shows_what_the_command_prints(site: Path) -> None:
    picture = (site / "picture.svg").read_text().replace("&#160;", " ")
    for line in ("$ ringfence matrix", "tenant/test01", "TENANT_WALL by tenant/test01#wall"):
        assert line in picture
    assert "url(http" not in picture
    assert 'url("http' not in picture


def test_every_command_and_every_field_is_in_the_reference(site: Path) -> None:
    commands = Page((site / "reference/commands.html").read_text()).anchors
    assert {"ringfence-matrix", "ringfence-tenants-list", "ringfence-lab-up"} <= commands
    schema = (site / "reference/tenant-file-schema.html").read_text()
    assert "tenants[].allowFrom[].ports[].endPort" in schema
