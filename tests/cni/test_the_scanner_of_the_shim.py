"""The shim's JSON scanner under sanitizers: it finds what JSON says, and ends on any bytes."""

from __future__ import annotations

import json
import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.cni import build

FLAGS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MUTATIONS = 4000
SEEDS = (
    b'{"cniVersion":"1.0.0","a":[1,2,{"b":"]}"}],"prevResult":{"ips":[{"address":"10.0.0.1/32"}]}}',
    b'{ "a" : "x\\"y" , "prevResult" : null }',
    b'{"prevResult":{"a":{"a":{"a":[[[[]]]]}}},"a":-1.5e+3}',
    b'{"a":1,"a":2}',
    b"{" + b'"a":[' * 70 + b"]" * 70 + b"}",
    b"",
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("scan") / "harness"
    source = Path(__file__).with_name("scan_harness.c")
    command = ["gcc", "-std=gnu11", *FLAGS, f"-I{build.FOLDER}", "-o", str(target), str(source)]
    try:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no gcc; make setup installs it")
    assert built.returncode == 0, built.stderr
    return target


Found = tuple[bytes | None, bytes | None]


def scan(harness: Path, texts: Sequence[bytes]) -> list[Found]:
    """The values of "a" and "prevResult" of each text, as bytes."""
    data = b"".join(struct.pack("=I", len(text)) + text for text in texts)
    finished = subprocess.run([harness], input=data, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode(errors="replace")
    lines = finished.stdout.decode().splitlines()
    assert len(lines) == 2 * len(texts)
    values = [_value(text, lines[2 * i + j]) for i, text in enumerate(texts) for j in (0, 1)]
    return list(zip(values[::2], values[1::2], strict=True))


def _value(text: bytes, line: str) -> bytes | None:
    if line == "none":
        return None
    begin, length, _ = map(int, line.split())
    return text[begin : begin + length]


@given(document=st.dictionaries(st.text() | st.just("a"), JSON, max_size=5), indent=st.booleans())
def test_members_are_found_as_they_were_written(
    harness: Path, document: dict[str, object], indent: bool
) -> None:
    text = json.dumps(document, indent=2 if indent else None).encode()
    ((found, _),) = scan(harness, [text])
    assert found == (json.dumps(document["a"]).encode() if "a" in document else None) or (
        found is not None and json.loads(found) == document["a"]
    )


def test_the_last_of_two_members_counts_as_everywhere(harness: Path) -> None:
    assert scan(harness, [b'{"a":1,"b":0,"a":2}']) == [(b"2", None)]


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'{"a":1',
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{a:1}",
        b'{"a":"x',
        b'{"a":"x\\',
        SEEDS[4],
    ],
)
def test_text_that_is_no_json_object_has_no_members(harness: Path, text: bytes) -> None:
    assert scan(harness, [text]) == [(None, None)]


def test_no_bytes_lead_it_astray(harness: Path) -> None:
    """Under the sanitizers one step too far ends the process."""
    chance = random.Random(5)  # noqa: S311  # the same texts on every run
    texts = []
    for number in range(MUTATIONS):
        text = bytearray(SEEDS[number % len(SEEDS)])
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text) + 1)
            text[at : at + chance.randrange(3)] = chance.choice(
                [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\0", b"\xff", b""]
            )
        kept = chance.randrange(len(text) + 1) if number % 3 == 0 else len(text)
        texts.append(bytes(text[:kept]))
    for changed, (found, _) in zip(texts, scan(harness, texts), strict=True):
        try:
            held = json.loads(changed)
        except (ValueError, RecursionError):
            continue
        if isinstance(held, dict) and found is not None:
            assert json.loads(found) == held["a"]
