"""Pods as the hollow kubelet sees them, and what it reports to the API server. Pure.

A pod runs as soon as its network does: there are no images to pull and no containers to start, so
all of its containers are ready from the first moment. A network namespace would never complete a
pod of a Job: those of our own command are executed (jobs.py), all others are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from generators.documents.json import Document, mapping, mappings, text
from generators.manifests import parse_object
from generators.objects import Origin, Pod
from lab.api.volumes import Pod as Executed
from lab.topology import LabNode

CAPACITY = {"cpu": "8", "memory": "16Gi", "pods": "250", "ephemeral-storage": "100Gi"}
LAB_LABEL = "ringfence.io/lab"
HOOK = "helm.sh/hook"
OUR_COMMAND = "ringfence"
"""And the name of its image, whatever the registry."""
VERSION = "v0.0.0-ringfence-lab"
_ORIGIN = Origin("api-server", 1)


@dataclass(frozen=True, slots=True)
class Container:
    """What a container status repeats of its container."""

    name: str
    image: str


@dataclass(frozen=True, slots=True)
class Assigned:
    """A pod that is bound to a node; `ready` when its status is what we would report."""

    pod: Pod
    containers: tuple[Container, ...]
    started: str
    ready: bool

    @property
    def leaves(self) -> bool:
        """Whether nothing of it should run any more."""
        return self.pod.terminating or self.pod.terminal


def assigned(document: Document) -> Assigned | None:
    """A pod from the API server; None for one that is not a network namespace of a hollow node."""
    if owned_by_job(document) or hosted(document):
        return None
    item = parse_object(document, _ORIGIN)
    if not isinstance(item, Pod):
        raise TypeError(f"no Pod: {document.get('kind')}")
    containers = mappings(mapping(document, "spec"), "containers")
    status = mapping(document, "status")
    ready = any(
        text(c, "type") == "Ready" and text(c, "status") == "True"
        for c in mappings(status, "conditions")
    )
    return Assigned(
        item,
        tuple(Container(text(c, "name"), text(c, "image")) for c in containers),
        text(status, "startTime"),
        ready and item.phase == "Running" and bool(item.ips),
    )


def owned_by_job(document: Document) -> bool:
    """Whether a Job made the pod."""
    owners = mappings(mapping(document, "metadata"), "ownerReferences")
    return any(text(owner, "kind") == "Job" for owner in owners)


def of_a_job_or_hook(document: Document) -> bool:
    """Made by a Job, or by Helm as a hook or test."""
    return owned_by_job(document) or HOOK in mapping(mapping(document, "metadata"), "annotations")


def hosted(document: Document) -> bool:
    """Whether this host executes the pod of a Job or hook: our image's own command, and no other,
    as any user but root, since anyone who may create pods in the lab chooses it.
    """
    spec = mapping(document, "spec")
    if not of_a_job_or_hook(document) or mappings(spec, "initContainers"):
        return False
    containers = mappings(spec, "containers")
    if len(containers) != 1:
        return False
    pod = Executed(document)
    image = text(containers[0], "image").partition("@")[0].rpartition("/")[2].partition(":")[0]
    someone = all(pod.number(key, 1) > 0 for key in ("runAsUser", "runAsGroup"))
    return image == OUR_COMMAND and pod.command[0] == OUR_COMMAND and someone


def addressed_patch(pod: Pod, node: LabNode, addresses: tuple[str, ...]) -> Document:
    """The status of a pod that has addresses and waits for its policy."""
    return _status(pod, {"phase": "Pending", **_ips(node, addresses)})


def running_patch(item: Assigned, node: LabNode, addresses: tuple[str, ...], now: str) -> Document:
    """The status of a pod that runs."""
    started = item.started or now
    kinds = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodScheduled")
    return _status(
        item.pod,
        {
            "phase": "Running",
            "startTime": started,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": started} for kind in kinds
            ],
            "containerStatuses": [
                _container(c, item.pod.uid, started) for c in sorted_containers(item)
            ],
            **_ips(node, addresses),
        },
    )


def sorted_containers(item: Assigned) -> list[Container]:
    """In the order in which a kubelet reports them."""
    return sorted(item.containers, key=lambda container: container.name)


def node_document(node: LabNode, lab: str) -> Document:
    """The Node that the kubelet registers."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                LAB_LABEL: lab,
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/hollow": "true",
            },
        },
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": list(node.pod_cidrs)},
    }


def node_status(node: LabNode, logs_port: int, now: str) -> Document:
    """The status of a node that is ready; the API server asks for logs on this host's loopback."""
    addresses = [{"type": "InternalIP", "address": ip} for ip in node.addresses]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "pods are network namespaces here",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": "localhost"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": logs_port}},
            "capacity": CAPACITY,
            "allocatable": CAPACITY,
            "conditions": [ready],
            "nodeInfo": {"kubeletVersion": VERSION, "operatingSystem": "linux"},
        }
    }


def _status(pod: Pod, status: Document) -> Document:
    # The API server refuses a patch whose uid is not the object's: another pod of that name.
    return {"metadata": {"uid": pod.uid}, "status": status}


def _ips(node: LabNode, addresses: tuple[str, ...]) -> Document:
    return {
        "hostIP": node.addresses[0],
        "hostIPs": [{"ip": ip} for ip in node.addresses],
        "podIP": addresses[0],
        "podIPs": [{"ip": ip} for ip in addresses],
    }


def _container(container: Container, uid: str, started: str) -> Document:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "containerID": f"lab://{uid}/{container.name}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": started}},
    }
