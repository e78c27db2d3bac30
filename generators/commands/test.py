"""`ringfence test`: whether manifests keep what a file of expectations says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.commands.inputs import (
    config_option,
    kubeconfig_option,
    load_cluster,
    objects_option,
    one_source,
)
from generators.output import TABLE, output_option, progress, structured, warn

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

EXIT_NO = 1


@click.command()
@click.argument("expectations", nargs=-1, required=True, metavar="FILE...")
@config_option
@objects_option
@kubeconfig_option
@output_option
@click.pass_context
def test(
    context: click.Context,
    expectations: tuple[str, ...],
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    output: str,
) -> None:
    """Check expected reachability: who must and must not reach whom.

    FILE is a file of expectations (kind ReachabilityTest), or a folder with some. Prints a line for
    each failure, with the rule that decided.
    """
    from generators.reachability.expectations import KIND, read_expectations, run

    live = one_source(files, kubeconfig)
    wanted = read_expectations(expectations)
    cluster = load_cluster(config_file, files, live)
    results = list(progress(run(cluster, wanted), len(wanted)))
    failed = sum(not result.ok for result in results)
    if output == TABLE:
        for result in results:
            if not result.ok:
                click.echo(f"FAIL {result}")
        click.echo(f"{len(results) - failed} passed, {failed} failed")
    else:
        summary = {"passed": len(results) - failed, "failed": failed}
        tests = [result.document() for result in results]
        click.echo(structured({"tests": tests, "summary": summary}, output), nl=False)
    if not results:
        shape = f"kind: {KIND}, tests: [{{from: ..., to: ..., expect: DROPPED}}]"
        warn([f"no test in {', '.join(expectations)}; write {shape}"])
    if failed or not results:
        context.exit(EXIT_NO)
