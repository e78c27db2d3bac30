"""Whether a policy of Cilium's kinds is valid, as its status says it to people: condition Valid.

The words are Cilium's own where there are any. What is invalid here is told with field and fix.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from generators.documents.json import Document, Key, mapping, mappings, meta_of, text
from generators.errors import InputError
from generators.kube.resources import Resource
from generators.manifests import parse_object
from generators.objects import Origin

VALID = "Valid"
SUCCEEDED = "Policy validation succeeded"
REASON = "InvalidPolicy"
CLOSED = "until it is corrected it allows nothing to the pods that it selects"
API = Origin("api-server")


@dataclass(frozen=True, slots=True)
class JudgedPolicy:
    """A policy of an API server, and what its status says of it now."""

    uid: str
    problem: str
    """Empty for a valid one."""
    said: tuple[str, str, str] = ("", "", "")
    """Status, reason and message of its condition."""
    since: str = ""
    """When that status began."""

    @property
    def wanted(self) -> tuple[str, str, str]:
        """What it should say."""
        if not self.problem:
            return "True", "", SUCCEEDED
        return "False", REASON, f"{self.problem} ({CLOSED})"


def judge(document: Document) -> JudgedPolicy:
    """An object as an API server sends it."""
    conditions = mappings(mapping(document, "status"), "conditions")
    now = next((c for c in conditions if text(c, "type") == VALID), {})
    kept = {k: v for k, v in document.items() if k != "status"}
    problem = ""
    try:
        parse_object(kept, API)
    except InputError as error:
        problem = error.brief()
    said = text(now, "status"), text(now, "reason"), text(now, "message")
    return JudgedPolicy(meta_of(document).uid, problem, said, text(now, "lastTransitionTime"))


def status_of(resource: Resource, key: Key, judged: JudgedPolicy, now: str) -> Document | None:
    """The status to apply, as of `now`; None where the object says it already."""
    status, reason, message = judged.wanted
    if judged.said == judged.wanted:
        return None
    since = judged.since if judged.said[0] == status and judged.since else now
    condition = {"type": VALID, "status": status, "message": message, "lastTransitionTime": since}
    home = {"namespace": key.namespace} if resource.namespaced else {}
    return {
        "metadata": {"name": key.name, **home, "uid": judged.uid},
        "status": {"conditions": [condition | ({"reason": reason} if reason else {})]},
    }


class NamespaceTurns:
    """What has to be looked at, each once: of one namespace after the other, so that one with many
    policies does not make the others wait.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[tuple[Resource, Key], None]] = {}
        self._order: deque[str] = deque()

    def add(self, resource: Resource, key: Key) -> None:
        """This policy, in its turn."""
        if key.namespace not in self._waiting:
            self._order.append(key.namespace)
        self._waiting.setdefault(key.namespace, {})[resource, key] = None

    def take(self) -> tuple[Resource, Key] | None:
        """The next one."""
        if not self._order:
            return None
        namespace = self._order.popleft()
        waiting = self._waiting[namespace]
        found = next(iter(waiting))
        del waiting[found]
        if waiting:
            self._order.append(namespace)
        else:
            del self._waiting[namespace]
        return found

    def clear(self) -> None:
        """Nothing."""
        self._waiting.clear()
        self._order.clear()
