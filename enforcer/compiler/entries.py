"""The entries of policy groups: what each group allows each peer, in the ledger.

The compiler calls `follow` once for all groups, identities and prefixes that its changes moved. A
group that stays only gets the entries of peers that are new, and a peer that stays only those of
groups that are new; peers that are gone take all their entries along. Past the ceiling nothing is
filled: such groups wait for a `follow` that finds room.
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.policy.blocks import Lists, Net
from enforcer.policy.buckets import EMPTY
from enforcer.policy.groups import CIDR_PLACES
from enforcer.policy.peers import Population, Settled
from enforcer.policy.prefixes import Prefixes, Ranges, Tries
from enforcer.policy.rulebook import Group, Groups, Turnover
from enforcer.policy.tables import CidrKey, cidr_peer
from enforcer.writes.pending import PendingTables


class GroupEntries:
    """Buckets and prefixes in the ledger."""

    def __init__(
        self,
        ledger: PendingTables,
        groups: Groups,
        population: Population,
        tries: Tries,
        ceiling: int,
    ) -> None:
        self._ledger = ledger
        self._groups = groups
        self._population = population
        self._tries = tries
        self._ceiling = ceiling
        self._unfilled: dict[Group, None] = {}

    def follow(self, turnover: Turnover, settled: Settled, ranges: Ranges, *, calm: bool) -> None:
        """The entries of groups, for peers and groups that came or went.

        `calm`: everything that was wanted before is in force.
        """
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
        for trie, cidr, net in tuple(self._cut(ranges, calm=calm)):
            had = (self._groups.by_number[n] for n, _ in self._having(cidr))
            for group in dict.fromkeys((*had, *self._groups.using(trie.holding(net)))):
                mine = group.definition.tenant == trie.tenant and group not in fresh
                if mine and self._has_room(group):
                    self._put_lists(group, cidr, trie.lists(cidr))
        for group in fresh:
            self._fill(group)

    def _cut(self, ranges: Ranges, *, calm: bool) -> Iterable[tuple[Prefixes, int, Net]]:
        """Bring all tries up to date; the numbers that mean something else in them."""
        tenants = {entry.tenant for entry in self._ledger.endpoints.now.values()}
        for trie, trimmed in self._tries.change(tenants, ranges, calm=calm):
            for prefix in trimmed.removed:
                self._ledger.put_cidr(CidrKey(trie.tenant, prefix), None)
            for cidr in trimmed.emptied:
                for number, peer in self._having(cidr):
                    self._ledger.put_bucket(number, peer, EMPTY)
            for prefix in trimmed.put:
                self._ledger.put_cidr(CidrKey(trie.tenant, prefix), trie.entry(prefix))
            for cidr, net in trimmed.named.items():
                yield trie, cidr, net

    def _fill(self, group: Group) -> None:
        """A new group's entries, for all peers that it means."""
        put, definition = self._ledger.put_bucket, group.definition
        for peer, bucket in definition.fixed().items():
            put(group.number, peer, bucket)
        for identity in self._population.meant_by(definition.words):
            if not self._has_room(group):
                return
            put(group.number, identity.number, definition.for_pods(identity.pods))
        trie = self._tries.of(definition.tenant)
        for cidr, lists in trie.named_by(definition.lists):
            if not self._has_room(group):
                return
            self._put_lists(group, cidr, lists)

    def _having(self, cidr: int) -> tuple[tuple[int, int], ...]:
        """The groups that have entries for a block, with the peer that it is to them."""
        peers = [cidr_peer(cidr, place) for place in CIDR_PLACES]
        return tuple((n, peer) for peer in peers for n in self._ledger.groups_of.get(peer, ()))

    def _put_lists(self, group: Group, cidr: int, lists: Lists) -> None:
        """The entries of a group for a block that these lists hold."""
        for place in group.definition.places:
            entries = group.definition.for_lists(lists, place)
            self._ledger.put_bucket(group.number, cidr_peer(cidr, place), entries)

    def _has_room(self, group: Group) -> bool:
        """Whether a group can be filled on; else it is one to come back to."""
        if self._ledger.exact + self._ledger.ranged <= self._ceiling:
            return True
        self._unfilled[group] = None
        return False
