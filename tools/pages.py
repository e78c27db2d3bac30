"""What mkdocs adds to the pages of docs/: the picture, and reference made from code and schema.

Named in mkdocs.yml; mkdocs calls the functions by their names. Links that lead out of docs/ become
the file's name, since the site has no such page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from subprocess import run
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from rich.console import Console
from rich.text import Text

from generators.cli import root
from generators.tenants.jsonschema import tenant_file_schema

CHECKOUT = Path(__file__).parents[1]
EXAMPLE = "examples/two-clients"
PICTURED = (
    f"ringfence matrix -c {EXAMPLE}/tenants.yaml -f {EXAMPLE}/cluster.yaml --by tenant --port 80"
)
COLUMNS = 86
_OUTSIDE = re.compile(r"\[([^]]+)\]\((\.\./[^)]+)\)")
_HOME = re.compile(r"\.\./README\.md")
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the picture that are made here."""
    made = {
        "picture.svg": picture(),
        "reference/commands.md": commands_page(),
        "reference/tenant-file-schema.md": schema_page(),
        "reference/changelog.md": (CHECKOUT / "CHANGELOG.md").read_text(),
        "reference/security.md": _for_reference((CHECKOUT / "SECURITY.md").read_text()),
    }
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of the site name their file instead."""
    return _OUTSIDE.sub(_named, _HOME.sub("index.md", markdown))


def picture() -> str:
    """The command and what it prints, as a terminal shows it."""
    environment = os.environ | {"COLUMNS": str(COLUMNS)}
    command = [str(CHECKOUT / ".venv/bin/ringfence"), *PICTURED.split()[1:]]
    done = run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text(f"$ {PICTURED}", style="bold"))
    for line in done.stdout.splitlines():
        shown = Text(line)
        shown.highlight_words(["✓"], style="green")
        shown.highlight_words(["✗"], style="bold red")
        console.print(shown)
    svg = console.export_svg(title="ringfence", unique_id="ringfence")
    # Rich names a font on a server; the reader's own does as well.
    return _FONTS.sub("", svg).replace("Fira Code, monospace", "monospace")


def commands_page() -> str:
    """Every command with its help, as the terminal has it."""
    lines = ["# Commands", "", "Made from the command itself: each as `--help` prints it.", ""]
    for name, command, context in _commands("ringfence", root(), None):
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(
    name: str, command: click.Command, above: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(
        command, parent=above, info_name=name.split()[-1], terminal_width=100, max_content_width=100
    )
    yield name, command, context
    if isinstance(command, click.Group):
        for inner, below in sorted(command.commands.items()):
            if not below.hidden:
                yield from _commands(f"{name} {inner}", below, context)


def schema_page() -> str:
    """Every field of the tenant file; what they mean is docs/tenant-file.md's."""
    schema = tenant_file_schema()
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in _fields("", schema)]
    return "\n".join(
        [
            "# Schema of the tenant file",
            "",
            "What may stand where; what it means is in [the tenant file](../tenant-file.md).",
            "`ringfence tenants schema` prints this as JSON Schema, for editors.",
            "",
            "| field | type | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def _fields(path: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, below in schema.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        kind = str(below.get("type", ""))
        if name in schema.get("required", ()):
            kind += ", required"
        if choices := below.get("enum"):
            kind += f": {', '.join(f'`{choice}`' for choice in map(str, choices))}"
        text = str(below.get("description", "")).partition(":")[2].strip().replace("|", "\\|")
        yield at, kind, text
        yield from _fields(at, below)
        items = below.get("items", {})
        if "properties" in items:
            yield from _fields(f"{at}[]", items)


def _for_reference(text: str) -> str:
    """Links of a page at the root, seen from the folder of the reference."""
    return text.replace("](docs/", "](../")


def _named(link: re.Match[str]) -> str:
    text, target = link[1], link[2].removeprefix("../").partition("#")[0]
    return text if text.strip("`") == target else f"{text} (`{target}`)"
