"""A lab with real nodes for tests, and the documents that they apply."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

from lab import created as ledgers
from lab.api import users
from lab.api.real import programs, view
from lab.api.real.parts import CNI_BIN, CNI_CONF, Parts
from lab.names import NETNS_ROOT
from lab.parts import ringfence as command_line
from lab.topology import lab_node
from tests.lab.api.hollow import ApiLab
from tests.lab.conftest import Done
from tests.testbed.waiting import eventually, patience

TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
mode: strict
admins:
  groups: ["system:masters"]
tenants:
- name: red
  namespaces: {suffixes: ["-red"]}
  members: {groups: [team-red]}
- name: blue
  namespaces: {suffixes: ["-blue"]}
  members: {groups: [team-blue]}
"""
UP_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class RealLab(ApiLab):
    """A lab whose pods are containers."""

    def up(self, *arguments: object) -> Done:
        """`ringfence lab up`, with the patience that a kubelet needs."""
        name = ("--name", self.places.name)
        return self.run("lab", "up", *name, *map(str, arguments), timeout=UP_SECONDS)

    def exec(self, pod: str, *command: str) -> Done:
        """Run something in the first container of a pod, by kubectl."""
        space, name = pod.split("/")
        return self.try_kubectl("exec", "-n", space, name, "--", *command)

    def asks(self, pod: str, target: str, *flags: str) -> str:
        """What the responder in a pod gets from `address:port`; empty where nothing comes."""
        return self.exec(pod, "/responder", "connect", *flags, target).stdout

    def answer(self, pod: str, target: str, *flags: str) -> str:
        """The same, waited for: programs follow a Service or a pod a moment later."""
        return eventually(lambda: self.asks(pod, target, *flags), f"{target} answers {pod}", 30)

    def asking(self, pod: str, target: str, *flags: str) -> subprocess.Popen[str]:
        """A responder in a pod that asks until `told` ends it."""
        space, name = pod.split("/")
        words = ("connect", "-count", "0", "-sum", *flags, target)
        command = ["exec", "-i", "-n", space, name, "--", "/responder", *words]
        return subprocess.Popen(
            [str(users.kubectl()), *command],
            env=users.environment(self.places),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def outside(self, target: str, *flags: str) -> str:
        """What somebody outside of the cluster gets, who reaches the nodes."""
        where = f"--net={NETNS_ROOT / self.places.fabric_netns}"
        command = ["nsenter", where, str(programs.responder()), "connect", *flags, target]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience(60), check=False
        )
        return done.stdout

    @property
    def node(self) -> str:
        """The IPv4 address of the first node."""
        return lab_node(self.places, 1).addresses[0]

    def parts(self, number: int = 1) -> Parts:
        """The node of that number, counted from 1."""
        return Parts(self.places, lab_node(self.places, number))

    def uninstall(self, number: int = 1) -> None:
        """Take Ringfence from a node, whose agent is killed before."""
        parts, places = self.parts(number), self.parts(number).node.places
        os.kill(self.pid(places.enforcer), signal.SIGKILL)
        ledger = ledgers.load(self.places)
        keeper = ledger.state.process(parts.view) if ledger is not None else None
        assert keeper is not None
        words = command_line(
            *("enforcer", "uninstall", "--pin-dir", str(places.pins)),
            *("--run-dir", str(places.enforcer_run)),
            *("--cni-conf-dir", CNI_CONF, "--cni-bin-dir", CNI_BIN),
        )
        done = subprocess.run(
            ["nsenter", f"--net={NETNS_ROOT / places.netns}", *view.inside(keeper, *words)],
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def ip(self, pod: str) -> str:
        """The IPv4 address of a pod."""
        return str(self.pod(pod)["status"]["podIP"])

    def ips(self, pod: str) -> list[str]:
        """All addresses of a pod."""
        return [str(found["ip"]) for found in self.pod(pod)["status"]["podIPs"]]

    def pod(self, pod: str) -> dict[str, Any]:
        """A pod as the API server has it."""
        space, name = pod.split("/")
        found: dict[str, Any] = json.loads(
            self.kubectl("get", "pod", "-n", space, name, "-o", "json")
        )
        return found

    def spaces(self, *tenants: str) -> list[str]:
        """A fresh namespace of each tenant."""
        word = token_hex(3)
        names = [f"s{word}-{tenant}" for tenant in tenants]
        for name in names:
            self.kubectl("create", "namespace", name)
        return names

    def phase(self, pod: str, wanted: str) -> None:
        """Wait until a pod is in a phase."""
        eventually(lambda: self.pod(pod)["status"].get("phase") == wanted, f"{pod} {wanted}", 60)


def told(asking: subprocess.Popen[str]) -> tuple[int, int, str]:
    """End a responder that asks: how often it was answered, how often it asked, what went wrong."""
    said, wrong = asking.communicate(timeout=patience(30))
    answered, asked = re.findall(r"\d+", said)
    return int(answered), int(asked), wrong


def serving(
    pod: str, *ports: str, container: str = "", spec: str = "", labels: Sequence[str] = ()
) -> str:
    """A pod whose responder answers on ports: `80`, `53/udp`. What else is wanted is JSON-like
    YAML: of its container, of its spec, and its labels as `key: value`.
    """
    space, name = pod.split("/")
    words = ", ".join(f'"{word}"' for word in ("serve", *(ports or ("80",))))
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}, labels: {{{", ".join(("app: " + name, *labels))}}}}}
spec:
  terminationGracePeriodSeconds: 1
  {spec}
  containers:
  - {{name: main, image: "responder:lab", args: [{words}]{", " + container if container else ""}}}
"""
