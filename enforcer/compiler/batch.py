"""What has to be looked at because of some changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from enforcer.policy.changes import BlocksChange
from generators.objects import Pod


@dataclass(slots=True)
class Batch:
    """What has to be looked at because of some changes."""

    local: dict[str, None] = field(default_factory=dict)
    anew: dict[str, None] = field(default_factory=dict)
    """Those of them that are another pod of the same name."""
    pods: dict[str, Pod | None] = field(default_factory=dict)
    """Pods that changed, as they were before."""
    order: tuple[str, ...] | None = None
    blocks: list[BlocksChange] = field(default_factory=list)
    calm: bool = False
    """Everything that was wanted before is in force."""

    def look_at(self, pods: Iterable[str]) -> None:
        """These local pods may be judged by other groups."""
        self.local.update(dict.fromkeys(pods))
