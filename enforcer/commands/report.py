"""`ringfence report`: one file for an auditor, resting on the proof."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.commands.options import UsageError
from enforcer.commands.prove import EXIT_NO, proof_of
from generators.commands.inputs import (
    config_option,
    kubeconfig_option,
    load_cluster,
    objects_option,
    one_source,
    strict_option,
)

if TYPE_CHECKING:
    from generators.kube.config import ApiServer

Json = Mapping[str, object]


@click.command()
@config_option
@objects_option
@kubeconfig_option
@click.option(
    "--proof",
    "proofs",
    multiple=True,
    metavar="FILE",
    help="What `ringfence prove --node NAME -o json` printed on a node; may be repeated.",
)
@strict_option
@click.option(
    "-o", "--output", type=click.Choice(["html", "json"]), default="html", show_default=True
)
@click.pass_context
def report(
    context: click.Context,
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    proofs: tuple[str, ...],
    strict: bool,
    output: str,
) -> None:
    """Write the report for an auditor: who may enter whom, proven for all packets.

    Names tenants with the reason of each namespace, every exception, what the kernels of nodes
    hold as far as --proof says, and what was not checked. Two reports of an unchanged cluster
    differ in their date only. Exits with 1 when a pair is open that the tenant file does not allow.
    """
    from enforcer.report.build import Evidence, build, is_sound
    from enforcer.report.page import page
    from generators.output import structured

    nodes = _read(proofs)
    live = one_source(files, kubeconfig)
    cluster = load_cluster(config_file, files, live)
    proof, assumed = proof_of(cluster, strict)
    if cluster.config is None:
        raise UsageError("there are no tenants to keep apart: give their file with -c FILE")
    asked = Evidence(cluster, cluster.config, proof, nodes, live is not None, assumed)
    found = build(asked, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    text = page(found) if output == "html" else structured(found, "json")
    click.echo(text, nl=False)
    if not is_sound(found):
        context.exit(EXIT_NO)


def _read(files: Iterable[str]) -> dict[str, Json]:
    """The proofs of nodes by the node's name."""
    import orjson

    found: dict[str, Json] = {}
    for file in files:
        try:
            said = orjson.loads(Path(file).read_bytes())
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}") from error
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{file}: {error}; {_WANTED}") from error
        if not isinstance(said, dict) or not isinstance(said.get("node"), str):
            raise UsageError(f"{file}: it names no node; {_WANTED}")
        found[said["node"]] = said
    return found


_WANTED = "give what `ringfence prove --node NAME -o json` printed"
