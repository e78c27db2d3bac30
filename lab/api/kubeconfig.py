"""Kubeconfigs of a lab: the one a person uses, and the same as seen from inside a node.

Inside a node the API server is on the node's loopback (uplink.py leads there); the name that its
certificate carries stays what it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from generators.errors import InputError, Problem
from lab.names import LOOPBACK

FILE_KEYS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True, slots=True)
class Target:
    """Where an API server listens."""

    scheme: str
    host: str
    port: int


def target(path: Path, context: str | None = None) -> Target:
    """The API server of a context, by default the current one."""
    _, cluster = _load(path, context)
    return _target(path, cluster)


def absolute(path: Path, context: str | None = None) -> bytes:
    """The same kubeconfig for any folder; `context` becomes the current one."""
    config, _ = _load(path, context)
    _make_absolute(config, path.resolve().parent)
    return json.dumps(config, indent=1).encode()


def inside(path: Path) -> bytes:
    """The kubeconfig for a node's processes."""
    config, cluster = _load(path)
    where = _target(path, cluster)
    cluster["server"] = f"{where.scheme}://{LOOPBACK}:{where.port}"
    if where.scheme == "https" and where.host != LOOPBACK:
        cluster.setdefault("tls-server-name", where.host)
    _make_absolute(config, path.resolve().parent)
    return json.dumps(config, indent=1).encode()


def _load(path: Path, wanted: str | None = None) -> tuple[dict[str, object], dict[str, object]]:
    """The file, and in it the cluster of its current context, which `wanted` becomes."""
    try:
        config = yaml.safe_load(path.read_text())
        if wanted:
            config["current-context"] = wanted
        context = _named(config["contexts"], str(config["current-context"]))["context"]
        cluster = _named(config["clusters"], str(context["cluster"]))["cluster"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, LookupError) as error:
        raise _unusable(path, f"no cluster can be read from it ({error!r})") from error
    return config, cluster


def _named(items: list[dict[str, dict[str, object]]], name: str) -> dict[str, dict[str, object]]:
    for item in items:
        if str(item["name"]) == name:
            return item
    raise LookupError(f"nothing is called {name}")


def _target(path: Path, cluster: dict[str, object]) -> Target:
    split = urlsplit(str(cluster.get("server", "")))
    if split.scheme not in ("http", "https") or not split.hostname:
        raise _unusable(path, f"its server {cluster.get('server')!r} is no URL")
    port = split.port or (443 if split.scheme == "https" else 80)
    return Target(split.scheme, split.hostname, port)


def _make_absolute(config: dict[str, object], folder: Path) -> None:
    """Files that a kubeconfig names are relative to it; the copy lies elsewhere."""
    for section, inner in (("clusters", "cluster"), ("users", "user")):
        items = config.get(section)
        for item in items if isinstance(items, list) else ():
            for key in FILE_KEYS:
                if key in item.get(inner, {}):
                    item[inner][key] = str(folder / str(item[inner][key]))


def _unusable(path: Path, what: str) -> InputError:
    how = "give a kubeconfig with a current context, as `kubectl config view` shows"
    return InputError([Problem(str(path), 1, "", f"not a usable kubeconfig: {what}", how)])
