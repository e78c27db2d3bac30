"""`ringfence prove`: that tenants are apart, for all packets, or a packet that shows otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.answers.control import DEFAULT_RUN_DIR
from enforcer.commands.options import UsageError, ask, run_dir_option
from enforcer.commands.printing import emit
from generators.commands.inputs import (
    assumed_of,
    config_option,
    kubeconfig_option,
    load_cluster,
    objects_option,
    one_source,
    strict_option,
)
from generators.output import notes, output_option, progress

if TYPE_CHECKING:
    from enforcer.proof.prove import Counterexample, Proof
    from generators.cluster import Cluster
    from generators.kube.config import ApiServer
    from generators.reachability.verdicts import Verdict

EXIT_NO = 1
PATIENCE = 120.0
"""Seconds that an agent may think."""


@click.command()
@config_option
@objects_option
@kubeconfig_option
@click.option("--node", metavar="NAME", help="Ask the agent of this node: its kernel's maps too.")
@run_dir_option
@strict_option
@output_option
@click.pass_context
def prove(
    context: click.Context,
    config_file: Path | None,
    files: tuple[str, ...],
    kubeconfig: ApiServer,
    node: str | None,
    run_dir: Path,
    strict: bool,
    output: str,
) -> None:
    """Prove that tenants are apart, for all packets.

    Nothing may enter a tenant but what the tenant file permits: its own pods, shared components,
    grants, what comes from outside. It is decided for policies and for the entries compiled from
    them, on an agent's node for what the kernel holds too; and all of them have to say the same of
    every packet. Exits with 1 where they do not, with the smallest packet that shows it.
    """
    if node is not None or run_dir != DEFAULT_RUN_DIR:
        if files or config_file is not None or kubeconfig is not None:
            raise UsageError("--node uses the agent's own inputs; leave out -f, -c, --kubeconfig")
        found = ask(run_dir, {"command": "prove", "node": node, "timeout": PATIENCE})
    else:
        cluster = load_cluster(config_file, files, one_source(files, kubeconfig))
        found = _decided(cluster, strict)
    emit(output, found, lambda: "".join(f"{line}\n" for line in _lines(found)))
    if not (found["apart"] and found["agrees"]):
        context.exit(EXIT_NO)


def _lines(found: dict[str, object]) -> Iterator[str]:
    from enforcer.proof.telling import lines

    return lines(found)


def _decided(cluster: Cluster, strict: bool) -> dict[str, object]:
    from enforcer.proof.telling import document

    proof, assumed = proof_of(cluster, strict)
    more = {"assumptions": list(assumed)}
    return dict(document(proof, cluster, _replayed(cluster, proof), more))


def proof_of(cluster: Cluster, strict: bool) -> tuple[Proof, tuple[str, ...]]:
    """The proof of a whole cluster, and what it takes for granted."""
    from enforcer.proof.prove import prove_entries

    if cluster.config is None:
        raise UsageError("there are no tenants to keep apart: give their file with -c FILE")
    assumed = assumed_of(cluster, (*(pod.key for pod in cluster.pods), "ip/"), strict)
    return prove_entries(cluster, lambda nodes: progress(nodes, len(nodes))), assumed


def _replayed(cluster: Cluster, proof: Proof) -> Verdict | None:
    """What the real programs make of the smallest counterexample, with the entries of its node."""
    if not proof.counterexamples:
        return None
    from enforcer.datapath.engine import compile_node
    from enforcer.datapath.testrun import loaded
    from generators.errors import MachineLacks

    smallest: Counterexample = proof.counterexamples[0]
    compiled = compile_node(cluster, smallest.node)
    try:
        with loaded() as kernel:
            return kernel.verdict(
                compiled.tables, compiled.interfaces[smallest.subject], smallest.packet
            )
    except MachineLacks as lacking:
        notes([f"not replayed in a kernel: {lacking}"])
        return None
