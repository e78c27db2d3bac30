"""`ringfence tenants`: questions about the tenant file."""

from __future__ import annotations

import click


@click.group()
def tenants() -> None:
    """Check the tenant file, and ask who a namespace would belong to."""
