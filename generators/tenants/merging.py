"""Several tenant files read as one document: lists go on in the next file, words are said once.

Called by load.py for a folder. Every value keeps its file and line, so that schema and rules find
defects as they do in one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from generators.tenants.document import Document, Path, Value, kind_of
from generators.tenants.model import API_VERSION, KIND

_HEAD: Mapping[str, str] = {"apiVersion": API_VERSION, "kind": KIND}


def merged(file: str, parts: Iterable[tuple[Document, int]]) -> Document:
    """One document of several, each with its number of lines; `file`: what the whole is called."""
    whole = Document(file, {}, whole=True)
    before = 0
    for part, length in parts:
        whole.sources = (*whole.sources, (before, part.file))
        whole.problems += part.problems
        whole.whole = whole.whole and part.whole
        if isinstance(part.root, dict):
            _Merger(whole, part, before).add(part.root)
        elif part.whole:
            fix = f"begin it with `apiVersion: {API_VERSION}` and `kind: {KIND}`"
            what = f"the file is {kind_of(part.root)}, not a mapping"
            whole.problems.append(part.problem((), what, fix))
        before += length
    return whole


class _Merger:
    """Adds one file to the whole."""

    def __init__(self, whole: Document, part: Document, before: int) -> None:
        self._whole, self._part, self._before = whole, part, before

    def add(self, root: dict[str, Value]) -> None:
        for key, wanted in _HEAD.items():
            if key not in root and self._part.whole:
                problem = self._part.problem(
                    (), f"{key}: is required but missing", f"add `{key}: {wanted}`"
                )
                self._whole.problems.append(problem)
        into = self._whole.root
        if isinstance(into, dict):
            self._join(into, root, (), ())

    def _join(self, old: dict[str, Value], new: dict[str, Value], path: Path, source: Path) -> None:
        for key, value in new.items():
            there, at = (*path, key), (*source, key)
            known = old.get(key)
            if key not in old:
                old[key] = self._copied(value, there, at)
            elif isinstance(known, dict) and isinstance(value, dict):
                self._join(known, value, there, at)
            elif isinstance(known, list) and isinstance(value, list):
                for index, item in enumerate(value):
                    known.append(self._copied(item, (*there, len(known)), (*at, index)))
            elif known != value:
                first = self._whole.problem(there, "", "")
                what = f"is said otherwise in {first.file}:{first.line}"
                self._whole.problems.append(self._part.problem(at, what, "say it in one file"))

    def _copied(self, value: Value, path: Path, source: Path) -> Value:
        self._whole.lines[path] = self._before + self._part.line(source)
        if isinstance(value, list):
            return [self._copied(v, (*path, i), (*source, i)) for i, v in enumerate(value)]
        if isinstance(value, dict):
            return {k: self._copied(v, (*path, k), (*source, k)) for k, v in value.items()}
        return value
