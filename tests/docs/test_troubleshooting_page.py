"""docs/troubleshooting.md: every drop reason, the texts that we print, a proof for each promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enforcer.datapath.flows import DropReason
from enforcer.observe.lines import words

TESTS = Path(__file__).resolve().parents[1]
CHECKOUT = TESTS.parent
PAGE = (CHECKOUT / "docs/troubleshooting.md").read_text()
SOURCES = "\n".join(
    path.read_text()
    for folder in ("generators", "webhook", "enforcer", "lab", "charts")
    for path in sorted((CHECKOUT / folder).rglob("*"))
    if path.suffix in (".py", ".c", ".yaml", ".tpl")
)
WORDS_OF_OTHERS = (
    *("timed out", "i/o timeout", "context deadline exceeded", "Connection refused"),
    *("ContainerCreating", "FailedCreatePodSandBox", "failed calling webhook"),
    *("denied the request", "connection refused", "no endpoints available"),
    *("certificate signed by unknown authority", "certificate has expired"),
    *("has no deployed releases", "another operation (install/upgrade/rollback) is in progress"),
    "timed out waiting for the condition",
)
"""What Kubernetes, Helm and clients print: the words that somebody searches for."""
OURS = (
    "ringfence: no agent answers on this node",
    "the agent's answer is not understood",
    "is the ringfence agent running?",
    "no record of tenants",
    "still runs agents",
    "requester is a member of tenant",
    "only admins of",
    "has retired that key",
    "is generated from",
    "try again in a few seconds",
    "TenantLabelSetBack",
    "UnknownTenant",
    "PolicyRepaired",
    "PolicyRecreated",
    "PolicyTakenOver",
    "TenantAmbiguous",
    "TenantRemoved",
)


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_table_of_drop_reasons_is_complete_and_right() -> None:
    """tests/bpf/loading/test_layout.py compares the same enumeration with the programs'."""
    row = re.compile(r"^\| ([^|`]+) \| `(\w+)` \| (\d+) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)
    found = {name: (said, int(number)) for said, name, number in row.findall(PAGE)}
    assert found == {reason.name: (words(reason.name), int(reason)) for reason in DropReason}


@pytest.mark.parametrize("text", WORDS_OF_OTHERS)
def test_what_people_see_is_on_the_page(text: str) -> None:
    assert f"`{text}`" in PAGE or f"\n## {text}\n" in PAGE


@pytest.mark.parametrize("text", OURS)
def test_what_the_page_quotes_of_us_is_what_we_print(text: str) -> None:
    assert text in PAGE
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # literals that go on in the next line
    assert text in joined


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(test_\w+)`", section("What happens when a part is down"))))
)
def test_every_proof_is_a_test(name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in TESTS.rglob("test_*.py"))


def test_every_heading_that_the_first_table_leads_to_is_there() -> None:
    """Anchors as GitHub makes them."""
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors
