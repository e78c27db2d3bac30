"""CEL's functions of texts: its strings library, that of Kubernetes, regular expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from generators.kyverno.cel.values import CelValue, Optional, Spend, is_number, type_name
from generators.kyverno.failures import BadExpression
from generators.kyverno.language import regexes
from generators.kyverno.language.printing import sprint
from generators.kyverno.model import MAX_TEXT

Run = Callable[[Sequence[CelValue], Spend], CelValue]
_REFERENCE = re.compile(r"\\([0-9\\])")
_SPACE = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def text_of(value: CelValue) -> str:
    """A text; BadExpression for anything else."""
    if not isinstance(value, str):
        raise BadExpression(f"a {type_name(value)} where a string is needed")
    return value


def whole(value: CelValue) -> int:
    """An int; BadExpression for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadExpression(f"a {type_name(value)} where an int is needed")
    return value


def sized(text: str, spend: Spend) -> str:
    """A text that was made, when it is not too long."""
    if len(text) > MAX_TEXT:
        raise BadExpression(f"a text grows beyond {MAX_TEXT} characters")
    spend(1 + len(text) // 8)
    return text


def _char(arguments: Sequence[CelValue], _: Spend) -> str:
    text, place = text_of(arguments[0]), whole(arguments[1])
    if not 0 <= place <= len(text):
        raise BadExpression(f"index out of range: {place}")
    return text[place : place + 1]


def _index_of(arguments: Sequence[CelValue], spend: Spend) -> int:
    held, wanted = arguments[0], arguments[1]
    text, part = text_of(held), text_of(wanted)
    start = whole(arguments[2]) if len(arguments) > 2 else 0
    if start < 0:
        raise BadExpression(f"index out of range: {start}")
    spend(1 + len(text) // 8)
    return text.find(part, start)


def _last_index_of(arguments: Sequence[CelValue], spend: Spend) -> int:
    text, part = text_of(arguments[0]), text_of(arguments[1])
    last = whole(arguments[2]) if len(arguments) > 2 else len(text)
    if last < 0:
        raise BadExpression(f"index out of range: {last}")
    spend(1 + len(text) // 8)
    if len(arguments) > 2 and last >= len(text):
        return -1
    return text.rfind(part, 0, last + len(part))


def _join(arguments: Sequence[CelValue], spend: Spend) -> str:
    parts = arguments[0]
    if not isinstance(parts, list):
        raise BadExpression(f"join(): a {type_name(parts)} where a list is needed")
    between = text_of(arguments[1]) if len(arguments) > 1 else ""
    texts = [text_of(part) for part in parts]
    length = sum(map(len, texts)) + len(between) * max(len(texts) - 1, 0)
    if length > MAX_TEXT:
        raise BadExpression(f"a text grows beyond {MAX_TEXT} characters")
    return sized(between.join(texts), spend)


def _replace(arguments: Sequence[CelValue], spend: Spend) -> str:
    text, old, new = (text_of(argument) for argument in arguments[:3])
    count = whole(arguments[3]) if len(arguments) > 3 else -1
    spend(1 + len(text) // 8)
    times = len(text) + 1 if not old else text.count(old)
    times = times if count < 0 else min(times, count)
    if len(text) + times * (len(new) - len(old)) > MAX_TEXT:
        raise BadExpression(f"a text grows beyond {MAX_TEXT} characters")
    return sized(text.replace(old, new, count), spend)


def _split(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    text, separator = text_of(arguments[0]), text_of(arguments[1])
    limit = whole(arguments[2]) if len(arguments) > 2 else -1
    spend(1 + len(text))
    if limit == 0:
        return []
    if not separator:
        most = len(text) if limit < 0 else min(limit, len(text))
        return [*text[: most - 1], *([text[most - 1 :]] if most else [])]
    return [*text.split(separator, limit - 1 if limit > 0 else -1)]


def _substring(arguments: Sequence[CelValue], _: Spend) -> str:
    text, start = text_of(arguments[0]), whole(arguments[1])
    end = whole(arguments[2]) if len(arguments) > 2 else len(text)
    if not 0 <= start <= end <= len(text):
        raise BadExpression(f"index out of range: {start}, {end} of {len(text)} characters")
    return text[start:end]


def _folded(arguments: Sequence[CelValue], upper: bool) -> str:
    text = text_of(arguments[0])
    first, last, by = ("a", "z", -32) if upper else ("A", "Z", 32)
    return "".join(chr(ord(c) + by) if first <= c <= last else c for c in text)


_VERB = re.compile(r"%(?:%|(?:\.([0-9]{1,2}))?([sdfxXobT]?))")


def _format(arguments: Sequence[CelValue], spend: Spend) -> str:
    """`"%s-%d".format([a, b])`."""
    template, given = text_of(arguments[0]), arguments[1]
    if not isinstance(given, list):
        raise BadExpression(f"format(): a {type_name(given)} where a list is needed")
    left = list(given)

    def put(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if not found[2] or not left:
            what = "could not parse formatting clause" if not found[2] else "index out of range"
            raise BadExpression(f"format(): {what}")
        return _formatted(left.pop(0), found[2], int(found[1] or 6))

    return sized(_VERB.sub(put, template), spend)


def _formatted(value: CelValue, verb: str, digits: int) -> str:
    if verb == "s":
        return shown(value)
    if verb == "T":
        return type_name(value)
    if verb in "xX" and isinstance(value, str | bytes):
        text = (value.encode() if isinstance(value, str) else value).hex()
        return text.upper() if verb == "X" else text
    if not is_number(value) or not isinstance(value, int | float):
        raise BadExpression(f"format(): %{verb} of a {type_name(value)}")
    if verb == "f":
        return f"{float(value):.{digits}{verb}}"
    return format(whole(value), verb)


def shown(value: CelValue) -> str:
    """How a value reads in a text."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case int() | float():
            return number_text(value)
        case list():
            return f"[{', '.join(map(_inside, value))}]"
        case dict():
            return f"{{{', '.join(f'{_inside(k)}:{_inside(v)}' for k, v in value.items())}}}"
    return str(value)


def _inside(value: CelValue) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else shown(value)


def number_text(value: float) -> str:
    """`string(1.5)`, and `string(1.0)`, which is 1."""
    if isinstance(value, int):
        return str(int(value))
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return sprint(value)


# --- regular expressions -------------------------------------------------------------------------


def _matches(arguments: Sequence[CelValue], spend: Spend) -> bool:
    return regexes.compiled(text_of(arguments[1])).search(text_of(arguments[0]), spend)


def _found(arguments: Sequence[CelValue], spend: Spend) -> list[str]:
    """What a pattern matches: its only group where it has one."""
    text, pattern = text_of(arguments[0]), text_of(arguments[1])
    regex = regexes.compiled(pattern)
    made = []
    for found in regex.find(text, spend):
        groups = found.re.groups
        if groups > 1:
            raise BadExpression(f"regular expression {pattern!r} has more than one group")
        made.append(found.group(groups) or "")
    return made


def _extract(arguments: Sequence[CelValue], spend: Spend) -> Optional:
    found = _found(arguments, spend)
    return Optional((found[0],)) if found else Optional()


def _find(arguments: Sequence[CelValue], spend: Spend) -> str:
    text, regex = text_of(arguments[0]), regexes.compiled(text_of(arguments[1]))
    return next((found.group(0) or "" for found in regex.find(text, spend)), "")


def _find_all(arguments: Sequence[CelValue], spend: Spend) -> list[CelValue]:
    text, regex = text_of(arguments[0]), regexes.compiled(text_of(arguments[1]))
    limit = whole(arguments[2]) if len(arguments) > 2 else -1
    made: list[CelValue] = []
    for found in regex.find(text, spend):
        if limit >= 0 and len(made) >= limit:
            break
        made.append(found.group(0) or "")
    return made


def _regex_replace(arguments: Sequence[CelValue], spend: Spend) -> str:
    r"""Groups are `\1` in the replacement; a count of 0 replaces nothing."""
    text, pattern, template = (text_of(argument) for argument in arguments[:3])
    left = whole(arguments[3]) if len(arguments) > 3 else -1
    made = 0

    def put(found: regexes.RegexMatch) -> str:
        nonlocal left, made
        if left == 0:
            return found.group(0) or ""
        left -= 1
        written = _REFERENCE.sub(lambda part: _group(found, part[1]), template)
        made += len(written)
        if made > MAX_TEXT:
            raise BadExpression(f"a text grows beyond {MAX_TEXT} characters")
        return written

    return sized(regexes.replace(regexes.compiled(pattern), text, put, spend), spend)


def _group(found: regexes.RegexMatch, reference: str) -> str:
    if reference == "\\":
        return "\\"
    number = int(reference)
    if number > found.re.groups:
        raise BadExpression(f"the regular expression has no group {number}")
    return found.group(number) or ""


TEXTS: Mapping[str, Run] = {
    ".charAt": _char,
    ".contains": lambda a, _: text_of(a[1]) in text_of(a[0]),
    ".endsWith": lambda a, _: text_of(a[0]).endswith(text_of(a[1])),
    ".find": _find,
    ".findAll": _find_all,
    ".format": _format,
    ".join": _join,
    ".lowerAscii": lambda a, _: _folded(a, upper=False),
    ".matches": _matches,
    ".replace": _replace,
    ".split": _split,
    ".startsWith": lambda a, _: text_of(a[0]).startswith(text_of(a[1])),
    ".substring": _substring,
    ".trim": lambda a, _: text_of(a[0]).strip(_SPACE),
    ".upperAscii": lambda a, _: _folded(a, upper=True),
    "matches": _matches,
    "regex.extract": _extract,
    "regex.extractAll": lambda a, spend: list[CelValue](_found(a, spend)),
    "regex.replace": _regex_replace,
    "strings.quote": lambda a, _: (
        '"' + text_of(a[0]).replace("\\", "\\\\").replace('"', '\\"') + '"'
    ),
    "jsonpatch.escapeKey": lambda a, _: text_of(a[0]).replace("~", "~0").replace("/", "~1"),
}
INDEX_OF, LAST_INDEX_OF = _index_of, _last_index_of
