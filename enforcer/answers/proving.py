"""`ringfence prove --node`: this node's policies, compiled entries and maps, against one another.

Compiled anew from the agent's inputs, so that neither the agent's own tables nor what it did to
them in its life are trusted. The maps are copied before anything is decided or replayed: no packet
is sent, nothing that the programs count or remember changes.
"""

from __future__ import annotations

from collections.abc import Callable

from enforcer.agent.state import NodeState
from enforcer.answers.datapath import differences
from enforcer.answers.endpoints import not_enforced
from enforcer.answers.request import Json, NotHere
from enforcer.compiler.compile import compile_tables
from enforcer.datapath.engine import CompiledNode
from enforcer.datapath.maps import Maps
from enforcer.datapath.testrun import loaded
from enforcer.policy.tables import Tables
from enforcer.proof.prove import ENTRIES, MAPS, Proof, Prover
from enforcer.proof.telling import document
from generators.cluster import Cluster
from generators.errors import RingfenceError
from generators.reachability.verdicts import Verdict

READINGS = 3
"""While the node changes, what is found may be the change itself: so often it is looked at."""
MOST_DRIFT = 100


def prove(wanted: str, state: Callable[[], NodeState], maps: Maps, node: str) -> Json:
    """The answer for node `node`, which is refused where another one is `wanted`."""
    if wanted and wanted != node:
        raise NotHere(f"this is the agent of node {node}; ask that of node {wanted} on its node")
    readings = 0
    while True:
        before, readings = state(), readings + 1
        found = _decided(before, maps, node)
        sound = found["apart"] and found["agrees"]
        if sound or state() is before or readings == READINGS:
            return found


def _decided(state: NodeState, maps: Maps, node: str) -> Json:
    cluster = state.cluster()
    if cluster is None:
        raise NotHere("the agent has not read its inputs yet")
    if cluster.config is None:
        raise NotHere("there are no tenants to keep apart: the agent runs without a tenant file")
    interfaces = {pod.key: ifindex for ifindex, pod in state.pods.items()}
    compiled = compile_tables(cluster, node, interfaces, limits=maps.capacity())
    kernel = maps.read()
    prover = Prover(cluster)
    prover.decide(
        node, {ENTRIES: CompiledNode(compiled, interfaces), MAPS: CompiledNode(kernel, interfaces)}
    )
    proof = prover.proof()
    replayed, why = _replayed(proof, kernel, interfaces)
    drift = differences(kernel, state.tables)
    unguarded = [each for each in not_enforced(state) if _is_kept(cluster, str(each["namespace"]))]
    found = document(
        proof,
        cluster,
        replayed,
        {"node": node, "tenantFile": cluster.config.digest, "notReplayed": why},
    )
    return {
        **found,
        "apart": proof.apart and not unguarded,
        "agrees": proof.agrees and not drift,
        "notEnforced": unguarded,
        "drift": drift[:MOST_DRIFT],
        "drifted": len(drift),
    }


def _is_kept(cluster: Cluster, namespace: str) -> bool:
    return namespace in cluster.tenants


def _replayed(
    proof: Proof, kernel: Tables, interfaces: dict[str, int]
) -> tuple[Verdict | None, str | None]:
    """What the real programs make of the smallest counterexample, on a copy of the maps."""
    if not proof.counterexamples:
        return None, None
    smallest = proof.counterexamples[0]
    try:
        with loaded() as programs:
            ifindex = interfaces.get(smallest.subject, 0)
            return programs.verdict(kernel, ifindex, smallest.packet), None
    except RingfenceError as error:
        return None, str(error)
