"""The objects of an API server as the lab's own store has them, read once for a command."""

from __future__ import annotations

from pathlib import Path

from generators.kube.client import Client
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, NODES, PODS
from lab.store import Store, Stored, key_of, parse

KINDS = (NAMESPACES, NODES, PODS, NETWORK_POLICIES)


def load(kubeconfig: Path) -> Store:
    """Everything of the kinds that the lab shows."""
    store = Store()
    with Client.connect(str(kubeconfig), user_agent="ringfence-lab") as client:
        for resource in KINDS:
            for document in client.list_all(resource):
                store.objects[key_of(parse(document))] = Stored(document)
    return store
