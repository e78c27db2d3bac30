"""The shape of the tenant file as JSON Schema, for editors and for charts.

Derived from the rules that the file is checked with, so the two cannot drift apart; printed by
`ringfence tenants schema`. Draft 7, because every Helm reads it. Go's regular expressions have
neither `\\Z` nor Unicode in `\\s`, so patterns are anchored by `^` and `$` and white space is
spelled out. Rules that compare parts of the file (overlaps, consents) cannot be in a schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from generators.tenants.schema import INTEGER, TENANT_FILE, Rules

DRAFT = "http://json-schema.org/draft-07/schema#"
TITLE = "Ringfence tenant file"
BLANKS = "\\s\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What Python's `\\s` means within the characters that a subject may hold."""

TYPES = {"string": "string", "boolean": "boolean", INTEGER: "integer", "list": "array"}
LENGTHS = {"string": "Length", "list": "Items", "dict": "Properties"}

Schema = dict[str, object]


def tenant_file_schema() -> Schema:
    """The whole document."""
    return {"$schema": DRAFT, "title": TITLE, **json_schema(TENANT_FILE)}


def json_schema(rules: Rules) -> Schema:
    """The counterpart of one set of rules."""
    found: Schema = {}
    if meta := rules.get("meta"):
        found["description"] = f"{meta['noun']}: {meta['fix']}"
    kind = rules["type"]
    found["type"] = TYPES.get(kind, "object")
    if kind == "dict":
        found |= _object(rules)
    elif "schema" in rules:
        found["items"] = json_schema(cast(Rules, rules["schema"]))
    if "allowed" in rules:
        found["enum"] = rules["allowed"]
    if "regex" in rules:
        found["pattern"] = _pattern(rules["regex"])
    return found | _limits(rules)


def _limits(rules: Rules) -> Schema:
    limits: Schema = {}
    what = LENGTHS.get(rules["type"], "")
    if "minlength" in rules:
        limits[f"min{what}"] = rules["minlength"]
    if "maxlength" in rules:
        limits[f"max{what}"] = rules["maxlength"]
    if "min" in rules:
        limits["minimum"] = rules["min"]
    if "max" in rules:
        limits["maximum"] = rules["max"]
    return limits


def _object(rules: Rules) -> Schema:
    if "valuesrules" in rules:
        return {
            "propertyNames": json_schema(rules["keysrules"]),
            "additionalProperties": json_schema(rules["valuesrules"]),
        }
    fields = cast(Mapping[str, Rules], rules["schema"])
    found: Schema = {
        "properties": {name: json_schema(field) for name, field in fields.items()},
        "additionalProperties": False,
    }
    if required := [name for name, field in fields.items() if field.get("required")]:
        found["required"] = required
    if needs := {n: f["dependencies"] for n, f in fields.items() if "dependencies" in f}:
        found["dependencies"] = needs
    return found


def _pattern(regex: str) -> str:
    """A pattern that means the same to Go, ECMAScript and Python's `re.search`."""
    return f"^({regex.removesuffix(chr(92) + 'Z')})$".replace("\\s", BLANKS)
