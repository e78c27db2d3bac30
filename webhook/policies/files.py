"""Policies from files and folders, read again whenever a byte of them changes.

Called by the policy book. At the start a path that cannot be read at all is an error of the
command. Later, anything broken is refused and the last good version stays: a policy that no longer
parses, a file that is not YAML any more, a folder that is gone. A sound policy is taken even beside
broken ones; one that was removed from a sound file is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from generators.errors import InputError, Problem
from generators.kyverno.model import Policy
from generators.kyverno.offline.loading import is_left_to_kyverno, policies_in
from generators.manifests.files import Files
from generators.tenants.watched import Changed


@dataclass(frozen=True, slots=True)
class FilePolicy:
    """One policy as its file has it."""

    policy: Policy
    fingerprint: str


@dataclass(slots=True)
class _File:
    """One file's policies by key, and its errors."""

    policies: dict[str, FilePolicy] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyFilesInForce:
    """What all files say together."""

    policies: tuple[FilePolicy, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Errors of the files; where there are any, older policies stay in force."""


class PolicyFiles:
    """The policies of the paths on the command line."""

    def __init__(self, paths: Iterable[str]) -> None:
        """Load all paths; InputError when one cannot be read."""
        self._paths = tuple(paths)
        self._files: dict[str, _File] = {}
        self._seen = ""
        self.in_force = PolicyFilesInForce()
        contents, problems = self._read()
        if problems:
            raise InputError(problems)
        self._take(contents, ())

    def check(self) -> Changed | None:
        """Take what changed on disk; None when nothing did."""
        contents, problems = self._read()
        if _digest(contents, problems) == self._seen:
            return None
        self._take(contents, problems)
        paths = ", ".join(self._paths)
        if found := self.in_force.problems:
            return Changed("policies_refused", paths, "; ".join(map(str, found)), refused=True)
        count = f"{len(self.in_force.policies)} policies"
        return Changed("policies_loaded", paths, count, refused=False)

    def _read(self) -> tuple[dict[str, bytes], list[Problem]]:
        files = Files()
        contents = {name: data for path in self._paths for name, data in files.contents(path)}
        return contents, files.problems

    def _take(self, contents: dict[str, bytes], problems: Iterable[Problem]) -> None:
        unread = tuple(problems)
        self._seen = _digest(contents, unread)
        found = {
            name: _parsed(name, data, self._files.get(name)) for name, data in contents.items()
        }
        if unread:
            # A path that cannot be read says nothing about what was in it.
            found = {**self._files, **found}
        self._files = found
        policies: dict[str, FilePolicy] = {}
        twice: list[Problem] = []
        for name in sorted(found):
            for key, held in found[name].policies.items():
                first = policies.setdefault(key, held)
                if first is not held:
                    origin = held.policy.origin
                    what = f"policy {key} is given twice, first at {first.policy.origin}"
                    twice.append(Problem(origin.file, origin.line, "", what, "keep one"))
        wrong = [problem for file in found.values() for problem in file.problems]
        self.in_force = PolicyFilesInForce(
            tuple(policies[key] for key in sorted(policies)),
            tuple(sorted([*unread, *wrong, *twice])),
        )


def _parsed(name: str, data: bytes, before: _File | None) -> _File:
    loaded = policies_in(data, name)
    digest = hashlib.sha256(data).hexdigest()
    policies = {p.key: FilePolicy(p, digest) for p in loaded.policies}
    broken = any(not is_left_to_kyverno(problem) for problem in loaded.problems)
    if broken and before is not None:
        # Which of the policies the broken ones were cannot always be told.
        policies = {**before.policies, **policies}
    return _File(policies, loaded.problems)


def _digest(contents: dict[str, bytes], problems: Iterable[Problem]) -> str:
    whole = hashlib.sha256()
    for name in sorted(contents):
        whole.update(f"{name}\n{hashlib.sha256(contents[name]).hexdigest()}\n".encode())
    for problem in problems:
        whole.update(f"{problem}\n".encode())
    return whole.hexdigest()
