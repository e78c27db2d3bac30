"""The writes from one value to another, for who has whole tables and no compiler: a matrix of
questions to the kernel, a bench. In the order in which an agent would write them.
"""

from __future__ import annotations

from collections.abc import Mapping

from enforcer.policy.identity import Numbering, Registry
from enforcer.policy.tables import CAPACITY, MapWrite, Table, Tables
from enforcer.writes import capacity, tight, transition
from enforcer.writes.pending import PendingTables


def replacing(
    current: Tables, desired: Tables, limits: Mapping[Table, int] = CAPACITY
) -> tuple[MapWrite, ...]:
    """The writes that turn `current` into `desired`; MapOverflow if no order finds room."""
    ledger = PendingTables.of(desired)
    ledger.resync(current)
    known = [Registry.following(tables) for tables in (current, desired)]
    identities = Numbering(max(each.identities.next for each in known))
    blocks = Numbering(max(each.cidrs.next for each in known))
    writes = transition.writes(ledger, identities.fresh, blocks.fresh)
    if capacity.overflows(ledger, writes, limits):
        return tight.fitting(ledger, limits)
    return writes
