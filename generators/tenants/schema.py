"""The shape of the tenant file: a cerberus schema, and its errors in our words.

Called by load.py; the only importer of cerberus. Every rule is plain data (no functions), so that
other schemas can be derived from it; `meta` holds the words for messages. Rules that compare parts
of the file are in rules.py. cerberus takes `True` for an integer and lets a trailing newline
through a regex, so integers have a type of our own and patterns end in `\\Z`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Protocol, TypedDict, cast

import cerberus  # type: ignore[import-untyped]  # has no types: _Validator and _Error are its face

from generators.errors import Problem
from generators.tenants.document import Document, Path, Unclear, Value, kind_of, show
from generators.tenants.model import API_VERSION, KIND, Grants, Mode, Unassigned


class Wording(TypedDict, total=False):
    """Words for messages: what a value is, and what to write instead."""

    noun: str
    fix: str


class Rules(TypedDict, total=False):
    """The cerberus rules in use; all of them have a counterpart in JSON Schema."""

    type: str
    required: bool
    allowed: list[str]
    regex: str
    minlength: int
    maxlength: int
    min: int
    max: int
    dependencies: list[str]
    schema: dict[str, Rules] | Rules
    keysrules: Rules
    valuesrules: Rules
    meta: Wording


MAX_ERRORS = 500
INTEGER = "decimal integer"
"""cerberus's own integer takes a boolean too."""

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

DNS_LABEL: Rules = {
    "type": "string",
    "regex": rf"{LABEL}\Z",
    "maxlength": 63,
    "meta": {
        "noun": "a DNS label",
        "fix": "use lower-case letters, digits and inner dashes, at most 63 characters",
    },
}
AFFIX_LENGTH = 62
PREFIX: Rules = {
    "type": "string",
    "regex": r"[a-z0-9][-a-z0-9]*\Z",
    "maxlength": AFFIX_LENGTH,
    "meta": {
        "noun": "the beginning of a namespace name",
        "fix": "use lower-case letters, digits and dashes, no dash first, at most 62 characters",
    },
}
SUFFIX: Rules = {
    "type": "string",
    "regex": r"[-a-z0-9]*[a-z0-9]\Z",
    "maxlength": AFFIX_LENGTH,
    "meta": {
        "noun": "the end of a namespace name",
        "fix": "use lower-case letters, digits and dashes, no dash last, at most 62 characters",
    },
}
LABEL_KEY: Rules = {
    "type": "string",
    "regex": rf"({LABEL}(\.{LABEL})*/)?{NAME_PART}\Z",
    "maxlength": 253 + 1 + 63,
    "meta": {
        "noun": "a label key",
        "fix": "write a name of at most 63 letters, digits, `-`, `_`, `.`, "
        "with or without a DNS prefix and a slash before it",
    },
}
LABEL_VALUE: Rules = {
    "type": "string",
    "regex": r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?\Z",
    "maxlength": 63,
    "meta": {
        "noun": "a label value",
        "fix": "use at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends",
    },
}
SUBJECT: Rules = {
    "type": "string",
    "regex": r"[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?\Z",
    "maxlength": 253,
    "meta": {
        "noun": "a name as the API server knows it",
        "fix": "write it without blanks around it and without control characters",
    },
}
SERVICE_ACCOUNT: Rules = {
    "type": "string",
    "regex": rf"{LABEL}/{LABEL}(\.{LABEL})*\Z",
    "maxlength": 63 + 1 + 253,
    "meta": {"noun": "a service account", "fix": "write it as namespace/name, such as ci/deployer"},
}
PORT_NUMBER: Rules = {
    "type": INTEGER,
    "min": 1,
    "max": 65535,
    "meta": {"noun": "a port number", "fix": "write a decimal number from 1 to 65535"},
}
PERCENT: Rules = {
    "type": INTEGER,
    "min": 1,
    "max": 90,
    "meta": {"noun": "a percentage", "fix": "write a decimal number from 1 to 90"},
}
SWITCH: Rules = {
    "type": "boolean",
    "meta": {"noun": "a boolean", "fix": "write true or false"},
}


def _words(noun: str, *allowed: str) -> Rules:
    fix = f"write {' or '.join(allowed)}"
    return {"type": "string", "allowed": list(allowed), "meta": {"noun": noun, "fix": fix}}


def _required(rules: Rules) -> Rules:
    return {**rules, "required": True}


def _list_of(rules: Rules) -> Rules:
    fix = "write a list: one item a line after `- `, or [a, b]"
    return {"type": "list", "schema": rules, "meta": {"noun": "a list", "fix": fix}}


def _some(rules: Rules) -> Rules:
    return {**_list_of(rules), "minlength": 1}


def _mapping(**fields: Rules) -> Rules:
    fix = f"write fields below it: {', '.join(fields)}"
    return {"type": "dict", "schema": fields, "meta": {"noun": "a mapping", "fix": fix}}


