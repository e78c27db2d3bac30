"""`-o table|json|yaml|jsonpath=...`: the forms of every answer, the same bytes on every run.

Imports what is heavy only when something is printed.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from generators.documents.jsonpath import JsonPath

T = TypeVar("T")


TABLE = "table"
_TEMPLATES = ("jsonpath", "jsonpath-as-json", "jsonpath-file")
"""Forms with a template behind `=`, as kubectl has them."""


class Form(click.ParamType["str", "str"]):
    """One of some words, or a jsonpath with its template, which is read at once."""

    name = "form"

    def __init__(self, *words: str) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What `--help` shows."""
        return f"[{'|'.join(self.words)}|jsonpath=TEMPLATE]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The form as it was given; bad usage if there is no such form, or a bad template."""
        from generators.documents.jsonpath import JsonPathError

        if value in self.words:
            return value
        form, _, template = value.partition("=")
        if form not in _TEMPLATES:
            known = ", ".join([*self.words, *(f"{each}=..." for each in _TEMPLATES)])
            wrong = f'unable to match a printer for "{value}", allowed formats are: {known}'
            self.fail(wrong, param, ctx)
        if not template:
            self.fail("template format specified but no template given", param, ctx)
        try:
            _template(value)
        except (JsonPathError, OSError, ValueError) as error:
            self.fail(str(error), param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The words, and how a jsonpath begins."""
        found = [*self.words, *(f"{each}=" for each in _TEMPLATES)]
        return [CompletionItem(each) for each in found if each.startswith(incomplete)]


Command = Callable[..., None]


def form_option(*words: str) -> Callable[[Command], Command]:
    """`-o` of a command that has other forms than most; the first is the default."""
    return click.option(
        "-o",
        "--output",
        type=Form(*words),
        default=words[0],
        show_default=True,
        help="Form of the answer.",
    )


output_option = form_option(TABLE, "json", "yaml")


def _template(output: str) -> JsonPath:
    from generators.documents.jsonpath import parse

    form, _, text = output.partition("=")
    return parse(Path(text).read_text() if form == "jsonpath-file" else text)


def structured(document: object, output: str) -> str:
    """A document of plain values in a form for programs: JSON, YAML, or by a jsonpath."""
    if output.startswith("jsonpath"):
        template = _template(output)
        if output.startswith("jsonpath-as-json="):
            return structured(template.values(document), "json")
        return template.render(document)
    if output == "json":
        import orjson

        return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"
    from generators.documents.writing import to_yaml

    return to_yaml([document])


def warn(warnings: Iterable[str]) -> None:
    """Messages go to stderr, so that results stay clean."""
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, each column as wide as its widest cell, three spaces between."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def notes(sentences: Iterable[str]) -> None:
    """What a reader should know beside a result, to stderr."""
    for sentence in sentences:
        click.echo(f"note: {sentence}", err=True)


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """The items; on a terminal with a progress line once they take more than 2 seconds."""
    if not sys.stderr.isatty():
        yield from items
        return
    shown = time.monotonic() + 1
    for done, item in enumerate(items):
        yield item
        now = time.monotonic()
        if now > shown + 1:
            shown = now
            click.echo(f"\r{done + 1} of {total}", nl=False, err=True)
    click.echo("\r\x1b[K", nl=False, err=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """On a terminal says what is waited for and how long so far, once that takes over 2 seconds."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()

    def show() -> None:
        began = time.monotonic()
        while not done.wait(2 if time.monotonic() - began < 1 else 1):
            click.echo(f"\r\x1b[K{what}: {time.monotonic() - began:.0f} s", nl=False, err=True)

    shown = threading.Thread(target=show, daemon=True)
    shown.start()
    try:
        yield
    finally:
        done.set()
        shown.join()
        click.echo("\r\x1b[K", nl=False, err=True)


watch_option = click.option(
    "-w", "--watch", is_flag=True, help="After the list, print rows as they change, until Ctrl-C."
)
WATCH_SECONDS = 1.0


def show(output: str, watch: bool, text: Callable[[], str]) -> None:
    """Print a table or a document; with --watch also what changes in the table, until interrupted.

    `text` asks anew each time it is called.
    """
    if not watch:
        click.echo(text(), nl=False)
        return
    if output not in (TABLE, "wide", "name"):
        raise click.UsageError("-w prints rows; leave out -o json and its like")
    for piece in changing(text, lambda: time.sleep(WATCH_SECONDS)):
        click.echo(piece, nl=False)


def changing(text: Callable[[], str], pause: Callable[[], None]) -> Iterator[str]:
    """A text, and after each pause its lines that are new; only a line's words count."""
    seen: set[tuple[str, ...]] = set()
    while True:
        lines = {tuple(line.split()): line for line in text().splitlines(keepends=True)}
        if new := "".join(line for words, line in lines.items() if words not in seen):
            yield new
        seen = set(lines)
        pause()


PIPE_SCREEN = (100, 46)
"""Columns and lines of answers when there is no terminal to ask."""


def screen() -> tuple[int, int]:
    """Columns and lines of the terminal that is written to; the same everywhere else."""
    if not sys.stdout.isatty():
        return PIPE_SCREEN
    size = shutil.get_terminal_size(PIPE_SCREEN)
    return size.columns, size.lines


def on_terminal() -> bool:
    """Whether people read along: then answers may be coloured, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
