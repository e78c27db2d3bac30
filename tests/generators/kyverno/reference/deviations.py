"""Where our engine answers otherwise than the reference on purpose, and why.

docs/kyverno.md shows this list. A deviation is known by what is in its questions and answers; the
test fails when a difference has none, and when a deviation explains no difference any more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.generators.kyverno.reference.answers import same
from tests.generators.kyverno.reference.shapes import Answer, Json, Question

Explains = Callable[[Question, Answer, Answer], bool]

_INSIDE = re.compile(r'"[=X^]\(')


@dataclass(frozen=True)
class Deviation:
    """One row of the page's list."""

    what: str
    upstream: str
    reason: str
    explains: Explains
    """(question, the reference's answer, ours) -> whether this is why they differ."""


def written(value: Json) -> str:
    """A value as one line, to look into."""
    return json.dumps(value, sort_keys=True)


def _asks(*words: str) -> Explains:
    """Questions whose expression or template holds one of these."""

    def explains(question: Question, theirs: Answer, ours: Answer) -> bool:
        asked = question.get("expression", question.get("template"))
        return asked is not None and any(word in written(asked) for word in words)

    return explains


def _refused(*words: str) -> Explains:
    """What we refuse with one of these in the message, and the reference does not."""

    def explains(question: Question, theirs: Answer, ours: Answer) -> bool:
        return "error" not in theirs and any(word in ours.get("error", "") for word in words)

    return explains


def _both(op: str, test: Callable[[Question, Json, Json], bool]) -> Explains:
    """Questions of one kind where both sides have a value."""

    def explains(question: Question, theirs: Answer, ours: Answer) -> bool:
        there = "value" in theirs and "value" in ours and question["op"] == op
        return there and test(question, theirs["value"], ours["value"])

    return explains


def _without_empty(value: Json) -> Json:
    """Without empty maps, and what holds nothing but them: `[[], {}]` vanishes as a whole."""
    if isinstance(value, dict):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if item not in ({}, [])]
    return value


def _notes_as_text(value: Json, *, noted: bool = False) -> Json:
    if isinstance(value, dict):
        return {
            key: _notes_as_text(item, noted=noted or key in ("labels", "annotations"))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_notes_as_text(item) for item in value]
    return json.dumps(value) if noted and isinstance(value, bool | int | float) else value


def _equal_after(change: Callable[[Json], Json]) -> Callable[[Question, Json, Json], bool]:
    return lambda _, theirs, ours: same({"value": change(theirs)}, {"value": change(ours)})


def _unordered(value: Json) -> Json:
    if isinstance(value, list):
        return sorted(map(_unordered, value), key=json.dumps)
    return value


def _adds(question: Question) -> bool:
    return "+(" in written(question.get("patch", question.get("policy")))


def _kept_what_was_set(question: Question, theirs: Json, ours: Json) -> bool:
    """Only what the object had already differs, and ours is what it had."""
    differing = list(_differing(theirs, ours, question["object"]))
    return bool(differing) and all(mine == before for mine, before in differing)


