"""Which requests an HTTP rule lets pass, and which regular expressions it may be made of."""

from __future__ import annotations

import pytest

from generators.http import (
    LARGEST_PROGRAM,
    LONGEST_PATTERN,
    BadPattern,
    HeaderRule,
    HttpRule,
    RuleSet,
    compiled,
    request_of,
)

LANDING = HttpRule("POST", "/v1/request-landing")


@pytest.mark.parametrize(
    ("rule", "method", "path", "headers", "missed"),
    [
        (LANDING, "POST", "/v1/request-landing", {}, ""),
        (LANDING, "PUT", "/v1/request-landing", {}, "method 'PUT' does not match POST"),
        (LANDING, "post", "/v1/request-landing", {}, "method 'post'"),
        (LANDING, "POST", "/v1/request-landing/2", {}, "path '/v1/request-landing/2'"),
        (LANDING, "POST", "/v1/request-landing?now=1", {}, "path '/v1/request-landing?now=1'"),
        (HttpRule(path="/public/.*"), "GET", "/public/a?b=c", {}, ""),
        (HttpRule(path="/public/.*"), "GET", "/public/../admin", {}, "path '/admin'"),
        (HttpRule(path="/public/.*"), "GET", "/public/%2e%2e/admin", {}, "path '/admin'"),
        (HttpRule(path="/public/.*"), "GET", "/public/..;/admin", {}, "path '/admin'"),
        (HttpRule(path="/public/.*"), "GET", "//public//x", {}, ""),
        (HttpRule(path="/public/.*"), "GET", "/public/%252e%252e/admin", {}, ""),
        (HttpRule(), "ANYTHING", "/", {}, ""),
        (HttpRule(host="a[.]example"), "GET", "/", {"Host": "a.example"}, ""),
        (HttpRule(host="a[.]example"), "GET", "/", {"Host": "a.example:8081"}, "host"),
        (HttpRule(host="a[.]example"), "GET", "/", {}, "host not given"),
        (HttpRule(headers=(HeaderRule("x-token", "1"),)), "GET", "/", {"X-Token": "1"}, ""),
        (HttpRule(headers=(HeaderRule("x-token", "1"),)), "GET", "/", {"X-Token": "2"}, "wanted"),
        (HttpRule(headers=(HeaderRule("x-token"),)), "GET", "/", {"X-Token": "2"}, ""),
        (HttpRule(headers=(HeaderRule("x-token"),)), "GET", "/", {}, "no header x-token"),
    ],
)
def test_a_rule_is_about_the_whole_of_what_it_names(
    rule: HttpRule, method: str, path: str, headers: dict[str, str], missed: str
) -> None:
    found = rule.misses(request_of(method, path, headers=headers.items()))
    assert bool(found) is bool(missed)
    assert missed in found


def test_a_header_that_is_sent_twice_matches_by_any_of_its_values() -> None:
    rule = HttpRule(headers=(HeaderRule("x-token", "secret"),))
    pairs = [("X-Token", "other"), ("x-token", "secret")]
    assert rule.misses(request_of("GET", "/", headers=pairs)) == ""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/a%2fb"),
        ("GET", "/a%5Cb"),
        ("GET", "/a%00"),
        ("GET", "/a#b"),
        ("OPTIONS", "*"),
        ("CONNECT", "/"),
    ],
)
def test_what_servers_may_read_differently_is_refused_whatever_rules_say(
    method: str, path: str
) -> None:
    every = RuleSet("Ingress", "n/cnp:p#ingress[0]", (("any", HttpRule()),))
    assert every.matching(request_of(method, path)) is None


@pytest.mark.parametrize(
    ("pattern", "why", "position"),
    [
        ("/a/[b", "missing ]", 4),
        ("/a(b", "missing )", 0),
        ("*x", "no argument for repetition operator", 1),
        ("/(?=x)", "invalid perl operator", 2),
        (r"(a)\1", "invalid escape sequence", 4),
        (r"/\x{100}", "invalid escape sequence", 2),
        ("/x{1001}", "invalid repetition size", 3),
        ("/x{1,600}", "a program of", 0),
        ("x" * (LONGEST_PATTERN + 1), "is longer than", LONGEST_PATTERN + 1),
    ],
)
def test_an_expression_that_the_proxy_would_refuse_says_where(
    pattern: str, why: str, position: int
) -> None:
    with pytest.raises(BadPattern) as refused:
        compiled(pattern)
    assert why in str(refused.value)
    assert not position or refused.value.position == position


def test_the_largest_program_is_taken_and_ends_in_time() -> None:
    # RE2 does not backtrack: what would take years elsewhere is answered.
    hostile = compiled("(a*)*b")
    assert hostile.fullmatch(b"a" * 50_000) is None
    assert compiled("[a-z]{1,400}").programsize <= LARGEST_PROGRAM


def test_the_id_of_a_rule_set_is_its_content() -> None:
    def named(rule: HttpRule, direction: str = "Ingress") -> RuleSet:
        return RuleSet(direction, "n/cnp:p#ingress[0]", (("n/cnp:p#ingress[0].x", rule),))

    assert named(LANDING).id == named(HttpRule("POST", "/v1/request-landing")).id
    ids = {named(LANDING).id, named(HttpRule("PUT")).id, named(LANDING, "Egress").id}
    assert len(ids) == 3
    assert named(LANDING).id == "d96772cb74b5c875"
