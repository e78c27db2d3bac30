"""How a hollow kubelet learns that a pod is enforced: from the CNI plugin, or by asking the agent.

Where the CNI plugin is built, the kubelet does what a container runtime does. It makes the pod's
network itself, as the first entry of the node's configuration stands for, and runs every later one
(the agent has added its own) with the result so far: ADD returns when the policy is in force. Where
it is not built, the agent finds the interface by the pod's addresses, and the kubelet asks until
the agent says so. In both cases the links go up only after that.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from enforcer.answers import control
from enforcer.cni import build, conflist
from generators.errors import MachineLacks, RingfenceError
from lab.journal import Sandbox
from lab.names import NETNS_ROOT, NodePlaces, mac
from lab.network import POD_INTERFACE

VERSION = "1.1.0"
NETWORK = "ringfence-lab"
OWN_PLUGIN = "ringfence-lab-veth"
"""Stands in the configuration for the network that the kubelet makes."""
CONFIGURATION = "10-ringfence-lab.conflist"
CALL_SECONDS = 60.0


class Command(StrEnum):
    """What the kubelet asks of plugins."""

    ADD = "ADD"
    DEL = "DEL"


class PluginFailed(RingfenceError):
    """A CNI plugin refused, or does not work."""

    exit_code = 1


class Enforcement(Protocol):
    """Brings the policy of a pod into force before its links go up."""

    @property
    def announces(self) -> bool:
        """Whether the API server must get the pod's addresses first."""

    def in_force(self, sandbox: Sandbox) -> bool:
        """Whether the pod may be connected; false: ask again."""

    def forget(self, sandbox: Sandbox) -> None:
        """The pod is about to be taken down."""


@dataclass(frozen=True, slots=True)
class Asked:
    """By asking the agent."""

    run_dir: Path
    announces: bool = True

    def in_force(self, sandbox: Sandbox) -> bool:
        """Whether the agent lists the pod with an address of this sandbox, enforced."""
        try:
            answer = control.ask(self.run_dir, {"command": "endpoints"})
        except RingfenceError:
            return False
        listed = answer.get("endpoints")
        return any(
            f"{entry['namespace']}/{entry['pod']}" == sandbox.key
            and entry["status"] == "ready"
            and {*sandbox.addresses} & {entry["ipv4"], entry["ipv6"]}
            for entry in (listed if isinstance(listed, list) else ())
        )

    def forget(self, sandbox: Sandbox) -> None:
        """Nothing to say: the agent sees the pod go."""


@dataclass(frozen=True, slots=True)
class Chained:
    """By the plugins of the node's configuration."""

    conf_dir: Path
    bin_dir: Path
    announces: bool = False

    def in_force(self, sandbox: Sandbox) -> bool:
        """Run the plugins; they return when they are done, or refuse."""
        plugins = self._plugins()
        if not plugins:
            return False  # the agent has not joined yet
        result = _own_result(sandbox)
        for plugin in plugins:
            printed = self._call(Command.ADD, sandbox, plugin, result)
            result = json.loads(printed)
        return True

    def forget(self, sandbox: Sandbox) -> None:
        """Run them for DEL, which works without the agent."""
        for plugin in reversed(self._plugins()):
            self._call(Command.DEL, sandbox, plugin, _own_result(sandbox))

    def _plugins(self) -> list[Mapping[str, object]]:
        """What follows our own entry."""
        name = conflist.choose(path.name for path in self.conf_dir.iterdir())
        if name is None:
            return []
        listed: list[Mapping[str, object]] = json.loads((self.conf_dir / name).read_text())[
            "plugins"
        ]
        return [plugin for plugin in listed if plugin["type"] != OWN_PLUGIN]

    def _call(
        self,
        command: Command,
        sandbox: Sandbox,
        plugin: Mapping[str, object],
        result: Mapping[str, object],
    ) -> str:
        config = {**plugin, "cniVersion": VERSION, "name": NETWORK, "prevResult": result}
        done = subprocess.run(
            [self.bin_dir / str(plugin["type"])],
            env=_environment(command, sandbox, self.bin_dir),
            input=json.dumps(config),
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout or done.stderr).strip()
            raise PluginFailed(f"{plugin['type']} {command} for {sandbox.key}: {said}")
        return done.stdout


def plan(node: NodePlaces) -> Enforcement:
    """How it is done on this node: by the plugins where `prepare` has made their folders."""
    if node.cni_conf.is_dir():
        return Chained(node.cni_conf, node.cni_bin)
    return Asked(node.enforcer_run)


def prepare(node: NodePlaces) -> bool:
    """Give the node a CNI configuration for the agent to join; false where no plugin is built."""
    try:
        build.find()
    except MachineLacks:
        return False
    for folder in (node.cni_conf, node.cni_bin):
        folder.mkdir(parents=True, exist_ok=True)
    file = node.cni_conf / CONFIGURATION
    if not file.exists():
        held = {"cniVersion": VERSION, "name": NETWORK, "plugins": [{"type": OWN_PLUGIN}]}
        file.write_text(json.dumps(held, indent=2) + "\n")
    return True


def _own_result(sandbox: Sandbox) -> Mapping[str, object]:
    """What a plugin that made this network would have printed."""
    inside = str(NETNS_ROOT / sandbox.netns)
    return {
        "cniVersion": VERSION,
        "interfaces": [
            {"name": sandbox.interface, "mac": mac(f"host {sandbox.interface}")},
            {
                "name": POD_INTERFACE,
                "mac": mac(f"pod {sandbox.interface}"),
                "sandbox": inside,
            },
        ],
        "ips": [
            {"address": f"{ip}/{128 if ':' in ip else 32}", "interface": 1}
            for ip in sandbox.addresses
        ],
    }


def _environment(command: Command, sandbox: Sandbox, bin_dir: Path) -> dict[str, str]:
    namespace, _, name = sandbox.key.partition("/")
    arguments = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": namespace,
        "K8S_POD_NAME": name,
        "K8S_POD_INFRA_CONTAINER_ID": sandbox.uid,
        "K8S_POD_UID": sandbox.uid,
    }
    return {
        "CNI_COMMAND": command.value,
        "CNI_CONTAINERID": sandbox.uid,
        "CNI_NETNS": str(NETNS_ROOT / sandbox.netns),
        "CNI_IFNAME": POD_INTERFACE,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
        "CNI_PATH": str(bin_dir),
        "PATH": os.defpath,
    }