SUBJECTS = _mapping(
    users=_list_of(SUBJECT), groups=_list_of(SUBJECT), serviceAccounts=_list_of(SERVICE_ACCOUNT)
)
PORTS = _list_of(
    {
        **_mapping(
            port=PORT_NUMBER,
            endPort={**PORT_NUMBER, "dependencies": ["port"]},
            protocol=_words("a protocol", "TCP", "UDP", "SCTP"),
        ),
        "minlength": 1,
    }
)
GRANTS = _list_of(_mapping(tenant=_required(DNS_LABEL), ports=PORTS))
SHARED = _mapping(
    name=_required(DNS_LABEL),
    namespaces=_required(_mapping(names=_required(_some(DNS_LABEL)))),
    ports=PORTS,
    hostNetwork=SWITCH,
)
LABELS: Rules = {
    "type": "dict",
    "keysrules": LABEL_KEY,
    "valuesrules": LABEL_VALUE,
    "meta": {"noun": "a mapping", "fix": 'write labels below it, such as cost-centre: "4711"'},
}
TENANT = _mapping(
    name=_required(DNS_LABEL),
    namespaces=_mapping(
        names=_list_of(DNS_LABEL), prefixes=_list_of(PREFIX), suffixes=_list_of(SUFFIX)
    ),
    members=SUBJECTS,
    labels=LABELS,
    allowFrom=GRANTS,
    allowTo=GRANTS,
    allowMasked=SWITCH,
    mapShare=PERCENT,
    mode=_words("a mode of one tenant", Mode.AUDIT),
    grants=_words("a word", *Grants),
)
TENANT_FILE = _mapping(
    apiVersion=_required(_words("the API version", API_VERSION)),
    kind=_required(_words("the kind", KIND)),
    labelKey=LABEL_KEY,
    retiredLabelKeys=_list_of(LABEL_KEY),
    mode=_words("a mode", *Mode),
    admins=SUBJECTS,
    protectedNamespaces=_list_of(DNS_LABEL),
    shared=_list_of(SHARED),
    encapsulation=_mapping(namespaces=_required(_mapping(names=_required(_some(DNS_LABEL))))),
    tenants=_list_of(TENANT),
    grants=_words("a word", *Grants),
    defaults=_mapping(unassigned=_words("a word", *Unassigned)),
)


class _Error(Protocol):
    """The part of cerberus.errors.ValidationError that is used."""

    code: int
    document_path: Path
    schema_path: Path
    constraint: object
    value: Value
    is_group_error: bool


class _Validator(Protocol):
    """The part of cerberus.Validator that is used."""

    recent_error: _Error
    _config: dict[str, list[_Error]]

    def _error(self, *args: object) -> None: ...

    def validate(self, document: Mapping[str, Value], *, normalize: bool) -> bool: ...


_MISSING = cerberus.errors.REQUIRED_FIELD.code
_UNKNOWN = cerberus.errors.UNKNOWN_FIELD.code
_NEEDS = cerberus.errors.DEPENDENCIES_FIELD.code
_LONG = cerberus.errors.MAX_LENGTH.code
_SHORT = cerberus.errors.MIN_LENGTH.code


@dataclass(frozen=True, slots=True)
class Hole:
    """Stands where a bad value was, so that the items after it keep their numbers and lines."""


HOLE = Hole()
Sound = str | int | bool | Hole | list["Sound"] | dict[str, "Sound"]


def check_shape(document: Document) -> tuple[dict[str, Sound], list[Problem]]:
    """Hold a document against the schema.

    Returns its sound parts (which the rules still check), and every defect.
    """
    root = document.root
    if not isinstance(root, dict):
        return {}, [_no_mapping(document)]
    errors, all_found = _validate(root)
    problems = [_problem(error, document) for error in errors]
    if not all_found:
        last = max(problems, default=_no_mapping(document))
        what = f"more than {MAX_ERRORS} defects, the rest is not listed"
        return {}, [*problems, Problem(last.file, last.line, "", what, "correct these first")]
    bad = {error.document_path for error in errors if error.code != _MISSING}
    sound = _sound(root, (), TENANT_FILE, bad)
    return (sound if isinstance(sound, dict) else {}), problems


def nearest(word: str, known: Iterable[str]) -> str:
    """The fix for a word that is none of `known`: the one that was probably meant, or all."""
    choices = sorted(known)
    # Comparing very long words is slow, and none of them is a slip of the finger.
    close = get_close_matches(word, choices, n=1) if len(word) <= 64 else []
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known: {', '.join(choices)}" if choices else "there are none"


def _no_mapping(document: Document) -> Problem:
    fix = f"begin it with `apiVersion: {API_VERSION}` and `kind: {KIND}`"
    if document.root is None:
        return document.problem((), "the file is empty", fix)
    return document.problem((), f"the file is {kind_of(document.root)}, not a mapping", fix)


class _Enough(Exception):
    """MAX_ERRORS defects have been found."""


