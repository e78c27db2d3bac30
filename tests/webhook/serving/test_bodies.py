"""How much a review may hold, and that the webhook survives it under the chart's memory limit."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.testbed.waiting import eventually, patience
from tests.webhook.processes import Webhook, ask, prepare, running
from tests.webhook.reviews import body, ns, request
from webhook import bounds
from webhook.review import MAX_BODY

APP = request("CREATE", ns("app-test01"))
MEBIBYTE = 1 << 20
CHUNK = {"[]": b"[],", "{}": b"{},", "numbers": b"1.5,", "words": b'"ab",', "pairs": b'{"a":1},'}


def filled(piece: bytes, size: int) -> bytes:
    """A review with `options` of about that many bytes of the piece."""
    head, tail = body(APP)[:-2], b"0]}}"
    return head + b',"options":[' + piece * ((size - len(head)) // len(piece)) + tail


json_values = st.recursive(
    st.none() | st.integers(0, 99) | st.text(',[]{}"\\ a'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('",[\\{'), inner),
    max_leaves=12,
)


def held(value: object) -> int:
    """Lists, objects and commas."""
    if isinstance(value, dict):
        return 1 + max(len(value) - 1, 0) + sum(map(held, value.values()))
    if isinstance(value, list):
        return 1 + max(len(value) - 1, 0) + sum(map(held, value))
    return 0


@given(json_values)
def test_what_is_within_strings_is_no_element(value: object) -> None:
    assert bounds.elements(orjson.dumps(value), most=held(value)) == held(value)


@pytest.mark.parametrize("piece", CHUNK.values(), ids=CHUNK)
def test_too_many_elements_are_seen_before_they_are_decoded(piece: bytes) -> None:
    assert bounds.elements(filled(piece, MAX_BODY - 1000)) > bounds.MOST_ELEMENTS


def test_a_text_of_marks_alone_is_none() -> None:
    text = json.dumps([",[{" * 500_000]).encode()
    assert bounds.elements(text) == 1


@pytest.fixture(scope="module")
def limit() -> int:
    """Bytes that the chart gives a webhook."""
    values = yaml.safe_load(Path("charts/ringfence/values.yaml").read_text())
    given = values["webhook"]["resources"]["limits"]["memory"]
    assert given.endswith("Mi")
    return int(given[:-2]) * MEBIBYTE


@pytest.fixture
def group(limit: int) -> Iterator[Path]:
    """A control group with that limit; of either version."""
    old = Path("/sys/fs/cgroup/memory")
    folder = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"ringfence-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(
            f"{limit}"
        )
        yield folder
    finally:
        eventually(lambda: (folder / "cgroup.procs").read_text() == "", "its processes are gone")
        folder.rmdir()


def send(webhook: Webhook, sent: bytes) -> int:
    with closing(webhook.connect()) as connection:
        try:
            connection.request("POST", "/validate", sent, {"Content-Type": "application/json"})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0


@pytest.mark.bpf  # root, for the control group
def test_large_reviews_fit_the_memory_limit_of_the_chart(group: Path, tmp_path: Path) -> None:
    """Too large, dense and just large ones, many at once, beside reviews that are answered."""
    dense = filled(b'{"a":1},', bounds.MOST_ELEMENTS // 2 * 8 - 4096)
    texts = [{f"key{n:06}": f"value{n:06}" for n in range(125_000)}] * 2
    large = orjson.dumps({**orjson.loads(body(APP)), "more": texts})
    assert 6 * MEBIBYTE < len(large) < MAX_BODY
    with running(prepare(tmp_path)) as webhook:
        for pid in [webhook.process.pid, *webhook.workers()]:
            (group / "cgroup.procs").write_text(f"{pid}")
        worker = webhook.workers()
        bodies = [filled(b"[],", MAX_BODY - 1000)] * 6 + [dense] * 6 + [large] * 4
        with ThreadPoolExecutor(16) as pool, closing(webhook.connect()) as connection:
            answers = [pool.submit(send, webhook, each) for each in bodies]
            while not all(each.done() for each in answers):
                assert ask(connection, "/mutate", APP)["allowed"] is True
        refused = {413, 408, 503, 0}  # too large, too slow, too many at once; or just closed
        assert {each.result(patience(60)) for each in answers} <= {200, *refused}
        assert send(webhook, large) == 200
        assert send(webhook, dense) == 200
        assert webhook.workers() == worker
