"""`--kubeconfig` and `--context`: which API server a command means, by kubectl's rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

F = TypeVar("F", bound=Callable[..., Any])
RULES = "KUBECONFIG, then ~/.kube/config, then the pod's ServiceAccount"


def cluster_options(what: str) -> Callable[[F], F]:
    """Both options; the command gets one argument `kubeconfig`, None where neither was given."""

    def decorate(command: F) -> F:
        @click.option("--kubeconfig", metavar="FILE", help=f"{what} Default: {RULES}.")
        @click.option(
            "--context",
            "kube_context",
            metavar="NAME",
            help="Context of the kubeconfig, instead of its current one.",
        )
        @wraps(command)
        def called(
            *arguments: object,
            kubeconfig: str | None,
            kube_context: str | None,
            **options: object,
        ) -> object:
            from generators.kube.config import chosen

            wanted: ApiServer = chosen(kubeconfig, kube_context)
            return command(*arguments, kubeconfig=wanted, **options)

        return called  # type: ignore[return-value]  # click reads the options from it

    return decorate
