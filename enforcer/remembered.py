"""The policies around this node's pods, in a file, so that a new agent knows what the old one knew.

Written by the agent when they change, read once at its start. Only one question needs it: a policy
that is deleted while its namespace terminates stays until the namespace's last pod here is gone,
and both may happen while no agent runs. What may surprise: an entry is believed only for the
namespace with the same UID, and only while that one terminates; anything else is what the API
server says it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson

from enforcer.changes import InputChange, NamespaceChange, PolicyChange
from generators.errors import InputError
from generators.logs import event
from generators.manifests import parse_object, policy_document
from generators.objects import Namespace, NetworkPolicy, Origin

log = logging.getLogger("ringfence.enforcer")
FILE = "policies.json"


class Remembered:
    """The file, below the run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._dirty = False
        self._failed = ""

    def touch(self) -> None:
        """Something that is in the file may have changed."""
        self._dirty = True

    def save(self, neighbourhood: Iterable[tuple[Namespace, Iterable[NetworkPolicy]]]) -> None:
        """Replace the file if that is due. One that cannot be written is an error in the log."""
        if not self._dirty:
            return
        found = [
            {"uid": namespace.uid, "policies": [policy_document(p) for p in policies]}
            for namespace, policies in neighbourhood
        ]
        unfinished = self._path.with_suffix(".new")
        try:
            unfinished.write_bytes(orjson.dumps(found))
            unfinished.replace(self._path)
        except OSError as error:
            if str(error) != self._failed:
                event(log, "policies_not_saved", logging.ERROR, error=str(error))
            self._failed = str(error)
            return
        self._dirty, self._failed = False, ""

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
            entries = orjson.loads(self._path.read_bytes())
            for entry in entries:
                for document in entry["policies"]:
                    policy = parse_object(document, Origin(str(self._path)))
                    if isinstance(policy, NetworkPolicy):
                        yield policy, str(entry["uid"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, InputError) as error:
            event(log, "policies_unreadable", logging.ERROR, error=str(error))
