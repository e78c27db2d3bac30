"""The controller's record: which namespace, by UID, belongs to which tenant.

It lives in ConfigMaps of the system namespace, where no tenant can write; sharded, so that ten
thousand namespaces stay below the size limit of one object. The enforcer believes the record, never
a label.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from generators.errors import InputError, Problem
from generators.labels import MANAGED_BY, MANAGER, RECORD_NAMESPACE
from generators.manifests import Document
from generators.objects import ConfigMap, Namespace
from generators.tenants.consents import (
    Consent,
    UnclearConsent,
    consents_text,
    parse_consents,
    with_consents,
)
from generators.tenants.model import TenantConfig

RECORD_PREFIX = "ringfence-record-"
SHARDS = "0123456789abcdef"


class Basis(StrEnum):
    """Why a namespace is its tenant's: what has to change for it to become another's."""

    NAME = "name"
    """The tenant file claims its name; another file may claim it for another tenant."""
    ADMISSION = "admission"
    """The webhook decided by who asked; stays until an admin moves it."""


@dataclass(frozen=True, slots=True, order=True)
class RecordEntry:
    """A namespace's name and its tenant; the record knows it by its UID."""

    namespace: str
    tenant: str
    basis: Basis = Basis.NAME
    consents: tuple[Consent, ...] = ()
    """What its tenant has agreed to by the namespace's annotation, and admission vouched for."""


def shard(uid: str) -> str:
    """The shard that a UID is kept in."""
    return hashlib.sha256(uid.encode()).hexdigest()[0]


def record_documents(entries: Mapping[str, RecordEntry]) -> list[Document]:
    """All shards, the empty ones too: applying them also removes what is no longer recorded."""
    data: dict[str, dict[str, str]] = {name: {} for name in SHARDS}
    for uid, entry in sorted(entries.items()):
        data[shard(uid)][uid] = entry_text(entry)
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": RECORD_PREFIX + name,
                "namespace": RECORD_NAMESPACE,
                "labels": {MANAGED_BY: MANAGER},
            },
            "data": shard_data,
        }
        for name, shard_data in data.items()
    ]


def entry_text(entry: RecordEntry) -> str:
    """An entry as a ConfigMap holds it; the basis is left out where it is the name."""
    value = {"namespace": entry.namespace, "tenant": entry.tenant}
    if entry.basis is not Basis.NAME:
        value["by"] = entry.basis.value
    if entry.consents:
        value["grants"] = consents_text(entry.consents)
    return json.dumps(value, separators=(",", ":"))


def read_record(config_maps: Iterable[ConfigMap]) -> Mapping[str, RecordEntry]:
    """UID -> entry, from the shards among the ConfigMaps; InputError for broken entries."""
    entries: dict[str, RecordEntry] = {}
    problems = []
    for config_map in config_maps:
        if not is_shard(config_map):
            continue
        for uid, text in config_map.data.items():
            entry = parse_entry(text)
            if entry is None:
                origin, path = config_map.origin, f"{config_map.name}.data.{uid}"
                what = 'is not {"namespace": NAME, "tenant": NAME}'
                problems.append(Problem(origin.file, origin.line, path, what, "remove the entry"))
            else:
                entries[uid] = entry
    if problems:
        raise InputError(problems)
    return dict(sorted(entries.items()))


def is_shard(config_map: ConfigMap) -> bool:
    """Whether a ConfigMap is a shard of the record."""
    return config_map.namespace == RECORD_NAMESPACE and is_shard_name(config_map.name)


def is_shard_name(text: str) -> bool:
    """Whether a ConfigMap of the system namespace with that name is a shard."""
    name = text.removeprefix(RECORD_PREFIX)
    return name != text and len(name) == 1 and name in SHARDS


def parse_entry(text: str) -> RecordEntry | None:
    """What `entry_text` wrote; None for anything else."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    namespace, tenant = value.get("namespace"), value.get("tenant")
    by, grants = value.get("by", Basis.NAME.value), value.get("grants", "")
    if not (isinstance(namespace, str) and isinstance(tenant, str) and isinstance(grants, str)):
        return None
    if by not in list(Basis):
        return None
    try:
        return RecordEntry(namespace, tenant, Basis(by), parse_consents(grants))
    except UnclearConsent:
        return None


def tenants_of(
    namespaces: Iterable[Namespace], record: Mapping[str, RecordEntry], config: TenantConfig
) -> tuple[Mapping[str, str], frozenset[str]]:
    """Namespace -> tenant as recorded by UID, and the namespaces in quarantine."""
    namespaces = sorted(namespaces, key=lambda n: n.name)
    tenants: dict[str, str] = {}
    for namespace in namespaces:
        entry = record.get(namespace.uid) if namespace.uid else None
        if entry is not None and entry.namespace == namespace.name:
            tenants[namespace.name] = entry.tenant
    return tenants, unconfirmed(namespaces, tenants, config)


def agreed(
    config: TenantConfig, namespaces: Iterable[Namespace], record: Mapping[str, RecordEntry]
) -> TenantConfig:
    """The tenant file with the grants that tenants agreed on, as recorded of these namespaces."""
    said = {}
    for namespace in namespaces:
        entry = record.get(namespace.uid) if namespace.uid else None
        if entry is not None and entry.namespace == namespace.name and entry.consents:
            said[namespace.name] = entry.consents
    return with_consents(config, said)


def unconfirmed(
    namespaces: Iterable[Namespace], tenants: Mapping[str, str], config: TenantConfig
) -> frozenset[str]:
    """Namespaces in quarantine: they carry a tenant label that nothing confirms, or two tenants
    claim their name equally well and no admin has decided.

    Protected and shared namespaces have no tenant, whatever their label; it just selects nothing.
    """
    nobodys = config.protected_namespaces.union(*(c.namespaces for c in config.shared))
    return frozenset(
        namespace.name
        for namespace in namespaces
        if namespace.name not in tenants
        and namespace.name not in nobodys
        and (config.label_key in namespace.labels or config.tied(namespace.name))
    )
