"""Writes a chart's values.schema.json and the table of values in its README, from values.yaml.

The comment above a key that begins with `# --` says what the value means. Its type is that of the
default; what a default cannot say follows in lines of their own: `# @type list of string`,
`# @enum a, b`, `# @pattern REGEX`, `# @minimum 1`, `# @maximum 9`. `# @type tenant-file` is the
shape that the tenant file is checked with. A key without `# --` is a group of values.

    .venv/bin/python tools/charts.py charts/*            # out of date: exit 1 and the file
    .venv/bin/python tools/charts.py --write charts/*
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from generators.tenants.jsonschema import DRAFT, json_schema
from generators.tenants.schema import TENANT_FILE

Schema = dict[str, object]

BEGIN, END = "<!-- values -->", "<!-- end of values -->"
_TAG = re.compile(r"# @(?P<name>[a-z]+) (?P<text>.+)")
_SCALARS = {"bool": "boolean", "int": "integer", "str": "string"}
_STRING: Schema = {"type": "string"}
_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABELS: Schema = {
    "type": "object",
    "propertyNames": {
        "pattern": rf"^({_DNS_LABEL}(\.{_DNS_LABEL})*/)?"
        "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
    },
    "additionalProperties": {
        "type": "string",
        "maxLength": 63,
        "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    },
}
_NAMESPACES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "maxLength": 63, "pattern": f"^{_DNS_LABEL}$"},
}
_NOT_A_TEAMS = r"^pod-security\.kubernetes\.io/|^kubernetes\.io/metadata\.name$"
"""Label keys of the platform, and the one that the API server alone writes."""
_NAMED: dict[str, Schema] = {
    "object": {"type": "object"},
    "map of string": {"type": "object", "additionalProperties": _STRING},
    "map of label": _LABELS,
    # Pod Security is the platform's: a team that owns a release is not to lower it.
    "map of namespace-label": {
        **_LABELS,
        "allOf": [{"propertyNames": {"not": {"pattern": _NOT_A_TEAMS}}}],
    },
    # Labels, or names under a key that no label's value can be: a list.
    "list of entrant": {
        "type": "array",
        "items": {
            "type": "object",
            "minProperties": 1,
            "if": {"properties": {"namespaces": {"type": "array"}}, "required": ["namespaces"]},
            "then": {"additionalProperties": False, "properties": {"namespaces": _NAMESPACES}},
            "else": _LABELS,
        },
    },
    "list of port": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "integer", "minimum": 1, "maximum": 65535},
    },
    "list of CIDR": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"},
    },
    "list of string": {"type": "array", "items": {"type": "string", "minLength": 1}},
    "list of object": {"type": "array", "items": {"type": "object"}},
    "integer or string": {"type": ["integer", "string"]},
    "list of resource": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["group", "resource"],
            "properties": {
                "group": {"type": "string", "pattern": "^[a-z0-9.-]*$"},
                "resource": {"type": "string", "pattern": "^[a-z]+$"},
            },
        },
    },
    "list of allowed-kind": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "required": ["kind", "group", "resource"],
            "properties": {
                "kind": {"type": "string", "pattern": "^([a-z0-9.-]+/)*[A-Z][A-Za-z0-9]*$"},
                "group": {"type": "string", "pattern": "^[a-z0-9.-]*$"},
                "resource": {"type": "string", "pattern": "^[a-z]+$"},
            },
        },
    },
    "tenant-file": json_schema(TENANT_FILE),
}


@dataclass(frozen=True, slots=True)
class Value:
    """One documented key of values.yaml, or a group of them."""

    path: tuple[str, ...]
    node: yaml.Node
    text: str
    tags: dict[str, str] = field(default_factory=dict)
    below: tuple[Value, ...] = ()

    @property
    def type(self) -> str:
        """For readers: the named type, or the default's."""
        if "type" in self.tags:
            return self.tags["type"]
        return _SCALARS[self.node.tag.rpartition(":")[2]]

    @property
    def schema(self) -> Schema:
        """What values.schema.json says about it."""
        if self.below:
            group = group_schema(self.below)
            # Shared by all charts of a release: what others keep there is none of our business.
            return group if self.path != ("global",) else group | {"additionalProperties": True}
        named = _NAMED.get(self.type)
        found: Schema = {"description": self.text, **(named or {"type": self.type})}
        if "enum" in self.tags:
            found["enum"] = self.tags["enum"].split(", ")
        if "pattern" in self.tags:
            found["pattern"] = self.tags["pattern"]
        for limit in ("minimum", "maximum"):
            if limit in self.tags:
                found[limit] = int(self.tags[limit])
        return found


