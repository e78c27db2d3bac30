"""What a container runtime does: run the plugin with an environment and a configuration."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.cni import build
from tests.testbed.waiting import patience

IFNAME = "eth0"
DEADLINE = 60
Config = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """How a plugin ended and what it printed."""

    code: int
    output: str

    @property
    def json(self) -> dict[str, object]:
        held = json.loads(self.output)
        assert isinstance(held, dict)
        return held


@dataclass(frozen=True, slots=True)
class Runtime:
    """Runs the plugin as the last of a chain, with the settings of one agent."""

    socket: Path
    namespaces: Path
    seconds: int = 10
    version: str = "1.1.0"
    more: Config = field(default_factory=dict)
    prefix: Sequence[str] = ()
    program: Path | None = None
    """None: as it was built."""

    def call(
        self,
        command: str,
        container: str = "c1",
        pod: str = "",
        uid: str = "",
        netns: str = "",
        previous: Config | None = None,
    ) -> Result:
        """One call; `pod` is `namespace/name`, `previous` the result of the plugins before."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": IFNAME,
            "CNI_PATH": "/opt/cni/bin",
        }
        if pod:
            namespace, _, name = pod.partition("/")
            arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": namespace}
            arguments |= {"K8S_POD_NAME": name, "K8S_POD_INFRA_CONTAINER_ID": container}
            arguments |= {"K8S_POD_UID": uid} if uid else {}
            environment["CNI_ARGS"] = ";".join(f"{k}={v}" for k, v in arguments.items())
        conf: dict[str, object] = {
            "cniVersion": self.version,
            "name": "net",
            "type": "ringfence-cni",
            "socket": str(self.socket),
            "namespaces": str(self.namespaces),
            "timeoutSeconds": self.seconds,
            **self.more,
        }
        if previous is not None:
            conf["prevResult"] = previous
        return self.raw(environment, json.dumps(conf).encode())

    def raw(self, environment: Mapping[str, str], config: bytes) -> Result:
        """The program itself."""
        finished = subprocess.run(
            [*self.prefix, str(self.program or build.find())],
            input=config,
            env={**environment, "PATH": os.defpath},
            capture_output=True,
            timeout=patience(DEADLINE),
            check=False,
        )
        return Result(finished.returncode, finished.stdout.decode())


def result(addresses: Sequence[str], host: str = "", netns: str = "") -> dict[str, object]:
    """What a plugin that makes the network prints."""
    interfaces: list[dict[str, str]] = [{"name": IFNAME, "sandbox": netns or "/run/netns/x"}]
    if host:
        interfaces.insert(0, {"name": host, "mac": "02:00:00:00:00:01"})
    ips = [{"address": f"{a}/{128 if ':' in a else 32}", "interface": 0} for a in addresses]
    return {"cniVersion": "1.1.0", "interfaces": interfaces, "ips": ips, "dns": {}}


PLUGINS = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins are."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A runtime that reads the node's configuration and runs every plugin of it, in `netns`."""

    conflist: Path
    node_netns: Path
    more_plugins: Path

    def add(self, container: str, netns: Path, pod: str) -> Result:
        """ADD of one plugin after the other; the last result, or the first failure."""
        done = Result(0, "")
        for plugin in self._plugins():
            if done.output:
                plugin["prevResult"] = done.json
            done = self._run("ADD", plugin, container, netns, pod)
            if done.code != 0:
                break
        return done

    def delete(self, container: str, netns: Path, pod: str, added: Result) -> list[Result]:
        """DEL in reverse order."""
        previous = {"prevResult": added.json}
        return [
            self._run("DEL", {**plugin, **previous}, container, netns, pod)
            for plugin in reversed(self._plugins())
        ]

    def _plugins(self) -> list[dict[str, object]]:
        held = json.loads(self.conflist.read_text())
        head = {"cniVersion": held["cniVersion"], "name": held["name"]}
        return [{**plugin, **head} for plugin in held["plugins"]]

    def _run(self, command: str, plugin: Config, container: str, netns: Path, pod: str) -> Result:
        kind = str(plugin["type"])
        folder = next(p for p in (PLUGINS, self.more_plugins) if (p / kind).exists())
        namespace, _, name = pod.partition("/")
        finished = subprocess.run(
            ["nsenter", f"--net={self.node_netns}", "--", str(folder / kind)],
            input=json.dumps(plugin).encode(),
            env={
                "PATH": os.defpath,
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": str(netns),
                "CNI_IFNAME": IFNAME,
                "CNI_PATH": f"{PLUGINS}:{self.more_plugins}",
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
            },
            capture_output=True,
            timeout=patience(DEADLINE),
            check=False,
        )
        return Result(finished.returncode, finished.stdout.decode())


BOTH_FAMILIES = ("10.20.0.0/24", "fd20::/112")


def conflist_of(kind: str, data_dir: Path, subnets: Sequence[str] = BOTH_FAMILIES) -> str:
    """A configuration with one plugin that makes networks."""
    ranges = [[{"subnet": subnet}] for subnet in subnets]
    ipam = {"type": "host-local", "ranges": ranges, "dataDir": str(data_dir)}
    if kind == "bridge":
        plugin = {"type": kind, "bridge": "cni0", "isGateway": True, "ipam": ipam}
    else:
        plugin = {"type": kind, "ipam": ipam}
    return json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [plugin]}, indent=2)
