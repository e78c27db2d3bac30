"""A verdict is never made with another's data, however fast everything changes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from enforcer.datapath import loader
from enforcer.datapath.proof import proof, proven, slot
from tests.bpf import churn

WIDEN = 8
"""Times 64 reads of the clock between finding an endpoint and copying it: some 20 microseconds."""
SHORT = 8.0
LONG = float(os.environ.get("RINGFENCE_CHURN_SECONDS", "120"))

LOOKUP = re.compile(r"\b(\w+)\.(lookup|lookup_or_try_init)\(")
ARRAYS = {
    *("scratch_map", "lost_map", "tenure_map", "idle_map", "tunnel_map"),
    *("share_map", "quota_map", "nobody_map", "proxy_map"),
}
UNCHANGING = ARRAYS | {"cidr_map", "rng_map"}
"""Arrays, whose elements are theirs for ever, and tries, whose nodes never change."""
COUNTED = {"stats_map"}
"""Counters, by which nothing is decided."""


def headers() -> Iterator[tuple[str, str]]:
    for path in sorted(loader.source_dir().rglob("*.[ch]")):
        yield path.name, path.read_text()


def functions(text: str) -> Iterator[str]:
    """The bodies at the left margin, with their heads."""
    yield from re.findall(r"^static __always_inline .*?^}", text, re.MULTILINE | re.DOTALL)


def careless(name: str, text: str) -> list[str]:
    """Lookups whose result is used without being copied and proven."""
    found = [m[1] for m in LOOKUP.finditer(text) if m[1] not in UNCHANGING | COUNTED]
    if name != "lookup.h":
        return found
    wrong = []
    for body in functions(text):
        looked = [m[1] for m in LOOKUP.finditer(body) if m[1] not in UNCHANGING | COUNTED]
        used = re.search(r"\bfound->", body)
        if looked and (used or "lookup_copy(" not in body or "lookup_proven(" not in body):
            wrong += looked
    return wrong


def test_no_lookup_is_used_unless_it_was_copied_and_proven() -> None:
    assert [(name, maps) for name, text in headers() if (maps := careless(name, text))] == []
    looked_up = {m[1] for _, text in headers() for m in LOOKUP.finditer(text)}
    proven_here = {"ep_map", "addr_map", "pol_map", "svc_map", "ct_map", "frag_map"}
    proven_here |= {"listen_map", "resident_map"}
    assert looked_up == proven_here | UNCHANGING | COUNTED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.h", "\tfound = addr_map.lookup(remote);"),
        (
            "lookup.h",
            "static __always_inline int f(void)\n{\n\tfound = pol_map.lookup(key);\n"
            "\tlookup_copy(copy, found);\n\treturn copy->rule;\n}",
        ),
        (
            "lookup.h",
            "static __always_inline int f(void)\n{\n\tfound = pol_map.lookup(key);\n"
            "\tlookup_copy(copy, found);\n\tlookup_proven(s, 1, 2);\n\treturn found->rule;\n}",
        ),
    ],
    ids=["outside lookup.h", "not proven", "used beside the copy"],
)
def test_a_careless_lookup_is_found(name: str, text: str) -> None:
    assert careless(name, text)


def test_a_proof_tells_keys_and_halves_apart() -> None:
    key, other = b"\1\0\0\0", b"\2\0\0\0"
    value, later = bytes(range(24)), bytes(range(100, 124))
    assert proven(key, value)[-8:] != proven(other, value)[-8:]
    for cut in (8,):
        torn = value[:cut] + later[cut:16]
        assert proof(key, torn) not in (proof(key, value[:16]), proof(key, later[:16]))


def test_addresses_spread_over_the_slots_of_tenures() -> None:
    packed = [bytes(10) + b"\xff\xff" + bytes((10, 0, i // 256, i % 256)) for i in range(4096)]
    assert len({slot(address) for address in packed}) > 3900


@pytest.fixture(scope="module")
def slow_pins() -> Iterator[Path]:
    """Programs that wait between finding a value and copying it."""
    directory = loader.BPF_FS / f"ringfence-test-{token_hex(3)}"
    loader.ensure_bpffs(directory)
    try:
        yield churn.widened(directory, WIDEN)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def stress(pins: Path, seconds: float) -> churn.Seen:
    with churn.interfaces() as namespace:
        seen = churn.run(pins, namespace, seconds)
    print(f"sent {seen.sent}, changes {seen.changes}, lost {seen.lost}")
    return seen


@pytest.mark.bpf
def test_nothing_enters_another_tenant_while_everything_changes(slow_pins: Path) -> None:
    seen = stress(slow_pins, SHORT)
    assert seen.arrived == []
    assert seen.sent
    assert all(seen.changes[kind] for kind in churn.KINDS)
    assert len(seen.connections) > churn.ROOM["MAX_CONNECTIONS"], "no element was used again"


@pytest.mark.bpf
@pytest.mark.slow
@pytest.mark.timeout(LONG + 120)
def test_nothing_enters_or_is_lost_in_minutes_of_changes(slow_pins: Path) -> None:
    seen = stress(slow_pins, LONG)
    assert seen.arrived == []
    assert seen.lost == {}
