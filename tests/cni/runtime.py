"""What a container runtime does: run the plugin with an environment and a configuration."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.cni import build

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
            [*self.prefix, str(build.find())],
            input=config,
            env={**environment, "PATH": os.defpath},
            capture_output=True,
            timeout=DEADLINE,
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
