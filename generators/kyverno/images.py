"""The variable `images`: the images of a Pod's containers by their parts, as upstream has them."""

from __future__ import annotations

import re

from generators.documents.json import Value, mappings, text
from generators.kyverno.failures import BadExpression
from generators.kyverno.model import Document

_WITHIN: dict[str, tuple[str, ...]] = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"),
        ("spec", "template", "spec"),
    ),
}
_LISTS = ("initContainers", "containers", "ephemeralContainers")
_DEFAULT = "docker.io"
_LONGEST = 1_000
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?", re.ASCII)
_PATH = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,}", re.ASCII)


def images_of(document: Document) -> Document:
    """By list and name of its container; empty for what has none. BadExpression for no image."""
    path = _WITHIN.get(text(document, "kind"), ())
    found: Document = {}
    for key in _LISTS if path else ():
        parts: Document = {}
        for place, container in enumerate(mappings(document, *path, key)):
            image = text(container, "image")
            if image:
                pointer = "/".join(("", *path, key, str(place), "image"))
                parts[text(container, "name")] = {**_parts(image), "jsonPointer": pointer}
        if parts:
            found[key] = parts
    return found


def _parts(image: str) -> dict[str, Value]:
    name, at, digest = image.partition("@")
    name, tag = _tagged(name)
    registry, slash, path = name.partition("/")
    if not slash or not _is_registry(registry):
        registry, path = _DEFAULT, name
    if not at:
        tag = tag or "latest"
    right = (
        len(image) <= _LONGEST
        and _DOMAIN.fullmatch(registry)
        and _PATH.fullmatch(path)
        and (not tag or _TAG.fullmatch(tag))
        and (not at or _DIGEST.fullmatch(digest))
    )
    if not right:
        raise BadExpression(f"invalid image {image!r:.100}")
    base = f"{registry}/{path}"
    made: dict[str, Value] = {"registry": registry, "path": path}
    made |= {"name": path.rpartition("/")[2], "referenceWithTag": f"{base}:{tag}"}
    made["reference"] = f"{base}@{digest}" if digest else f"{base}:{tag}"
    return made | ({"tag": tag} if tag else {}) | ({"digest": digest} if digest else {})


def _tagged(name: str) -> tuple[str, str]:
    """Name and tag: what follows the last colon, where no slash follows that."""
    before, colon, tag = name.rpartition(":")
    return (before, tag) if colon and "/" not in tag else (name, "")


def _is_registry(first: str) -> bool:
    return any(mark in first for mark in ".:") or first == "localhost" or first.lower() != first
