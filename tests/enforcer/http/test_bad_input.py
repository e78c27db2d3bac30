"""What a client may send to get past HTTP rules: judged or refused, never passed unjudged."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from lab import netns
from tests.enforcer.http.proxied import DEATHSTAR, HTTP, TIE, Proxied, ingress, needs_envoy, started
from tests.testbed.waiting import patience

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(120), needs_envoy]

STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
FORWARDED = re.compile(rb'"method": "([^"]*)", "path": "([^"]*)"')
DENIED = 403
RULES: tuple[dict[str, object], ...] = (
    {"method": "GET", "path": "/public/.*"},
    {"method": "HEAD|GET", "path": "/exact"},
    {"method": "POST", "path": "/v1/request-landing"},
    {"method": "GET", "path": "/h", "host": r"a\.example"},
    {"method": "GET", "path": "/t", "headers": ["X-Token: secret"]},
    {"method": "GET", "path": "/any", "headers": ["X-Any"]},
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with started(tmp_path_factory.mktemp("node"), (DEATHSTAR, TIE)) as made:
        made.enforce(made.start(), ingress("rules", *RULES))
        yield made


def request(line: str, *headers: str, host: str | None = "a.example", body: str = "") -> bytes:
    lines = [f"{line} HTTP/1.1", *([f"Host: {host}"] if host is not None else []), *headers]
    return ("\r\n".join([*lines, "", ""]) + body).encode("latin-1")


def last(line: str, *headers: str, host: str | None = "a.example", body: str = "") -> bytes:
    return request(line, "Connection: close", *headers, host=host, body=body)


def answer(node: Proxied, sent: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    with netns.inside(node.wires[TIE].netns):
        client = socket.create_connection((node.address(DEATHSTAR, 4), HTTP), patience(20))
    found = b""
    with client:
        client.sendall(sent)
        try:
            while data := client.recv(1 << 16):
                found += data
        except ConnectionResetError:
            pass
    return found


POST = "POST /v1/request-landing"
CASES: dict[str, tuple[bytes, tuple[int, ...], tuple[str, ...]]] = {
    "allowed": (last("GET /public/x"), (200,), ("GET /public/x",)),
    "another path": (last("GET /admin"), (DENIED,), ()),
    "another method": (last("DELETE /public/x"), (DENIED,), ()),
    "an expression is for the whole path": (last("GET /exactly"), (DENIED,), ()),
    "the query is part of the path": (last("GET /exact?x=1"), (DENIED,), ()),
    "methods by alternation": (last("HEAD /exact"), (200,), ()),
    "dots": (last("GET /public/../admin"), (DENIED,), ()),
    "escaped dots": (last("GET /public/%2e%2e/admin"), (DENIED,), ()),
    "dots before a parameter": (last("GET /public/..;/admin"), (DENIED,), ()),
    "dots and a backslash": (last("GET /public/..\\admin"), (DENIED,), ()),
    "doubled slashes": (last("GET //public//x"), (200,), ("GET /public/x",)),
    "escaped slash": (last("GET /public%2fx"), (400,), ()),
    "dots and an escaped slash": (last("GET /public/..%2fadmin"), (400,), ()),
    "dots and an escaped backslash": (last("GET /public/..%5cadmin"), (400,), ()),
    "a zero byte": (last("GET /public/%00"), (400,), ()),
    "a fragment": (last("GET /public/x#y"), (400,), ()),
    "an escape of an escape": (
        last("GET /public/%252e%252e/admin"),
        (200,),
        ("GET /public/%252e%252e/admin",),
    ),
    "a whole URL": (last("GET http://a.example/public/x"), (200,), ("GET /public/x",)),
    "a whole URL of another path": (last("GET http://a.example/admin"), (DENIED,), ()),
    "a host": (last("GET /h"), (200,), ("GET /h",)),
    "a host with its port": (last("GET /h", host="a.example:80"), (DENIED,), ()),
    "a dot is a dot": (last("GET /h", host="aXexample"), (DENIED,), ()),
    "the host of a URL": (last("GET http://b.example/h"), (DENIED,), ()),
    "two hosts": (last("GET /h", "Host: b.example"), (DENIED,), ()),
    "no host": (last("GET /public/x", host=None), (400,), ()),
    "a header": (last("GET /t", "X-Token: secret"), (200,), ("GET /t",)),
    "a header with another value": (last("GET /t", "X-Token: Secret"), (DENIED,), ()),
    "a header that is not there": (last("GET /t"), (DENIED,), ()),
    "a header twice": (last("GET /t", "X-Token: other", "X-Token: secret"), (200,), ("GET /t",)),
    "a header without a value": (last("GET /any", "x-any:"), (200,), ("GET /any",)),
    "length and chunks": (
        request(
            POST, "Content-Length: 4", "Transfer-Encoding: chunked", body="0\r\n\r\nGET /admin"
        ),
        (400,),
        (),
    ),
    "two lengths": (
        request(POST, "Content-Length: 4", "Content-Length: 5", body="aaaaa"),
        (400,),
        (),
    ),
    "an unknown encoding": (request(POST, "Transfer-Encoding: xchunked"), (501,), ()),
    "a space before a colon": (request(POST, "Transfer-Encoding : chunked"), (400,), ()),
    "a method in small letters": (last("get /public/x"), (400,), ()),
    "bare line feeds": (
        b"GET /public/x HTTP/1.1\nHost: a\nConnection: close\n\n",
        (200,),
        ("GET /public/x",),
    ),
    "a folded header": (last("GET /public/x", "X-A: b\r\n c"), (200,), ("GET /public/x",)),
    "one after the other": (
        request("GET /public/x") + last("GET /admin"),
        (200, DENIED),
        ("GET /public/x",),
    ),
    "a request in the place of a body": (
        request(POST, "Content-Length: 0") + last("GET /admin"),
        (200, DENIED),
        (POST,),
    ),
    "CONNECT": (b"CONNECT a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n", (DENIED,), ()),
    "OPTIONS *": (last("OPTIONS *"), (404,), ()),
    "TRACE": (last("TRACE /public/x"), (DENIED,), ()),
    "a websocket that no rule names": (
        last("GET /ws", "Upgrade: websocket", "Connection: Upgrade"),
        (DENIED,),
        (),
    ),
    "an upgrade to HTTP/2": (
        request(
            "GET /public/x",
            "Connection: Upgrade, HTTP2-Settings, close",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        (200,),
        ("GET /public/x",),
    ),
    "headers of 70 KB": (last("GET /public/x", "X-Big: " + "a" * 70_000), (431,), ()),
    "101 headers": (last("GET /public/x", *[f"X-{i}: a" for i in range(101)]), (431,), ()),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400,), ()),
    "headers that name another server": (
        last("GET /admin", "x-envoy-original-dst-host: 10.7.0.3:80", "X-Original-URL: /public/x"),
        (DENIED,),
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_judged_or_refused(node: Proxied, name: str) -> None:
    sent, statuses, forwarded = CASES[name]
    found = answer(node, sent)
    assert tuple(int(status) for status in STATUS.findall(found)) == statuses, found[:400]
    arrived = tuple(b" ".join(pair).decode() for pair in FORWARDED.findall(found))
    assert arrived == forwarded


def test_what_is_denied_says_so(node: Proxied) -> None:
    for sent in (last("GET /admin"), last("GET /ws", "Upgrade: websocket"), CASES["CONNECT"][0]):
        assert answer(node, sent).endswith(b"\r\n\r\nAccess denied\r\n")


def test_nothing_is_added_but_the_protocol(node: Proxied) -> None:
    found = answer(node, last("GET /public/x", "X-CaSe: kept", "X-Forwarded-For: 1.2.3.4"))
    sent = re.search(rb'"headers": (\[\[.*?\]\])', found)
    assert sent is not None
    names = re.findall(rb'\["([^"]*)"', sent[1])
    assert sorted(names) == [b"Host", b"X-CaSe", b"X-Forwarded-For", b"x-forwarded-proto"]


def test_a_slow_request_is_ended(node: Proxied) -> None:
    found = answer(node, b"GET /public/x HTTP/1.1\r\nHost: a")
    assert STATUS.findall(found) == [b"408"]