def read_values(path: Path) -> tuple[Value, ...]:
    """All values of a chart, as its file orders them."""
    text = path.read_text()
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise SystemExit(f"{path}:1: is not a mapping")
    return tuple(_below(root, (), text.splitlines()))


def _below(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        here = (*path, str(key.value))
        text, tags = _comment(lines, key.start_mark.line)
        if text:
            yield Value(here, value, text, tags)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield Value(here, value, "", {}, tuple(_below(value, here, lines)))
        else:
            line = key.start_mark.line + 1
            raise SystemExit(f"values.yaml:{line}: {'.'.join(here)} has no `# --` above it")


def _comment(lines: list[str], key_line: int) -> tuple[str, dict[str, str]]:
    """The description above a key, and its tags."""
    first = key_line
    while first and lines[first - 1].strip().startswith("#"):
        first -= 1
    block = [line.strip() for line in lines[first:key_line]]
    begins = [at for at, line in enumerate(block) if line.startswith("# --")]
    if not begins:
        return "", {}
    block = block[begins[-1] :]
    tags = {m["name"]: m["text"] for line in block if (m := _TAG.fullmatch(line))}
    words = [line.removeprefix("# --").removeprefix("#").strip() for line in block]
    return " ".join(w for w in words if not w.startswith("@")), tags


def group_schema(values: tuple[Value, ...]) -> Schema:
    """An object with exactly these fields."""
    return {"type": "object", "additionalProperties": False, "properties": _fields(values)}


def _fields(values: tuple[Value, ...]) -> Schema:
    return {value.path[-1]: value.schema for value in values}


def chart_schema(values: tuple[Value, ...]) -> Schema:
    """The whole values.schema.json. `global` belongs to Helm: any chart may be a subchart."""
    properties = {"global": {"type": "object"}, **_fields(values)}
    return {"$schema": DRAFT, **group_schema(values), "properties": properties}


def table(values: tuple[Value, ...]) -> str:
    """The reference of all values, as Markdown."""
    rows = ["| value | type | default | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{'.'.join(value.path)}` | {_type(value)} | {_default(value)} | {_cell(value.text)} |"
        for value in _leaves(values)
    ]
    return "\n".join(rows)


def _leaves(values: tuple[Value, ...]) -> Iterator[Value]:
    for value in values:
        if value.below:
            yield from _leaves(value.below)
        else:
            yield value


def _type(value: Value) -> str:
    return " &#124; ".join(value.tags["enum"].split(", ")) if "enum" in value.tags else value.type


def _default(value: Value) -> str:
    plain = yaml.SafeLoader("").construct_object(value.node, deep=True)
    return f"`{json.dumps(plain)}`" if plain != "" else "empty"


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")


def outputs(chart: Path) -> dict[Path, str]:
    """What the files of a chart should hold."""
    values = read_values(chart / "values.yaml")
    page = (chart / "README.md").read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    written = f"{before}{BEGIN}\n{table(values)}\n{END}{after}" if rest else page
    return {
        chart / "values.schema.json": json.dumps(chart_schema(values), indent=2) + "\n",
        chart / "README.md": written,
    }


def main() -> int:
    """Entry point; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write values.schema.json and tables of values.")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("charts", nargs="+", type=Path)
    options = parser.parse_args()
    old = []
    for chart in options.charts:
        if not (chart / "values.yaml").exists():
            continue
        for path, text in outputs(chart).items():
            if options.write:
                path.write_text(text)
            elif not path.exists() or path.read_text() != text:
                old.append(path)
    lines = [
        f"{path} is out of date: run .venv/bin/python tools/charts.py --write charts/*\n"
        for path in old
    ]
    sys.stdout.write("".join(lines))
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
