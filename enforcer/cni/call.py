"""A call of the CNI plugin as a value, and the answer to it: pure, read from and written to bytes.

The server reads calls, `plugin.py` answers them. The result of the plugins before us is never
repeated from here; the shim has the very bytes and prints them.

    call     NAME=VALUE lines of the environment, an empty line, the network configuration
    answer   `0 previous`, `0 nothing` or `1 error`, the line's end, and what is to be printed
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from generators.documents.json import mappings, text
from generators.errors import RingfenceError

DEFAULT_TIMEOUT = 10.0
LONGEST_TIMEOUT = 300.0
VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""Under which GC names the attachments that stay; the second in libraries before 1.2.1."""

OLD_ADDRESSES = ("ip4", "ip6")
"""Where results before 0.3.0 have one address of each family; they name no interfaces."""


class CniCommand(StrEnum):
    """What the runtime wants; the shim answers VERSION itself."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"


class Code(IntEnum):
    """Error codes of the specification, and our own from 100 on."""

    BAD_ENVIRONMENT = 4
    BAD_CONTENT = 6
    BAD_CONFIG = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    NOT_ENFORCED = 100


class CallRefused(RingfenceError):
    """A call that is answered with an error, which the runtime shows to people."""

    exit_code = 1

    def __init__(self, code: Code, message: str, details: str) -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(f"{message}: {details}")


@dataclass(frozen=True, slots=True)
class SandboxPod:
    """The pod that a sandbox is of, as the runtime names it."""

    namespace: str
    pod: str
    uid: str

    @property
    def key(self) -> str:
        """`namespace/pod`."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class Call:
    """What the runtime passed."""

    command: CniCommand
    container: str
    interface: str
    """Inside the pod: eth0."""
    sandbox: SandboxPod | None
    """None: no pod of Kubernetes."""
    config: Mapping[str, object]
    version: str

    @property
    def seconds(self) -> float:
        """How long ADD may wait."""
        wanted = self.config.get("timeoutSeconds")
        if isinstance(wanted, bool) or not isinstance(wanted, int | float):
            return DEFAULT_TIMEOUT
        return min(max(float(wanted), 0.0), LONGEST_TIMEOUT)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The pod's addresses, by the result of the plugins before us."""
        previous = self._previous()
        found = [text(ip, "address") for ip in mappings(previous, "ips")]
        for key in OLD_ADDRESSES:
            old = previous.get(key)
            if isinstance(old, dict):
                found.append(text(old, "ip"))
        try:
            return tuple(str(ipaddress.ip_interface(address).ip) for address in found)
        except ValueError as error:
            raise CallRefused(
                Code.BAD_CONTENT, "prevResult has an invalid address", str(error)
            ) from error

    @property
    def host_interfaces(self) -> tuple[str, ...]:
        """Interfaces outside the pod, by the same result."""
        listed = mappings(self._previous(), "interfaces")
        return tuple(text(i, "name") for i in listed if not text(i, "sandbox"))

    @property
    def valid_containers(self) -> frozenset[str] | None:
        """The containers that GC leaves; None: it does not say."""
        for key in VALID_ATTACHMENTS:
            if isinstance(self.config.get(key), list):
                listed = mappings(self.config, key)
                return frozenset(text(entry, "containerID") for entry in listed)
        return None

    def _previous(self) -> Mapping[str, object]:
        previous = self.config.get("prevResult")
        if not isinstance(previous, dict):
            raise CallRefused(
                Code.BAD_CONFIG,
                "there is no prevResult",
                "ringfence-cni makes no network: it has to come after a plugin that does",
            )
        return previous


def parse(data: bytes) -> Call:
    """The call that the shim passed on."""
    head, _, body = data.partition(b"\n\n")
    environment = dict(_pair(line, "=") for line in head.decode(errors="replace").splitlines())
    name = environment.get("CNI_COMMAND", "")
    if name not in CniCommand.__members__:
        raise CallRefused(Code.BAD_ENVIRONMENT, "unknown CNI_COMMAND", repr(name))
    try:
        config: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CallRefused(
            Code.BAD_CONTENT, "the network configuration is not JSON", str(error)
        ) from error
    if not isinstance(config, dict):
        raise CallRefused(Code.BAD_CONTENT, "the network configuration is not an object", "")
    return Call(
        CniCommand(name),
        environment.get("CNI_CONTAINERID", ""),
        environment.get("CNI_IFNAME", ""),
        _sandbox(environment.get("CNI_ARGS", "")),
        config,
        text(config, "cniVersion"),
    )


def previous() -> bytes:
    """Success: the result of the plugins before us is ours."""
    return b"0 previous\n"


def nothing() -> bytes:
    """Success without a result."""
    return b"0 nothing\n"


def failure(error: CallRefused, version: str) -> bytes:
    """An error as the specification wants it."""
    told = {
        "cniVersion": version or "1.1.0",
        "code": int(error.code),
        "msg": error.message,
        "details": error.details,
    }
    return b"1 error\n" + json.dumps(told).encode() + b"\n"


def _sandbox(arguments: str) -> SandboxPod | None:
    given = dict(_pair(argument, "=") for argument in arguments.split(";"))
    namespace, pod = given.get("K8S_POD_NAMESPACE", ""), given.get("K8S_POD_NAME", "")
    if not namespace or not pod:
        return None
    return SandboxPod(namespace, pod, given.get("K8S_POD_UID", ""))


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, _, value = text.partition(separator)
    return name, value
