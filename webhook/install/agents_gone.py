"""Whether an uninstall, or an upgrade without agents, would leave something on the nodes.

Called by `ringfence controller agents-gone`, which the chart runs before either. What agents leave
behind acts on without them: programs enforce what was known last, and the CNI plugin refuses the
pods of tenants for as long as no agent answers it. Only a roll-out of `ringfence enforcer
uninstall` takes both away, and only the live DaemonSet says whether that happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from generators.documents.json import Document, integer, mapping, mappings
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import DAEMON_SETS
from webhook.rbac import AGENTS

REMOVING = ["enforcer", "uninstall"]


class Agents(Enum):
    """How far agents have left the nodes."""

    RUNNING = "running"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class AgentsReport:
    """What the DaemonSet says; `done` of `nodes` have been cleaned while agents leave."""

    agents: Agents
    done: int = 0
    nodes: int = 0

    def told(self, namespace: str, first: Sequence[str]) -> str:
        """For people; `first`: the commands that make agents leave."""
        if self.agents is Agents.GONE:
            return "no agents on the nodes"
        owner = f"DaemonSet {namespace}/{AGENTS}"
        if self.agents is Agents.LEAVING:
            return (
                f"{owner} has cleaned {self.done} of {self.nodes} nodes; delete Nodes that will "
                "not come back, and try again after\n"
                f"  kubectl rollout status --namespace {namespace} daemonset/{AGENTS}"
            )
        commands = ":" + "".join(f"\n  {command}" for command in first) if first else ""
        return (
            f"{owner} still runs agents: without them, their CNI plugin refuses the pods of "
            "tenants, and their programs go on enforcing what was known last; take both from the "
            f"nodes first, then try again{commands}"
        )


def look(client: Client, namespace: str) -> AgentsReport:
    """Ask the API server."""
    try:
        return judge(client.get(DAEMON_SETS, AGENTS, namespace))
    except NotFound:
        return AgentsReport(Agents.GONE)


def judge(daemon_set: Document) -> AgentsReport:
    """Agents are gone when a pod that cleaned its node is ready on every node."""
    if not _removes(daemon_set):
        return AgentsReport(Agents.RUNNING)
    status = mapping(daemon_set, "status")
    generation = integer(mapping(daemon_set, "metadata"), "generation") or 0
    nodes, updated, available = (
        integer(status, key) or 0
        for key in ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable")
    )
    # Both counts: a pod of before is available without having cleaned anything.
    done = min(updated, available)
    seen = (integer(status, "observedGeneration") or 0) >= generation
    agents = Agents.GONE if seen and done >= nodes else Agents.LEAVING
    return AgentsReport(agents, done if seen else 0, nodes)


def _removes(daemon_set: Document) -> bool:
    pod = mapping(mapping(mapping(daemon_set, "spec"), "template"), "spec")
    arguments = (container.get("args") for container in mappings(pod, "initContainers"))
    return any(isinstance(words, list) and words[:2] == REMOVING for words in arguments)
