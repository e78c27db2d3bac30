"""What found no room in a map, in the log: once when it begins, and once when it ends."""

from __future__ import annotations

import logging

from enforcer.agent.state import NodeState
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")


def report(before: NodeState, after: NodeState) -> None:
    """What is newly closed for lack of room, and what no longer is."""
    for refusal in after.refused:
        if refusal not in before.refused:
            event(
                log,
                "policy_without_room",
                logging.ERROR,
                policy=refusal.policy,
                direction=refusal.direction.value,
                tenant=refusal.tenant,
                map=refusal.table.value,
                needs=refusal.needs,
                budget=refusal.budget,
                room=refusal.room,
            )
    policies = {str(refusal) for refusal in after.refused}
    for name, why in after.excess.items():
        if name not in before.excess and why not in policies:
            event(log, "without_room", logging.ERROR, what=name, error=why)
    for name in before.excess:
        if name not in after.excess:
            event(log, "room_found", what=name)
