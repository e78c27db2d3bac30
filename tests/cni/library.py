"""A runtime in the order of its calls: real libcni, plugins that stand in for others, ours.

The other plugins' programs make no network here; what they print is the result of the network that
the test has made.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.cni import conflist, install
from lab.names import NETNS_ROOT, Wire

DEADLINE = 60
CRI_O = ("ADD", "CHECK", "CHECK", "DEL cached", "DEL", "DEL")
"""CHECK follows ADD at once, DEL has the configuration that ADD had, and comes again."""
CONTAINERD = ("STATUS", "ADD", "DEL", "DEL", "GC")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call."""

    error: str
    code: int
    result: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a runtime tells of a pod."""

    pod: str
    wire: Wire
    netns: str = ""

    def call(self, command: str) -> dict[str, object]:
        """One call about it; GC names no attachment that stays."""
        namespace, _, name = self.pod.partition("/")
        arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": namespace, "K8S_POD_NAME": name}
        lengths = (f"{a}/{128 if ':' in a else 32}" for a in self.wire.addresses)
        return {
            "command": command,
            "container": self.wire.netns,
            "netns": self.netns or str(NETNS_ROOT / self.wire.netns),
            "args": arguments,
            "addresses": list(lengths),
            "host": self.wire.interface,
            "valid": [],
        }


@dataclass(frozen=True, slots=True)
class Library:
    """libcni on the node's directories."""

    program: Path
    places: install.PluginPlaces
    cache: Path
    stood_in: set[str] = field(default_factory=set)
    """Plugins whose programs are there."""
    prefix: Sequence[str] = ()

    def write(self, file: str, text: str) -> Path:
        """Have a CNI's configuration on the node, alone, and its plugins' programs."""
        self.places.bin_dir.mkdir(parents=True, exist_ok=True)
        self.places.conf_dir.mkdir(parents=True, exist_ok=True)
        for old in self.places.conf_dir.iterdir():
            old.unlink()
        path = self.places.conf_dir / file
        path.write_bytes(text.encode())
        held = json.loads(text)
        for kind in {str(p["type"]) for p in held.get("plugins", [held])} - self.stood_in:
            (self.places.bin_dir / kind).symlink_to(self.program)
            self.stood_in.add(kind)
        return path

    def joined(self, file: str, text: str) -> None:
        """The same, with our plugin in it, as the agent does it."""
        self.write(file, text)
        install.install_program(self.places)
        changed = install.join(self.places, self.places.entry())
        assert changed is not None
        assert conflist.PLUGIN_TYPE in changed.read_text()

    def run(self, calls: Iterable[Mapping[str, object]]) -> list[Outcome]:
        """One call after the other."""
        places = {
            "confDir": str(self.places.conf_dir),
            "binDir": str(self.places.bin_dir),
            "cacheDir": str(self.cache),
        }
        done = subprocess.run(
            [*self.prefix, self.program],
            input=json.dumps({**places, "calls": list(calls)}),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        told = [json.loads(line) for line in done.stdout.splitlines()]
        return [Outcome(t["error"], t["code"], t.get("result", {})) for t in told]


def failures(calls: Sequence[str], outcomes: Sequence[Outcome]) -> list[str]:
    """The calls that went wrong, with what was said."""
    told = zip(calls, outcomes, strict=True)
    return [f"{call}: {outcome.error}" for call, outcome in told if outcome.error]
