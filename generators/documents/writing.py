"""Documents -> YAML that `kubectl apply` takes; the same bytes on every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml

from generators.documents.yaml import SINGLE_LETTERS, resolve

_ODD_BREAKS = frozenset("\r\x85\u2028\u2029\ufeff")
"""Line breaks to some readers: only escapes in double quotes keep them apart from real ones."""


class _Dumper(yaml.SafeDumper):
    """Block style, no aliases, quotes around each string that a YAML reader takes for more."""

    def ignore_aliases(self, data: object) -> bool:
        """Objects that occur twice are written twice."""
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    if not _ODD_BREAKS.isdisjoint(text):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
    if "\n" in text and not any(line.endswith(" ") for line in text.split("\n")):
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    plain = isinstance(resolve(text), str) and text not in SINGLE_LETTERS
    style = None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def to_yaml(documents: Iterable[object]) -> str:
    """The documents, separated by `---`, with the key order that they have."""
    plain = (dict(d) if isinstance(d, Mapping) else d for d in documents)
    return yaml.dump_all(
        plain,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
