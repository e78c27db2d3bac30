"""Charts as `helm package` makes them, but with the same bytes each time, and as OCI layouts.

An OCI layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) is a registry
as a folder: `oras cp --from-oci-layout` or `skopeo copy oci:` brings it into one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools.release.tarballs import tar_gz

CONFIG = "application/vnd.cncf.helm.config.v1+json"
CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LEFT_OUT = ("ci",)
"""As .helmignore has it: values for our tests."""


@dataclass(frozen=True, slots=True)
class Package:
    """A chart that was packed, and what Chart.yaml says of it."""

    file: Path
    meta: dict[str, object]


def packed(chart: Path, folder: Path) -> Package:
    """`NAME-VERSION.tgz` in the folder, Chart.yaml first. Links are no part of a chart."""
    meta: dict[str, object] = yaml.safe_load((chart / "Chart.yaml").read_text())
    paths = sorted(path for path in chart.rglob("*") if path.is_file() or path.is_symlink())
    kept = [path for path in paths if _belongs(path.relative_to(chart))]
    if links := [path for path in kept if path.is_symlink()]:
        raise ValueError(f"{links[0]} is a symbolic link; a chart must hold the file itself")
    kept.sort(key=lambda path: path.name != "Chart.yaml")
    files = {f"{chart.name}/{path.relative_to(chart)}": path.read_bytes() for path in kept}
    file = folder / f"{meta['name']}-{meta['version']}.tgz"
    file.write_bytes(tar_gz(files))
    return Package(file, meta)


def _belongs(path: Path) -> bool:
    return path.parts[0] not in LEFT_OUT and not any(part.startswith(".") for part in path.parts)


def write_layout(folder: Path, package: Package) -> None:
    """The package as the only image of an OCI layout, tagged with its version."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    meta = package.meta
    title = {
        "org.opencontainers.image.title": str(meta["name"]),
        "org.opencontainers.image.version": str(meta["version"]),
        "org.opencontainers.image.description": str(meta["description"]),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(_json(meta), CONFIG),
        "layers": [put(package.file.read_bytes(), CONTENT)],
        "annotations": title,
    }
    tag = {"org.opencontainers.image.ref.name": str(meta["version"])}
    found = put(_json(manifest), MANIFEST) | {"annotations": tag}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [found]}
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
