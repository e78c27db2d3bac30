"""The node's CNI configuration with our plugin at its end, and without: pure, text to text.

`install.py` reads and writes the files. Everything that is not ours stays as it was written, down
to blanks and the order of fields, because the text is cut at one place and never rewritten; only
a single configuration (`.conf`) has to be put into a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from generators.errors import RingfenceError

PLUGIN_TYPE = "ringfence-cni"
LIST_SUFFIX = ".conflist"
SINGLE_SUFFIXES = (".conf", ".json")
OLDEST_VERSION = "0.1.0"
"""What a configuration without a version means."""
_BLANK = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^\s,\]}]+")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class BadConflist(RingfenceError):
    """A CNI configuration that we cannot become a part of."""

    exit_code = 1


class ConfigForm(Enum):
    """What a configuration file holds."""

    LIST = auto()
    SINGLE = auto()


@dataclass(frozen=True, slots=True)
class PluginEntry:
    """Our plugin in the list."""

    socket: str
    namespaces: str
    seconds: int

    @property
    def fields(self) -> Mapping[str, object]:
        """As they are written."""
        return {
            "type": PLUGIN_TYPE,
            "socket": self.socket,
            "namespaces": self.namespaces,
            "timeoutSeconds": self.seconds,
        }

    def is_neighbour(self, other: Mapping[str, object]) -> bool:
        """Whether an entry of our type is another agent's."""
        return other.get("type") == PLUGIN_TYPE and other.get("socket") != self.socket


def choose(names: Iterable[str]) -> str | None:
    """The file that runtimes use: the first by name that is a configuration."""
    suffixes = (LIST_SUFFIX, *SINGLE_SUFFIXES)
    found = sorted(name for name in names if name.endswith(suffixes))
    return found[0] if found else None


def list_name(name: str) -> str:
    """What a file is called once it is a list."""
    return str(Path(name).with_suffix(LIST_SUFFIX))


def add(text: str, entry: PluginEntry, where: str) -> str:
    """The list with our entry last; the same text where it is there already, as wanted."""
    if _shape(text, where) is ConfigForm.SINGLE:
        text = _as_list(text)
    plugins = _plugins(text, where)
    ours = [_fields(text, span) for span in plugins]
    if any(entry.is_neighbour(fields) for fields in ours):
        raise BadConflist(
            f"{where}: another ringfence agent has its plugin there; remove it with "
            "`ringfence enforcer uninstall`, or run this one without --cni-conf-dir"
        )
    types = [fields.get("type") for fields in ours]
    if PLUGIN_TYPE in types[:-1] or (types[-1:] == [PLUGIN_TYPE] and ours[-1] != entry.fields):
        text = remove(text, entry.socket, where)
        plugins = _plugins(text, where)
    elif types[-1:] == [PLUGIN_TYPE]:
        return text
    if not plugins:
        raise BadConflist(f"{where}: there is no plugin for ringfence-cni to follow; add one first")
    start, end = plugins[-1]
    written = _like(text, start, json.dumps(entry.fields, indent=2))
    return text[:end] + "," + _gap(text, start) + written + text[end:]


def remove(text: str, socket: str, where: str) -> str:
    """The list without our entry, the agent's of that socket; the same text if it is not there."""
    if _shape(text, where) is ConfigForm.SINGLE:
        return text
    plugins = _plugins(text, where)
    for number in reversed(range(len(plugins))):
        fields = _fields(text, plugins[number])
        if fields.get("type") != PLUGIN_TYPE or fields.get("socket") != socket:
            continue
        start, end = plugins[number]
        if number:
            start = plugins[number - 1][1]
        elif len(plugins) > 1:
            end = plugins[1][0]
        text = text[:start] + text[end:]
    return text


def versions(text: str) -> tuple[str, ...]:
    """The versions of CNI in which a runtime may run this list's plugins."""
    held = json.loads(text)
    more = held.get("cniVersions")
    named = [held.get("cniVersion"), *(more if isinstance(more, list) else ())]
    return tuple(dict.fromkeys(str(version or OLDEST_VERSION) for version in named))


def network(text: str) -> str:
    """What the list is called."""
    return str(json.loads(text).get("name", ""))


def is_list_of(text: str, single: str) -> bool:
    """Whether a list holds just this one plugin."""
    held, alone = json.loads(text), json.loads(single)
    return bool(held["plugins"] == [alone])


def _shape(text: str, where: str) -> ConfigForm:
    try:
        held: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConflist(f"{where}: this is not JSON ({error})") from error
    if isinstance(held, dict) and isinstance(held.get("plugins"), list):
        return ConfigForm.LIST
    if isinstance(held, dict) and isinstance(held.get("type"), str):
        return ConfigForm.SINGLE
    raise BadConflist(f"{where}: neither a list of CNI plugins nor a plugin")


def _as_list(text: str) -> str:
    """A list of one plugin, which keeps its own fields; version and name are also the list's."""
    held = json.loads(text)
    head = {key: held[key] for key in ("cniVersion", "cniVersions", "name") if key in held}
    inner = text.strip().replace("\n", "\n    ")
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    return "\n".join(["{", *lines, '  "plugins": [', f"    {inner}", "  ]", "}", ""])


def _plugins(text: str, where: str) -> list[tuple[int, int]]:
    """Where each entry of `plugins` begins and ends. The text is valid JSON."""
    at = None
    for name, start, _ in _members(text, _skip(text, 0)):
        if name == "plugins":
            at = start
    if at is None:
        raise BadConflist(f"{where}: there is no list of plugins")
    return _elements(text, at)


def _members(text: str, at: int) -> list[tuple[str, int, int]]:
    """Name, begin and end of the value of each member of the object at `at`."""
    found = []
    at = _skip(text, at + 1)
    while text[at] != "}":
        end = _value_end(text, at)
        start = _skip(text, _skip(text, end) + 1)
        found.append((json.loads(text[at:end]), start, _value_end(text, start)))
        at = _next(text, found[-1][2])
    return found


def _elements(text: str, at: int) -> list[tuple[int, int]]:
    found = []
    at = _skip(text, at + 1)
    while text[at] != "]":
        found.append((at, _value_end(text, at)))
        at = _next(text, found[-1][1])
    return found


def _next(text: str, end: int) -> int:
    """Behind a value, and the comma that follows it."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at


def _value_end(text: str, at: int) -> int:
    depth = 0
    while True:
        if text[at] == '"':
            match = _STRING.match(text, at)
            if match is None:
                raise BadConflist("a string without its end")  # json.loads has seen it
            at = match.end()
        elif text[at] in "{[":
            depth, at = depth + 1, at + 1
        elif text[at] in "}]":
            depth, at = depth - 1, at + 1
        elif depth or text[at] in ",: \t\r\n":
            at += 1
        else:
            match = _SCALAR.match(text, at)
            at = match.end() if match is not None else at + 1
        if depth == 0:
            return at


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match is not None else at


def _fields(text: str, span: tuple[int, int]) -> Mapping[str, object]:
    held: object = json.loads(text[span[0] : span[1]])
    return held if isinstance(held, dict) else {}


def _gap(text: str, start: int) -> str:
    """The blanks before an entry."""
    begin = start
    while text[begin - 1] in " \t\r\n":
        begin -= 1
    return text[begin:start] or " "


def _like(text: str, start: int, written: str) -> str:
    """Our entry, indented like its neighbour at `start`; on one line where that one is."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if "\n" not in _gap(text, start):
        return json.dumps(json.loads(written))
    return written.replace("\n", "\n" + line)
