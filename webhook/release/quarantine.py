"""`ringfence namespace label NAME --release`: ends a quarantine by hand.

Removes the tenant label with the caller's rights: the webhook checks them, and the controller,
which sees that admission let it pass, forgets the namespace and removes its policy.
"""

from __future__ import annotations

from generators.documents.json import Document, meta_of, strings
from generators.errors import Refused
from generators.kube.client import Client, PatchKind
from generators.kube.errors import Conflict, Invalid, KubeError, NotFound
from generators.kube.resources import CONFIG_MAPS, NAMESPACES
from generators.labels import RECORD_NAMESPACE, pointer
from generators.tenants.packed import DIGEST, GUARD_NAME, TEXT, unpacked

MANAGER = "ringfence-release"


def release(client: Client, name: str) -> str:
    """Release a namespace; what was done, or Refused with what to do instead."""
    try:
        data = strings(client.get(CONFIG_MAPS, GUARD_NAME, RECORD_NAMESPACE), "data")
    except NotFound:
        data = {}
    config = unpacked(data.get(TEXT, ""), data.get(DIGEST, ""), "the tenant file in force")
    if config is None:
        where = f"ConfigMap {RECORD_NAMESPACE}/{GUARD_NAME}"
        raise Refused(f"no tenant file is in force ({where}); see `ringfence controller verify`")
    try:
        meta = meta_of(client.get(NAMESPACES, name))
    except NotFound:
        raise Refused(f'there is no namespace "{name}"') from None
    tenant = meta.labels.get(config.label_key)
    if tenant is None:
        raise Refused(f'namespace "{name}" carries no label {config.label_key}; nothing holds it')
    if tenant in config.tenants:
        fix = f"label it for another tenant: kubectl label --overwrite namespace {name}"
        what = f'namespace "{name}" belongs to tenant {tenant}, which is in the tenant file'
        raise Refused(f"{what}; {fix} {config.label_key}=TENANT")
    path = pointer(config.label_key)
    patch: list[Document] = [
        {"op": "test", "path": "/metadata/uid", "value": meta.uid},
        {"op": "test", "path": path, "value": tenant},
        {"op": "remove", "path": path},
    ]
    try:
        after = client.patch(NAMESPACES, name, "", patch, kind=PatchKind.JSON, manager=MANAGER)
    except (Conflict, Invalid) as error:
        raise Refused(f'namespace "{name}" has just changed: {error}; try again') from error
    except KubeError as error:
        raise Refused(str(error)) from error
    if config.label_key in meta_of(after).labels:
        # Whoever is no admin has the label put back by admission.
        why = "only admins of the tenant file may release it"
        raise Refused(f'namespace "{name}" stays in quarantine: {why}; ask one of them')
    return f"namespace {name} is released: it belonged to tenant {tenant} and now belongs to none"
