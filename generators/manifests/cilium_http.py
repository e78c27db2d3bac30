"""`rules.http` of Cilium's policies -> HTTP rules.

Cilium's agent refuses wrong expressions in path and method, and leaves one in host to its proxy;
here all of them are refused, and headers that could never be there.
"""

from __future__ import annotations

from generators.http import BadPattern, HeaderRule, HttpRule, compiled, is_token
from generators.manifests.fields import Cursor

MOST_RULES = 500
"""HTTP rules of one entry of toPorts."""
_LONGEST_VALUE = 4_096
_MISMATCHES = ("LOG", "ADD", "DELETE", "REPLACE")


def parse_http(rules: Cursor, place: str) -> tuple[HttpRule, ...]:
    """The items of a list of HTTP rules; `place`: its path in the policy's rule."""
    items = rules.items()
    if len(items) > MOST_RULES:
        rules.fail(f"{len(items)} rules are too many, the most is {MOST_RULES}", "join some paths")
        return ()
    return tuple(_rule(item, f"{place}[{index}]") for index, item in enumerate(items))


def _rule(item: Cursor, name: str) -> HttpRule:
    item.only("method", "path", "host", "headers", "headerMatches")
    headers = [_header(at) for at in item.children("headers")]
    headers += [_match(at) for at in item.children("headerMatches")]
    return HttpRule(
        method=_pattern(item, "method"),
        path=_pattern(item, "path"),
        host=_pattern(item, "host"),
        headers=tuple(dict.fromkeys(header for header in headers if header is not None)),
        name=name,
    )


def _pattern(item: Cursor, key: str) -> str:
    at = item.child(key)
    text = at.text() if at is not None else ""
    try:
        compiled(text)
    except BadPattern as error:
        where = f" at character {error.position}" if error.position else ""
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        what = f'Invalid value: "{shown}": is no regular expression that the proxy takes{where}: '
        (at or item).fail(f"{what}{error}", "correct or shorten it; it is read by RE2, as a whole")
        return ""
    return text


def _header(at: Cursor) -> HeaderRule | None:
    """`Name: value` as it is, `Name` alone with any value."""
    name, blank, value = at.text().partition(" ")
    name = name.removesuffix(":") if blank else name
    return _checked(at, name, value if blank else None)


def _match(at: Cursor) -> HeaderRule | None:
    at.only("name", "value", "secret", "mismatch")
    action = at.child("mismatch")
    if action is not None and action.text() in _MISMATCHES:
        what = f"mismatch {action.text()} is not supported: with it a match refuses no request"
        action.fail(what, "remove mismatch to refuse them, or the match to let them pass")
    elif action is not None:
        action.fail(f'Unsupported value: "{action.text()}"', "remove mismatch")
    secret = at.child("secret")
    if secret is not None:
        what = "secret is not supported: the agents read no Secrets"
        secret.fail(what, "write the value, or let the application check it")
    if at.child("name") is None:
        at.fail("name: Required value", "add the header's name")
        return None
    return _checked(at, at.string("name"), at.string("value") or None)


def _checked(at: Cursor, name: str, value: str | None) -> HeaderRule | None:
    if not is_token(name):
        at.fail(f'Invalid value: "{name}" is no name of a header', 'write "Name: value" or "Name"')
    elif name.lower() == "host":
        at.fail("Invalid value: Host is no header to the proxy", "use host")
    elif value is not None and (len(value) > _LONGEST_VALUE or not value.isprintable()):
        at.fail("Invalid value: is no value of a header", "write printable characters")
    else:
        return HeaderRule(name.lower(), value.strip() if value is not None else None)
    return None
