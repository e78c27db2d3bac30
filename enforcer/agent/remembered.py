"""Policies that hold longer than they exist: recently deleted ones, and a file for a new agent.

Used by the agent. Only one question needs them: a policy that is deleted while its namespace
terminates stays until the namespace's last pod here is gone; but the two may arrive in the wrong
order, and both may happen while no agent runs. An entry of the file is believed only for the
namespace with the same UID, and only while that one terminates; anything else is what the API
server says it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import orjson

from enforcer.policy.changes import InputChange, NamespaceChange, PolicyChange
from generators.errors import InputError
from generators.manifests import parse_object, policy_document
from generators.objects import (
    SERVICE_ACCOUNT,
    Direction,
    Namespace,
    NetworkPolicy,
    Origin,
    PolicyKind,
    Selector,
)
from generators.process.files import StateFile
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")
FILE = "policies.json"
LATELY = 10.0
"""Seconds by which one watch may be behind another."""


class Lately:
    """Policies that were deleted a moment ago.

    Namespaces and policies are two watches, and the deletion of a policy may arrive before the
    termination of its namespace. Then it is put back, to be deleted as it should be: after the last
    pod.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._gone: dict[str, tuple[float, NetworkPolicy]] = {}

    def follow(
        self, changes: tuple[InputChange, ...], known: Mapping[str, NetworkPolicy]
    ) -> tuple[InputChange, ...]:
        """The changes, with what has to be put back; `known`: policies before them."""
        now, dying = self._clock(), set[str]()
        for change in changes:
            match change:
                case PolicyChange(key, None) if key in known:
                    self._gone[key] = (now, known[key])
                case PolicyChange(key, _):
                    self._gone.pop(key, None)
                case NamespaceChange(name, namespace) if namespace and namespace.terminating:
                    dying.add(name)
        if not self._gone:
            return changes
        self._gone = {k: found for k, found in self._gone.items() if now - found[0] < LATELY}
        back = [policy for _, policy in self._gone.values() if policy.namespace in dying]
        again = ((PolicyChange(p.key, p), PolicyChange(p.key, None)) for p in back)
        return (*changes, *chain.from_iterable(again))


def _plain(policy: NetworkPolicy) -> NetworkPolicy:
    """As a NetworkPolicy; one of Cilium's kinds as one that lets nothing pass."""
    if policy.kind is PolicyKind.NETWORK_POLICY:
        return policy
    asked = {requirement.key for requirement in policy.pod_selector.requirements}
    return NetworkPolicy(
        policy.namespace,
        policy.name,
        Selector() if SERVICE_ACCOUNT in asked else policy.pod_selector,
        frozenset(d for d in Direction if policy.speaks(d)),
        uid=policy.uid,
    )


class Remembered:
    """The file, below the run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._file = StateFile(run_dir / FILE, "policies")
        self._dirty = False
        self._held: frozenset[str] = frozenset()
        self._documents: dict[str, tuple[NetworkPolicy, orjson.Fragment]] = {}
        """Policies as they were last written: there may be thousands of blocks in one."""

    def touch(self) -> None:
        """Something that is in the file may have changed."""
        self._dirty = True

    def holds(self, namespace: str) -> bool:
        """Whether the file speaks of a namespace, which may have lost its last pod here since."""
        return namespace in self._held

    def save(self, neighbourhood: Iterable[tuple[Namespace, Iterable[NetworkPolicy]]]) -> None:
        """Replace the file if that is due. One that cannot be written is an error in the log."""
        if not self._dirty:
            return
        found, names = [], []
        before, self._documents = self._documents, {}
        for namespace, policies in neighbourhood:
            names.append(namespace.name)
            documents = [self._document(policy, before.get(policy.key)) for policy in policies]
            found.append({"uid": namespace.uid, "policies": documents})
        if self._file.write(orjson.dumps(found)):
            self._dirty, self._held = False, frozenset(names)

    def _document(
        self, policy: NetworkPolicy, known: tuple[NetworkPolicy, orjson.Fragment] | None
    ) -> orjson.Fragment:
        if known is None or known[0] is not policy:
            known = policy, orjson.Fragment(orjson.dumps(policy_document(_plain(policy))))
        self._documents[policy.key] = known
        return known[1]

    def outlived(self, changes: Iterable[InputChange]) -> Iterator[InputChange]:
        """First changes of all, with the policies that terminating namespaces have lost.

        They are put and deleted again, which is what happened to them.
        """
        told = tuple(changes)
        present = {c.key for c in told if isinstance(c, PolicyChange)}
        uids = {
            c.name: c.namespace.uid
            for c in told
            if isinstance(c, NamespaceChange) and c.namespace and c.namespace.terminating
        }
        yield from told
        for policy, uid in self._read():
            if uids.get(policy.namespace) == uid and policy.key not in present:
                yield PolicyChange(policy.key, policy)
                yield PolicyChange(policy.key, None)

    def _read(self) -> Iterator[tuple[NetworkPolicy, str]]:
        try:
            entries = orjson.loads(self._file.path.read_bytes())
            for entry in entries:
                for document in entry["policies"]:
                    policy = parse_object(document, Origin(str(self._file.path)))
                    if isinstance(policy, NetworkPolicy):
                        yield policy, str(entry["uid"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, InputError) as error:
            event(log, "policies_unreadable", logging.ERROR, error=str(error))
