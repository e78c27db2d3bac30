"""What the numbers in the maps mean, in a file, so that the next agent continues with them.

A group or an identity that means what it meant keeps its number over a restart: nothing of it has
to be written, and only so can a node whose policies fill more than half of a map be restarted. The
file is believed only for the very maps that it was written for, which the kernel names by a number
of their own; and the next number to be given is in it too, so that one that was ever given never
gets another meaning. Without the file everything is rebuilt beside the old.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import orjson

from enforcer.policy.identity import Numbering, PodClass, Registry
from generators.process.files import StateFile
from generators.process.logs import event

log = logging.getLogger("ringfence.enforcer")
FILE = "numbers.json"


def canonical(value: object) -> str:
    """Equal for equal values, in every process. Names of classes are in it: another name is another
    meaning to the file of an agent from before.
    """
    if isinstance(value, frozenset):
        return "{" + ",".join(sorted(map(canonical, value))) + "}"
    if isinstance(value, tuple):
        return "(" + ",".join(map(canonical, value)) + ")"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (getattr(value, field.name) for field in dataclasses.fields(value))
        return type(value).__name__ + canonical(tuple(fields))
    return repr(value)


def name_of(value: object) -> str:
    """A short name for a meaning."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


@lru_cache(maxsize=16_384)
def name_of_class(pods: PodClass) -> str:
    """The same for a class of pods, which is asked for again and again."""
    return name_of(pods)


class Numbers:
    """The file, below the run directory; `maps` names the maps that it is about."""

    def __init__(self, run_dir: Path, maps: str) -> None:
        self._file = StateFile(run_dir / FILE, "numbers")
        self._maps = maps

    def promise(self, registry: Registry) -> None:
        """Make the registry reuse the former numbers for keys that mean the same."""
        try:
            found = orjson.loads(self._file.path.read_bytes())
            if found["maps"] != self._maps:
                return
            for name, numbering in _named(registry).items():
                numbering.promise(_checked(found[name]), int(found["next"][name]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            event(log, "numbers_unreadable", logging.ERROR, error=str(error))

    def save(self, registry: Registry, given: Mapping[str, Mapping[str, int]]) -> None:
        """Write down what is in use; `given`: the names of identities and groups."""
        document = {
            "maps": self._maps,
            "next": {name: numbering.next for name, numbering in _named(registry).items()},
            "rules": {str(name): number for name, number in registry.rules.known.items()},
            **given,
        }
        self._file.write(orjson.dumps(document))


def _named(registry: Registry) -> Mapping[str, Numbering]:
    return {
        "identities": registry.identities,
        "groups": registry.groups,
        "rules": registry.rules,
    }


def _checked(names: object) -> dict[str, int]:
    if not isinstance(names, dict) or not all(isinstance(n, int) for n in names.values()):
        raise TypeError("names have numbers")
    return names