def _differing(theirs: Json, ours: Json, before: Json) -> Json:
    """(our value, the object's before) wherever the two answers differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        held = before if isinstance(before, dict) else {}
        inner = held if "object" not in theirs else {"object": before}
        for key in theirs.keys() | ours.keys():
            yield from _differing(theirs.get(key), ours.get(key), inner.get(key))
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        named = {e.get("name"): e for e in before or [] if isinstance(e, dict)}
        for one, other in zip(theirs, ours, strict=True):
            name = other.get("name") if isinstance(other, dict) else None
            yield from _differing(one, other, named.get(name))
    elif theirs != ours:
        yield ours, before


def _conditions_only(question: Question, theirs: Json, ours: Json) -> bool:
    """The patch has a condition with more than a scalar in it."""
    return bool(re.search(r'"<?\([^"]*\)": [\[{]', written(question["patch"])))


def _two_anchored(question: Question, theirs: Json, ours: Json) -> bool:
    listed = question["patch"].get("spec", {}).get("containers") or []
    return sum('"(' in written(item) for item in listed) > 1


def _failed_generation(question: Question, theirs: Json, ours: Json) -> bool:
    statuses = {rule["status"] for rule in ours["rules"]}
    return "error" in statuses and not theirs["generated"] and not ours["generated"]


def _dynamic(question: Question) -> bool:
    return bool(question["expression"].startswith("dyn("))


def _of_controllers(question: Question) -> bool:
    """A policy on Pods alone, asked about a Deployment."""
    if question["op"] != "celpolicy" or question["object"]["kind"] != "Deployment":
        return False
    rules = question["policy"]["spec"]["matchConstraints"]["resourceRules"]
    return [rule["resources"] for rule in rules] == [["pods"]]


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "a text that comes out of a variable and holds `{{ }}`",
        "reads it again, whoever wrote it",
        "who may annotate a namespace must not be able to write expressions",
        _asks("written"),
    ),
    Deviation(
        "`x-{{- n }}` of a number",
        "its engine panics",
        "a number has a text",
        _asks("x{{- number"),
    ),
    Deviation(
        "`{{ @ }}` under a key with an anchor",
        "looks for the key with its anchor and finds nothing",
        "the object has the key without it",
        _asks('(a.b/c)": "{{ @', '(app)": "{{ @'),
    ),
    Deviation(
        "`@` as a whole expression, outside of patches",
        "everything that variables can see",
        "only what is named is loaded, so that no policy reads more than it says",
        _refused("@ has no meaning here"),
    ),
    Deviation(
        "the order of `x.*`, `keys(x)`, `values(x)`",
        "another one each time",
        "a rule that runs again must change nothing: as the object has them, functions by key",
        lambda q, t, o: (
            _asks(".*", "keys(", "values(")(q, t, o)
            and _both("query", _equal_after(_unordered))(q, t, o)
        ),
    ),
    Deviation(
        "`random`",
        "another text each time",
        "a rule that runs again must change nothing",
        _asks("random("),
    ),
    Deviation(
        "`add('1h', '30m')` and the like",
        "an error, as `30m` is also the quantity 0.03",
        "beside a duration it can only be one",
        _asks("'1h', '30m'", "'30m', '1h'", "'1h', '25m'"),
    ),
    Deviation(
        "`time_parse` with a layout that has no year",
        "a time in the year 0",
        "no date that anybody means; an error",
        _refused("has no year"),
    ),
    Deviation(
        "a literal that is no JSON",
        "an error",
        "it is a text in the library that reads expressions here",
        _asks("`[1`"),
    ),
    Deviation(
        "`&x` outside of a function",
        "an empty object",
        "it is no value; an error",
        _refused("& makes an expression"),
    ),
    Deviation(
        "`+( )` in an element of a list that a patch writes for several elements",
        "what the first of them has decides for all, so that values that are set are overwritten",
        "`+( )` never overwrites: so it is documented, and a limit or a securityContext that "
        "somebody set would be lost",
        lambda q, t, o: _adds(q) and _both(q["op"], _kept_what_was_set)(q, t, o),
    ),
    Deviation(
        "empty maps in a patch, such as `emptyDir: {}` or `podSelector: {}`",
        "removes them, and the lists and maps that hold nothing else",
        "a rule of a NetworkPolicy that selects all pods would be lost",
        lambda q, t, o: any(
            _both(op, _equal_after(_without_empty))(q, t, o) for op in ("merge", "policy")
        ),
    ),
    Deviation(
        "an element without the key of its list, such as a container without name",
        "loses other elements of the list",
        "destroys data; an error that names the key",
        _refused("an element of this list needs"),
    ),
    Deviation(
        "`=( )`, `^( )`, `X( )` outside of a condition",
        "left in the object as names of fields, and conditions below them fail",
        "they say nothing there; no API server knows such a field",
        lambda q, t, o: q["op"] == "merge" and bool(_INSIDE.search(written(q["patch"]))),
    ),
    Deviation(
        "lists and maps under `( )` and `<( )`",
        "writes the pattern into the object once it fits, `*` included",
        "a condition is compared, and never written",
        _both("merge", _conditions_only),
    ),
    Deviation(
        "two elements with conditions in one list",
        "removes the wrong one from the patch and writes its anchors into the object",
        "each is carried out",
        _both("merge", _two_anchored),
    ),
    Deviation(
        "a port without protocol in a patch, beside one with",
        "loses what the patch says",
        "it is the same port",
        lambda q, t, o: q["op"] == "merge" and '"ports"' in written(q["patch"]),
    ),
    Deviation(
        "finalizers and ownerReferences of kinds that its schema does not know",
        "replaced",
        "a finalizer that is lost deletes data; they merge in every kind",
        lambda q, t, o: q["op"] == "merge" and "example.com" in written(q["object"]),
    ),
    Deviation(
        "a number or true and false out of a variable as a label or annotation",
        "written as it is, which no API server takes",
        "written as text",
        _both("policy", _equal_after(_notes_as_text)),
    ),
    Deviation(
        "a generate rule that fails",
        "its command line says pass and generates nothing",
        "an error is told",
        _both("policy", _failed_generation),
    ),
    Deviation(
        "a JSON Patch whose path is empty, or does not begin with `/`",
        "replaces the object, writes a field without name, or does nothing",
        "never what was meant; an error",
        _refused("of this path is not possible", "is not a path", "there is no ''"),
    ),
    Deviation(
        "`y` and `n` as values of a JSON Patch in YAML",
        "true and false, as in YAML 1.1",
        "`kubectl` reads letters; `yes`, `no`, `on` and `off` are true and false in both",
        lambda q, t, o: q["op"] == "jsonpatch" and q["patches"].endswith("value: y"),
    ),
    Deviation(
        "`jsonpatch.escapeKey` in a GeneratingPolicy",
        "there is no such function",
        "both kinds have the same functions",
        lambda q, t, o: q["op"] == "cel" and "escapeKey" in q["expression"],
    ),
    Deviation(
        "an expression in CEL whose types cannot fit, such as `1 == '1'`",
        "its compiler refuses the policy",
        "found when it runs: an error, or false where values are compared",
        lambda q, t, o: q["op"] == "cel" and "error" in t and "value" in o and not _dynamic(q),
    ),
    Deviation(
        "`%e` in `format()`",
        "digits in superscript: a number for people",
        "no object wants it; an error",
        lambda q, t, o: q["op"] == "cel" and "%e" in q["expression"],
    ),
    Deviation(
        "a MutatingPolicy on Pods, and a controller of Pods",
        "also a policy on controllers' templates, in what it calls autogen",
        "a policy changes what it names",
        lambda q, t, o: _of_controllers(q),
    ),
    Deviation(
        "objects that trigger a MutatingPolicy with targets",
        "its command line changes the targets for any object, its webhook does not",
        "the trigger is asked for, offline too",
        lambda q, t, o: q["op"] == "celpolicy" and "targetMatchConstraints" in q["policy"]["spec"],
    ),
)


def reason_for(question: Question, theirs: Answer, ours: Answer) -> Deviation | None:
    """The deviation that explains a difference."""
    found = (one for one in DEVIATIONS if one.explains(question, theirs, ours))
    return next(found, None)
