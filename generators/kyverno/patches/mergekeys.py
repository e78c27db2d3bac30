"""How lists of built-in kinds merge: which fields are lists of what, and by which keys.

Facts of the Kubernetes API as the merge of upstream's engine knows them, written down by type; a
test compares them with the reference. Lists that are not here are replaced as a whole, and so are
all lists of kinds that are not here, but for those of `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Listing:
    """A field of a type: what is in it, and the keys that tell its elements apart.

    No keys: texts that are a set. None: no list, or one that is replaced.
    """

    of: str = ""
    keys: tuple[str, ...] | None = None


Fields = Mapping[str, Listing]


def _lists(**keys: str) -> dict[str, Listing]:
    """Lists of maps that hold no further lists."""
    return {field: Listing("", tuple(key.split())) for field, key in keys.items()}


def _inside(**types: str) -> dict[str, Listing]:
    return {field: Listing(of) for field, of in types.items()}


_CONDITIONS = _lists(conditions="type")

TYPES: Mapping[str, Fields] = {
    "ObjectMeta": {"finalizers": Listing("", ()), **_lists(ownerReferences="uid")},
    "Container": _lists(
        env="name",
        ports="containerPort protocol",
        volumeDevices="devicePath",
        volumeMounts="mountPath",
    ),
    "EphemeralContainer": _lists(env="name", volumeDevices="devicePath", volumeMounts="mountPath"),
    "EphemeralVolume": _inside(volumeClaimTemplate="Templated"),
    "Templated": _inside(metadata="ObjectMeta"),
    "Volume": _inside(ephemeral="EphemeralVolume"),
    "PodSpec": {
        "containers": Listing("Container", ("name",)),
        "initContainers": Listing("Container", ("name",)),
        "ephemeralContainers": Listing("EphemeralContainer", ("name",)),
        "volumes": Listing("Volume", ("name",)),
        **_lists(
            hostAliases="ip",
            imagePullSecrets="name",
            topologySpreadConstraints="topologyKey whenUnsatisfiable",
        ),
    },
    "PodStatus": _lists(conditions="type", podIPs="ip"),
    "PodTemplate": _inside(metadata="ObjectMeta", spec="PodSpec"),
    "PodHolder": _inside(template="PodTemplate"),
    "JobTemplate": _inside(metadata="ObjectMeta", spec="PodHolder"),
    "ClaimTemplate": _inside(metadata="ObjectMeta", status="Conditions"),
    "StatefulSetSpec": _inside(template="PodTemplate", volumeClaimTemplates="ClaimTemplate"),
    "CronJobSpec": _inside(jobTemplate="JobTemplate"),
    "Conditions": _CONDITIONS,
    "NodeSpec": {"podCIDRs": Listing("", ())},
    "NodeStatus": _lists(addresses="type", conditions="type"),
    "ServiceSpec": _lists(ports="port protocol"),
    "CSINodeSpec": _lists(drivers="name"),
}

_POD = _inside(spec="PodSpec", status="PodStatus")
_WORKLOAD = _inside(spec="PodHolder", status="Conditions")
_STATUS = _inside(status="Conditions")
_WEBHOOKS = _lists(webhooks="name")

KINDS: Mapping[str, Mapping[str, Fields]] = {
    "v1": {
        "ComponentStatus": _CONDITIONS,
        "Namespace": _STATUS,
        "Node": _inside(spec="NodeSpec", status="NodeStatus"),
        "PersistentVolumeClaim": _STATUS,
        "Pod": _POD,
        "PodTemplate": _inside(template="PodTemplate"),
        "ReplicationController": _WORKLOAD,
        "Service": _inside(spec="ServiceSpec", status="Conditions"),
        "ServiceAccount": _lists(secrets="name"),
    },
    "apps/v1": {
        **dict.fromkeys(("DaemonSet", "Deployment", "ReplicaSet"), _WORKLOAD),
        "StatefulSet": _inside(spec="StatefulSetSpec", status="Conditions"),
    },
    "batch/v1": {"CronJob": _inside(spec="CronJobSpec"), "Job": _WORKLOAD},
    "batch/v1beta1": {"CronJob": _inside(spec="CronJobSpec")},
    "policy/v1": {"PodDisruptionBudget": _STATUS},
    "policy/v1beta1": {"PodDisruptionBudget": _STATUS},
    "storage.k8s.io/v1": {"CSINode": _inside(spec="CSINodeSpec")},
    "storage.k8s.io/v1beta1": {"CSINode": _inside(spec="CSINodeSpec")},
    "apiregistration.k8s.io/v1": {"APIService": _STATUS},
    "apiregistration.k8s.io/v1beta1": {"APIService": _STATUS},
    **{
        f"admissionregistration.k8s.io/{version}": {
            "MutatingWebhookConfiguration": _WEBHOOKS,
            "ValidatingWebhookConfiguration": _WEBHOOKS,
        }
        for version in ("v1", "v1beta1")
    },
}


def fields_of_kind(api_version: str, kind: str) -> Fields:
    """The fields of a kind; of every kind at least those of its metadata."""
    known = KINDS.get(api_version, {}).get(kind, {})
    return {"metadata": Listing("ObjectMeta"), **known}


def fields_of(type_name: str) -> Fields:
    """The fields of a type that `Listing.of` names."""
    return TYPES.get(type_name, {})
