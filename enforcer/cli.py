"""Commands of the node side."""

from __future__ import annotations

import click


@click.group()
def cli() -> None:
    """Commands of this package."""
