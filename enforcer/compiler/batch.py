"""What has to be looked at because of some changes, and where it is noted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from enforcer.policy.changes import BlocksChange
from generators.objects import Pod

T = TypeVar("T")


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


def put(values: dict[str, T], key: str, value: T | None) -> None:
    """A value is this now; None: it is gone."""
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def keep_listed(
    index: dict[str, dict[str, None]], namespace: str, key: str, *, listed: bool
) -> None:
    """Whether a key is listed under its namespace; one without any key is not in the index."""
    if listed:
        index.setdefault(namespace, {})[key] = None
    elif namespace in index:
        index[namespace].pop(key, None)
        if not index[namespace]:
            del index[namespace]


def as_peer(pod: Pod | None) -> object:
    """All that others can tell of a pod."""
    if pod is None or pod.host_network or pod.terminal:
        return None
    return pod.labels, pod.ips, pod.ports, pod.created, pod.service_account
