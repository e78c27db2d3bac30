"""The entries of policy groups: what each group says of each peer, in the ledger.

The compiler calls `follow` once for all groups, identities and prefixes that its changes moved.
What may surprise: a group that stays only gets the entries of peers that are new, and a peer that
stays only those of groups that are new; whoever is gone takes all of its entries along. Past the
ceiling nothing is filled: such groups wait for a `follow` that finds room.
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.groups import EMPTY
from enforcer.ledger import Ledger
from enforcer.population import Population, Settled
from enforcer.prefixes import Prefixes
from enforcer.rulebook import Group, Groups, Turnover
from enforcer.tables import PEER_CIDR
from generators.objects import IPBlock


class Filling:
    """Buckets and prefixes in the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        groups: Groups,
        population: Population,
        prefixes: Prefixes,
        ceiling: int,
    ) -> None:
        self._ledger = ledger
        self._groups = groups
        self._population = population
        self._prefixes = prefixes
        self._ceiling = ceiling
        self._unfilled: dict[Group, None] = {}

    def follow(self, turnover: Turnover, settled: Settled, pod_cidrs: tuple[str, ...]) -> None:
        """The entries of groups, for peers and groups that came or went."""
        put = self._ledger.put_bucket
        fresh = dict.fromkeys((*turnover.added, *self._unfilled))
        self._unfilled = {}
        for group in turnover.removed:
            fresh.pop(group, None)
            for peer in tuple(self._ledger.peers_of.get(group.number, ())):
                put(group.number, peer, EMPTY)
        for gone in settled.removed:
            for number in tuple(self._ledger.groups_of.get(gone.number, ())):
                put(number, gone.number, EMPTY)
        for identity in settled.added:
            for group in self._groups.using(identity.pods.words):
                if self._has_room(group):
                    put(group.number, identity.number, group.definition.for_pods(identity.pods))
        for prefix, cidr in self._cut(turnover, pod_cidrs):
            for group in self._groups.using(self._prefixes.held(prefix)):
                if group not in fresh and self._has_room(group):
                    held = self._prefixes.held(prefix)
                    put(group.number, PEER_CIDR | cidr, group.definition.for_block(held))
        for group in fresh:
            self._fill(group)

    def _cut(self, turnover: Turnover, pod_cidrs: tuple[str, ...]) -> Iterable[tuple[str, int]]:
        """Bring prefixes up to date; those that are new, with their ids."""
        trimmed = self._prefixes.change(
            (word for word in turnover.new_words if isinstance(word, IPBlock)),
            (word for word in turnover.old_words if isinstance(word, IPBlock)),
            pod_cidrs,
        )
        for cidr in trimmed.removed.values():
            for number in tuple(self._ledger.groups_of.get(PEER_CIDR | cidr, ())):
                self._ledger.put_bucket(number, PEER_CIDR | cidr, EMPTY)
        if trimmed.added or trimmed.removed or trimmed.reflagged:
            entries = self._prefixes.entries()
            for prefix in (*entries, *trimmed.removed):
                self._ledger.cidrs.put(prefix, entries.get(prefix))
        return [(prefix, self._prefixes.cidr(prefix)) for prefix in trimmed.added]

    def _fill(self, group: Group) -> None:
        """A new group's entries, for all peers that it means."""
        put, definition = self._ledger.put_bucket, group.definition
        for peer, bucket in definition.fixed().items():
            put(group.number, peer, bucket)
        for identity in self._population.meant_by(definition.words):
            if not self._has_room(group):
                return
            put(group.number, identity.number, definition.for_pods(identity.pods))
        blocks = frozenset(word for word in definition.words if isinstance(word, IPBlock))
        for prefix in self._prefixes.within(blocks):
            if not self._has_room(group):
                return
            peer = PEER_CIDR | self._prefixes.cidr(prefix)
            put(group.number, peer, definition.for_block(self._prefixes.held(prefix)))

    def _has_room(self, group: Group) -> bool:
        """Whether a group can be filled on; else it is one to come back to."""
        if self._ledger.exact + self._ledger.ranged <= self._ceiling:
            return True
        self._unfilled[group] = None
        return False
