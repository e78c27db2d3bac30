"""The filter flags of `ringfence observe`, and `--not`, which negates the flag after it.

click does not report the order of flags, so `--not --pod x` is read as `--not-pod x`, a hidden
flag, before click sees it; and the flags are made when the command is used, so that the rest of the
command line does not load what they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import click

from enforcer.commands.options import UsageError

if TYPE_CHECKING:
    from enforcer.observe.filters import FlowCondition

NOT = "--not"


class FilteredCommand(click.Command):
    """A command with filters."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the filters."""
        own = super().get_params(ctx)
        return [*own[:-1], *_filters(), *own[-1:]]  # the last one is --help

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Tie each --not to its flag, refuse what our flows do not carry, then parse."""
        return super().parse_args(ctx, _tied(_checked(args)))


def taken(context: click.Context) -> list[FlowCondition]:
    """The conditions that the flags of a call make."""
    from enforcer.observe.filters import FILTERS, condition

    found = []
    for flag in FILTERS:
        for prefix in ("", "not-"):
            values: Sequence[str] = context.params[f"{prefix}{flag}".replace("-", "_")]
            if values:
                found.append(condition(flag, values, negated=bool(prefix)))
    return found


@cache
def _filters() -> tuple[click.Option, ...]:
    from enforcer.observe.filters import FILTERS

    return tuple(
        click.Option(
            [f"--{prefix}{item.flag}"],
            multiple=True,
            hidden=bool(prefix),
            metavar=item.metavar,
            help=item.text,
        )
        for item in FILTERS.values()
        for prefix in ("", "not-")
    )


def _checked(args: list[str]) -> list[str]:
    from enforcer.observe.filters import REFUSED

    for argument in args:
        flag = argument.partition("=")[0].removeprefix("--")
        if argument.startswith("--") and flag in REFUSED:
            raise UsageError(f"--{flag}: {REFUSED[flag]}")
    return args


def _tied(args: Sequence[str]) -> list[str]:
    from enforcer.observe.filters import FILTERS

    found: list[str] = []
    rest = iter(args)
    for argument in rest:
        if argument != NOT:
            found.append(argument)
            continue
        flag = next(rest, "")
        if flag.partition("=")[0].removeprefix("--") not in FILTERS:
            raise UsageError(f'{NOT} negates the filter after it, and "{flag}" is none')
        found.append(f"{NOT}-{flag.removeprefix('--')}")
    return found
