"""The manifest by which krew installs the command as `kubectl ringfence`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import yaml


def manifest(version: str, url: str, archives: Mapping[str, Path]) -> str:
    """https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/; archives by OS-ARCH."""
    document = {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "ringfence"},
        "spec": {
            "version": f"v{version}",
            "shortDescription": "Keep tenants apart, explain every verdict",
            "description": (
                "Who reaches whom in a cluster with tenants, why, and what a change of tenants\n"
                "would open or close: of manifests, or of a live cluster.\n"
            ),
            "caveats": "It needs Python 3.11 or newer as `python3`.\n",
            "platforms": [_platform(*each, url) for each in sorted(archives.items())],
        },
    }
    text: str = yaml.safe_dump(document, sort_keys=False, width=100)
    return text


def _platform(name: str, archive: Path, url: str) -> dict[str, object]:
    system, _, machine = name.partition("-")
    return {
        "selector": {"matchLabels": {"os": system, "arch": machine}},
        "uri": f"{url}/{archive.name}",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "bin": "ringfence",
    }