@cache
def _validator_class() -> Callable[..., _Validator]:
    base = cerberus.Validator
    integer = cerberus.TypeDefinition(INTEGER, (int,), (bool,))

    def note(self: _Validator, *args: object) -> None:
        """Collect each defect as it is found: cerberus itself sorts all it has after every one."""
        base._error(self, *args)
        found = self._config["found"]
        if len(args) > 1 and not self.recent_error.is_group_error:
            found.append(self.recent_error)
        if len(found) >= MAX_ERRORS:
            raise _Enough

    members = {"types_mapping": {**base.types_mapping, INTEGER: integer}, "_error": note}
    return cast(Callable[..., _Validator], type("TenantFileValidator", (base,), members))


def _validate(root: Mapping[str, Value]) -> tuple[list[_Error], bool]:
    """The defects, without the groups in which cerberus puts them; false when there are more."""
    found: list[_Error] = []
    validator = _validator_class()(TENANT_FILE["schema"], found=found)
    try:
        validator.validate(root, normalize=False)
    except _Enough:
        return found, False
    return found, True


def _inner(rules: Rules, step: str | int) -> Rules | None:
    """The rules for one item or field of a value; None for a field that the schema knows not."""
    inner = rules.get("schema")
    if isinstance(step, int):
        return cast(Rules, inner)
    if inner is None:
        return rules.get("valuesrules")
    return cast(dict[str, Rules], inner).get(step)


def _rules_at(path: Path) -> Rules:
    """The rules for the value at a path that the schema knows."""
    rules: Rules = TENANT_FILE
    for step in path:
        rules = _inner(rules, step) or {}
    return rules


def _sound(value: Value, path: Path, rules: Rules, bad: set[Path]) -> Sound:
    """The value without its bad parts; HOLE when nothing of it can be used."""
    if path in bad or value is None or isinstance(value, Unclear):
        return HOLE
    if isinstance(value, list):
        item = _inner(rules, 0) or {}
        return [_sound(each, (*path, at), item, bad) for at, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kept: dict[str, Sound] = {}
    for key, each in value.items():
        known = _inner(rules, key)
        found = HOLE if known is None else _sound(each, (*path, key), known, bad)
        if not isinstance(found, Hole):
            kept[key] = found
    fields = cast(dict[str, Rules], rules.get("schema", {}))
    needed = {key for key, field in fields.items() if field.get("required")}
    # The root is never a hole: apiVersion and kind say nothing about the rest.
    return kept if not path or needed <= kept.keys() else HOLE


def _problem(error: _Error, document: Document) -> Problem:
    path = error.document_path
    if error.code == _UNKNOWN:
        known = cast(dict[str, Rules], _rules_at(path[:-1])["schema"])
        name = str(path[-1])
        return document.problem(path, f"unknown field {show(name)}", nearest(name, known))
    rules = _rules_at(path)
    if "keysrules" in error.schema_path:
        rules = _rules_at(path[:-1])["keysrules"]
    meta = rules["meta"]
    if error.code == _MISSING:
        fix = f"add `{path[-1]}:` with {meta['noun']}"
        if allowed := rules.get("allowed"):
            fix = f"add `{path[-1]}: {allowed[0]}`"
        return document.problem(path, "is required but missing", fix)
    if error.code == _NEEDS:
        return document.problem(path, "has a meaning only together with port", "add port")
    if error.code == _SHORT:
        return document.problem(path, "is empty", f"fill it or remove it; {meta['fix']}")
    if error.code == _LONG:
        return document.problem(path, _too_long(error.value, error.constraint), meta["fix"])
    what, fix = _wrong_value(error.value, rules)
    return document.problem(path, what, fix)


def _too_long(value: Value, limit: object) -> str:
    length = len(value) if isinstance(value, str) else 0
    shown = show(value) if isinstance(value, str) else ""
    return f"{shown} is {length} characters long, {limit} are allowed"


def _wrong_value(value: Value, rules: Rules) -> tuple[str, str]:
    """The problem of a value of a wrong type, form or range, and what to write."""
    meta = rules["meta"]
    if value is None:
        return "has no value", f"{meta['fix']}; or remove the field"
    if isinstance(value, list | dict):
        return f"is {kind_of(value)}, not {meta['noun']}", meta["fix"]
    if isinstance(value, str):
        fix = meta["fix"]
        if allowed := rules.get("allowed"):
            fix = nearest(value, allowed)
        elif rules["type"] in (INTEGER, "boolean"):
            fix = f"{fix}, without quotes"
        return f"{show(value)} is not {meta['noun']}", fix
    text = _as_written(value)
    bare = show(text)[1:-1]
    if rules["type"] == "string" and "allowed" not in rules:
        return f"{bare} is read as {kind_of(value)}, not as text", f"quote it: {show(text)}"
    return f"{bare} is not {meta['noun']}", meta["fix"]


def _as_written(value: bool | int | Unclear) -> str:
    if isinstance(value, Unclear):
        return value.text
    return str(value).lower()
