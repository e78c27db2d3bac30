"""Control planes that several tests use, one after the other, each as if it were new.

    with Planes() as planes:
        with planes.one() as plane:
            plane.kubectl("create", "namespace", "app-test01")

To start one takes seconds of both cores; to make etcd hold again what it held at first takes a
moment, and API server and controller-manager follow as they follow every change. Of new kinds they
would keep something, so a plane to which a test added kinds is not used again.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from generators.documents.json import Document
from generators.kube.client import Client, DryRun
from generators.kube.errors import KubeError
from generators.kube.resources import NAMESPACES
from tests.testbed.plane import ControlPlane
from tests.testbed.waiting import eventually

Keys = Mapping[str, str]
"""Key -> value, both in base64, as etcd's JSON has them."""
FIRST, LAST = "/registry/", "/registry0"
SPACES = "/registry/namespaces/"
KINDS = "/registry/apiextensions.k8s.io/"
ITS_OWN = re.compile(
    "/registry/(leases/kube-|masterleases/|peerserverleases/|clusterroles/(admin|edit|view)$"
    "|serviceaccounts/(default|kube-[^/]+)/default$|configmaps/(default|kube-[^/]+)/kube-root-ca.crt$)"
)
"""What the programs of the plane write by themselves, some of it a while after they are ready."""
MOST_AT_ONCE = 100
SETTLED_SECONDS = 0.3
CLEAN_LOOKS, MOST_LOOKS = 3, 50
PROBE: Document = {
    "metadata": {"name": "nobody-looks-at-this-test01", "labels": {"client": "nobody"}}
}
"""A namespace that admission of ours would refuse."""


class Planes:
    """Control planes until the block ends; one that nobody uses is paused until the next test."""

    def __init__(self) -> None:
        self._idle: list[tuple[ControlPlane, Keys]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for plane, _first in self._idle:
            plane.stop()

    @contextlib.contextmanager
    def one(self) -> Iterator[ControlPlane]:
        """A control plane that has what every new one has, and nothing else."""
        plane, first = self._idle_one() or _started()
        again = False
        try:
            yield plane
            again = plane.whole and _made_new(plane, first)
        finally:
            if again:
                plane.pause()
                self._idle.append((plane, first))
            else:
                plane.stop()

    def _idle_one(self) -> tuple[ControlPlane, Keys] | None:
        if not self._idle:
            return None
        plane, first = self._idle.pop()
        plane.resume()
        # What its programs had open to each other may have lapsed meanwhile, and is opened anew.
        eventually(lambda: _takes_everything(plane), "the plane that waited takes writes again")
        return plane, first


def _started() -> tuple[ControlPlane, Keys]:
    plane = ControlPlane()
    plane.start()
    held = [_held(plane)]

    def settled() -> bool:
        held.append(_held(plane))
        return held[-1] == held[-2]

    eventually(settled, "the new plane has written what it writes", poll=SETTLED_SECONDS)
    return plane, held[-1]


def _made_new(plane: ControlPlane, first: Keys) -> bool:
    """Whether etcd holds what it held at first, and whoever follows it has noticed."""
    clean = 0
    for _ in range(MOST_LOOKS):
        held = _held(plane)
        added = held.keys() - first.keys()
        if any(_plain(key).startswith(KINDS) for key in added):
            return False
        # The controller-manager makes objects in every namespace it knows, so these go first.
        spaces = {key for key in added if _plain(key).startswith(SPACES)}
        changed = [key for key in first if held.get(key) != first[key]]
        _write(plane, [{"requestDeleteRange": {"key": key}} for key in spaces or added])
        _write(plane, [{"requestPut": {"key": key, "value": first[key]}} for key in changed])
        clean = 0 if added or changed else clean + 1
        if clean == CLEAN_LOOKS:
            return _takes_everything(plane)
    return False


def _takes_everything(plane: ControlPlane) -> bool:
    with Client.connect(str(plane.kubeconfig())) as admin, contextlib.suppress(KubeError):
        admin.create(NAMESPACES, PROBE, manager="test", dry_run=DryRun.ALL)
        return True
    return False


def _held(plane: ControlPlane) -> Keys:
    bounds = {"key": _encoded(FIRST), "range_end": _encoded(LAST)}
    found = plane.etcd("/v3/kv/range", bounds)["kvs"]
    assert isinstance(found, list)
    held = {item["key"]: item["value"] for item in found}
    return {key: held[key] for key in held if not ITS_OWN.match(_plain(key))}


def _write(plane: ControlPlane, wanted: Sequence[Mapping[str, object]]) -> None:
    for start in range(0, len(wanted), MOST_AT_ONCE):
        plane.etcd("/v3/kv/txn", {"success": wanted[start : start + MOST_AT_ONCE]})


def _plain(key: str) -> str:
    return base64.b64decode(key).decode()


def _encoded(key: str) -> str:
    return base64.b64encode(key.encode()).decode()
