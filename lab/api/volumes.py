"""A pod as `jobs.py` needs it: its one container, its environment, and its volumes as folders."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from generators.documents.json import (
    Document,
    integer,
    items,
    key_of,
    mapping,
    mappings,
    strings,
    text,
)
from generators.kube.client import Client
from generators.kube.resources import CONFIG_MAPS, SECRETS, Resource
from lab.api.container import Mount, Root

MANAGER = "ringfence-lab-jobs"
TOKEN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts of a pod's document that its node reads."""

    document: Document

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return key_of(self.document).namespace

    @property
    def name(self) -> str:
        """Its name."""
        return key_of(self.document).name

    @property
    def uid(self) -> str:
        """Its UID."""
        return text(mapping(self.document, "metadata"), "uid")

    @property
    def spec(self) -> Mapping[str, object]:
        """What it asks for."""
        return mapping(self.document, "spec")

    @property
    def container(self) -> Mapping[str, object]:
        """The only one: this node knows no init containers and no sidecars."""
        (only,) = [*mappings(self.spec, "initContainers"), *mappings(self.spec, "containers")]
        return only

    @property
    def command(self) -> list[str]:
        """`command` and `args`; the image's entry point is `ringfence`."""
        environment = {text(v, "name"): text(v, "value") for v in mappings(self.container, "env")}
        words = _words(self.container, "command") or ["ringfence"]
        return [_expanded(w, environment) for w in [*words, *_words(self.container, "args")]]

    @property
    def root(self) -> Root:
        """`readOnlyRootFilesystem`."""
        closed = mapping(self.container, "securityContext").get("readOnlyRootFilesystem")
        return Root.READ_ONLY if closed is True else Root.WRITABLE

    @property
    def deadline(self) -> int | None:
        """Seconds after which it is ended, if any."""
        return integer(self.spec, "activeDeadlineSeconds")

    def number(self, key: str, otherwise: int) -> int:
        """A field of the container's securityContext, else of the pod's."""
        for context in (self.container, self.spec):
            value = integer(mapping(context, "securityContext"), key)
            if value is not None:
                return value
        return otherwise


def variables(pod: Pod, client: Client) -> dict[str, str]:
    """The environment that the pod asks for."""
    made = {"HOSTNAME": pod.name}
    for variable in mappings(pod.container, "env"):
        origin = mapping(variable, "valueFrom")
        if field := mapping(origin, "fieldRef"):
            made[text(variable, "name")] = _field(pod, text(field, "fieldPath"))
        elif reference := mapping(origin, "configMapKeyRef"):
            content = _content(client, CONFIG_MAPS, pod.namespace, text(reference, "name"))
            made[text(variable, "name")] = content[text(reference, "key")].decode()
        else:
            made[text(variable, "name")] = _expanded(text(variable, "value"), made)
    return made


def mounts(pod: Pod, client: Client, folder: Path) -> list[Mount]:
    """Every volume written below `folder`, and where the container sees it."""
    for volume in mappings(pod.spec, "volumes"):
        _write(pod, client, volume, folder / text(volume, "name"))
    return [
        Mount(
            folder / text(mount, "name") / text(mount, "subPath"),
            text(mount, "mountPath"),
            Root.READ_ONLY if mount.get("readOnly") is True else Root.WRITABLE,
        )
        for mount in mappings(pod.container, "volumeMounts")
    ]


def _write(pod: Pod, client: Client, volume: Mapping[str, object], folder: Path) -> None:
    folder.mkdir(parents=True)
    if "emptyDir" in volume:
        folder.chmod(0o777)
        return
    sources = mappings(mapping(volume, "projected"), "sources") or (volume,)
    for source in sources:
        for name, content in _files(pod, client, source).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _files(pod: Pod, client: Client, source: Mapping[str, object]) -> dict[str, bytes]:
    """One source of a volume; what this node does not know is an error of the pod."""
    if token := mapping(source, "serviceAccountToken"):
        return {text(token, "path"): _token(pod, client).encode()}
    if downward := mapping(source, "downwardAPI"):
        items = mappings(downward, "items")
        return {
            text(i, "path"): _field(pod, text(mapping(i, "fieldRef"), "fieldPath")).encode()
            for i in items
        }
    for key, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
        if chosen := mapping(source, key):
            name = text(chosen, "name") or text(chosen, "secretName")
            content = _content(client, resource, pod.namespace, name)
            paths = {text(i, "key"): text(i, "path") for i in mappings(chosen, "items")}
            return {paths.get(k, k): v for k, v in content.items() if not paths or k in paths}
    raise ValueError(f"this node knows no volume like {dict(source)}")


def _content(client: Client, resource: Resource, namespace: str, name: str) -> dict[str, bytes]:
    data = strings(client.get(resource, name, namespace), "data")
    if resource is SECRETS:
        return {key: base64.b64decode(value) for key, value in data.items()}
    return {key: value.encode() for key, value in data.items()}


def _token(pod: Pod, client: Client) -> str:
    """Bound to the pod, as the kubelet asks for it: it dies with the pod or the account."""
    account = text(pod.spec, "serviceAccountName") or "default"
    tokens = Resource(
        "",
        "v1",
        f"namespaces/{pod.namespace}/serviceaccounts/{account}/token",
        "TokenRequest",
        namespaced=False,
    )
    reference = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
    answer = client.create(
        tokens,
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": pod.namespace},
            "spec": {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": reference},
        },
        manager=MANAGER,
    )
    return text(mapping(answer, "status"), "token")


def _field(pod: Pod, path: str) -> str:
    known = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.serviceAccountName": text(pod.spec, "serviceAccountName"),
        "spec.nodeName": text(pod.spec, "nodeName"),
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }
    return known[path]


def _words(container: Mapping[str, object], key: str) -> list[str]:
    return [str(word) for word in items(container, key)]


def _expanded(word: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` as the kubelet expands it in commands and values."""
    return re.sub(r"\$\((\w+)\)", lambda m: environment.get(m[1], m[0]), word)
