"""The tenant file in force together with the grants that tenants agreed on, as recorded.

Workers ask for `config` at every step; the registrar's thread asks `moved` on its turns, so however
often a tenant changes its mind, only namespaces of who it changes are looked at, once a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from generators.tenants.consents import Consent, with_consents
from generators.tenants.model import TenantConfig


class RecordedConsents(Protocol):
    """The part of record.py's RecordWriter that is asked."""

    @property
    def consents(self) -> Mapping[str, tuple[Consent, ...]]:
        """Namespace -> what its tenant agreed to; the same object until that changes."""


class AgreedTenants:
    """`config` from any thread; `moved` from one."""

    def __init__(self, base: Callable[[], TenantConfig], ledger: RecordedConsents) -> None:
        self._base = base
        self._ledger = ledger
        self._made: tuple[TenantConfig, object, TenantConfig] | None = None
        self._told: TenantConfig | None = None

    @property
    def config(self) -> TenantConfig:
        """The same object while neither file nor consents change."""
        base, said = self._base(), self._ledger.consents
        made = self._made
        if made is None or made[0] is not base or made[1] is not said:
            made = self._made = (base, said, with_consents(base, said))
        return made[2]

    def moved(self) -> frozenset[str]:
        """Tenants that others may enter otherwise than when this was last asked; where the file is
        another one, whoever takes it looks at everything."""
        now, before = self.config, self._told
        self._told = now
        if before is None or before is now or before.digest != now.digest:
            return frozenset()
        return frozenset(
            name for name in now.tenants if now.consented(name) != before.consented(name)
        )
