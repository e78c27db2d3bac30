"""Hypothesis: whatever the file holds, the answer is a config or InvalidConfig, no traceback."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generators.errors import InvalidConfig
from generators.tenants.assignment import assign_by_name
from generators.tenants.load import parse_tenants

GOOD = b"""\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
mode: strict
admins: {groups: [platform-team]}
shared:
  - name: monitoring
    namespaces: {names: [monitoring]}
    ports: [{port: 9090, endPort: 9099, protocol: TCP}]
tenants:
  - name: test01
    namespaces: {names: [legacy-shop], prefixes: ["test01-"], suffixes: ["-test01"]}
    members: {users: [u], groups: [team-test01], serviceAccounts: [ci/deployer]}
    labels: {cost-centre: "4711"}
    allowFrom: [{tenant: test02, ports: [{port: 5432, protocol: TCP}]}]
    allowMasked: false
  - name: test02
    namespaces: {suffixes: ["-test02"]}
    allowTo: [{tenant: test01}]
defaults: {unassigned: ignore}
"""
WORDS = sorted({*GOOD.split(), *b"& * ! | > ? - : , [ ] { } ' \" # % @ ` ~ --- ... no 1e3".split()})


def answer(data: bytes) -> None:
    """Read the bytes; every defect must be one printable line that points into the file."""
    try:
        config = parse_tenants(data, "t.yaml")
    except InvalidConfig as error:
        defects = error.problems
    else:
        assert assign_by_name(config, "some-name").reason
        return
    breaks = (b"\n", b"\r", *(mark.encode() for mark in ("\u0085", "\u2028", "\u2029")))
    lines = sum(map(data.count, breaks)) + 1
    assert defects
    for problem in defects:
        assert 1 <= problem.line <= lines
        assert problem.what
        assert problem.fix
        assert str(problem).isascii()
        assert str(problem).isprintable()


@given(st.binary())
def test_random_bytes(data: bytes) -> None:
    answer(data)


@given(st.text())
def test_random_text_in_every_field(text: str) -> None:
    answer(text.encode())
    answer(GOOD.replace(b"platform-team", text.encode()))
    answer(GOOD.replace(b"test01", text.encode()))


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=6))))
def test_good_file_with_bytes_exchanged(changes: list[tuple[int, int, bytes]]) -> None:
    data = GOOD
    for start, length, new in changes:
        data = data[:start] + new + data[start + length :]
    answer(data)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(WORDS)), max_size=6))
def test_good_file_with_words_exchanged(changes: list[tuple[int, bytes]]) -> None:
    words = GOOD.split(b" ")
    for at, new in changes:
        words[at % len(words)] = new
    answer(b" ".join(words))


@given(st.permutations(GOOD.splitlines()), st.integers(0, 21))
def test_good_file_with_lines_shuffled(lines: list[bytes], keep: int) -> None:
    answer(b"\n".join(lines[:keep]))
    head = GOOD.splitlines()[:keep]
    answer(b"\n".join([*head, *lines]))
