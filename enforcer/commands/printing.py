"""Answers of the agent on the terminal: tables, or JSON and YAML as the agent gave them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import click

from generators.output import TABLE, form_option, structured

no_headers_option = click.option("--no-headers", is_flag=True, help="Omit the table's header.")
document_option = form_option("json", "yaml")
"""Of answers that are too deep for a table."""

Json = Mapping[str, object]


def emit(output: str, document: object, table: Callable[[], str]) -> None:
    """Print an answer in the form that was asked for."""
    click.echo(rendered(output, document, table), nl=False)


def rendered(output: str, document: object, table: Callable[[], str]) -> str:
    """An answer in the form that was asked for."""
    return table() if output == TABLE else structured(document, output)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, headers: bool) -> str:
    """Columns under their heads; lists in a cell are joined by commas, nothing is a dash."""
    from enforcer.commands.show import columns

    listed = [[cell(value) for value in row] for row in rows]
    return columns([*([list(heads)] if headers else []), *listed])


def cell(value: object) -> str:
    """A value in a table."""
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)


def picked(items: Iterable[Json], keys: Sequence[str]) -> Iterable[Sequence[object]]:
    """Some fields of objects, as rows."""
    return ([item.get(key) for key in keys] for item in items)
