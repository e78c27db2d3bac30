"""Where the control plane's programs are: etcd, kube-apiserver, kube-controller-manager, kubectl.

`$KUBEBUILDER_ASSETS` first, then the cache that `make testbed` fills. The cache lies outside the
checkout, under the hash of what goes into the build, so a clean clone finds it again; an installed
command has no sources to hash and takes what was built last. Building needs Go and is the testbed's
business (tests/testbed/build.py).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from generators.errors import MachineLacks

SOURCES = Path(__file__).resolve().parents[2] / "tests" / "testbed" / "go"
NEEDED = ("etcd", "kube-apiserver", "kubectl")
CONTROLLER_MANAGER = "kube-controller-manager"
KUBERNETES = "kubernetes"
"""The module of the release that tests and lab take."""
NODE = "node"
NODE_PROGRAMS = ("kubelet", "kube-proxy", "kube-scheduler")
DIGEST_LENGTH = 16
HOW = (
    "`make testbed` in a checkout builds them once; or point KUBEBUILDER_ASSETS to a folder with "
    "etcd, kube-apiserver, kube-controller-manager and kubectl; or join an API server that runs "
    "already: `ringfence lab up --kubeconfig FILE`"
)


@dataclass(frozen=True, slots=True)
class Product:
    """One Go module below `go/`, the binary that it gives and the names it is called by."""

    module: str
    package: str
    names: tuple[str, ...]
    ldflags: str = "-s -w"
    tags: str = ""

    @property
    def folder(self) -> Path:
        """Where its go.mod is."""
        return SOURCES / self.module


def kubernetes_release(module: str = KUBERNETES) -> str:
    """The release that the module's go.mod requires, e.g. `v1.36.3`."""
    text = (SOURCES / module / "go.mod").read_text()
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod of {module} requires no k8s.io/kubernetes")
    return found.group(1)


@cache
def kubernetes(module: str = KUBERNETES) -> Product:
    """The control plane as the checkout has it; `kubernetes-1.30` is that of another release."""
    names = ("etcd", "kube-apiserver", CONTROLLER_MANAGER, "kubectl")
    return Product(module, ".", names, f"-s -w {_version_flags(kubernetes_release(module))}")


RESPONDER = Product("responder", ".", ("responder",))
"""What real nodes run in containers."""
COREDNS = Product("coredns", ".", ("coredns",))
"""The DNS of their cluster."""
PROGRAMS = {
    KUBERNETES: NEEDED,
    NODE: NODE_PROGRAMS,
    **{product.module: product.names for product in (RESPONDER, COREDNS)},
}
"""What a built folder must hold, by module."""
DEBIAN = ("containerd", "runc", "containernetworking-plugins")
"""Packages that real nodes need, unpacked and not installed."""


@cache
def node() -> Product:
    """What runs on real nodes, of the release of the control plane."""
    return Product(NODE, ".", NODE_PROGRAMS, f"-s -w {_version_flags(kubernetes_release(NODE))}")


def of_real_nodes() -> tuple[Product, ...]:
    """All that a lab with real nodes needs beside the control plane."""
    return (RESPONDER, COREDNS, node())


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/ringfence/testbed`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ringfence" / "testbed"


def cache_folder(product: Product) -> Path:
    """Where the product of exactly these sources and flags lies, built or not."""
    flags = f"{product.ldflags} {product.tags}".rstrip()
    digest = hashlib.sha256(f"{platform.machine()} {product.package} {flags}".encode())
    for path in sorted(product.folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache_root() / f"{product.module}-{digest.hexdigest()[:DIGEST_LENGTH]}"


def unpacked(package: str) -> Path:
    """Where a Debian package of real nodes is unpacked, or is to be."""
    return cache_root() / f"debian-{package}"


def cached(product: Product) -> Path | None:
    """The folder with all of the product's programs, None where it was not built."""
    folder = cache_folder(product)
    return folder if _complete(folder, product.names) else None


def named_by_environment() -> Path | None:
    """What `$KUBEBUILDER_ASSETS` names; MachineLacks when that is not enough."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return None
    # Such folders often come without a controller-manager; who needs it says so.
    missing = [name for name in NEEDED if not (Path(assets) / name).exists()]
    if missing:
        raise MachineLacks(
            f"KUBEBUILDER_ASSETS={assets} has no {', '.join(missing)}",
            "unset it and the testbed builds its own",
        )
    return Path(assets)


def control_plane() -> Path:
    """The folder with all programs of a control plane; MachineLacks where there is none."""
    folder = find()
    if folder is None:
        raise MachineLacks("this machine has no programs of a control plane", HOW)
    if not (folder / CONTROLLER_MANAGER).exists():
        raise MachineLacks(f"{folder} has no {CONTROLLER_MANAGER}", HOW)
    return folder


def find() -> Path | None:
    """The folder with the control plane's programs, None when they would have to be built."""
    return named_by_environment() or of_module(KUBERNETES)


def of_module(module: str) -> Path | None:
    """The folder with the programs of a Go module, None when they would have to be built."""
    if SOURCES.is_dir():
        return cached(_product(module))
    # Other releases, which tests alone take, have their number before the digest.
    pattern = f"{module}-{'[0-9a-f]' * DIGEST_LENGTH}"
    built = [f for f in cache_root().glob(pattern) if _complete(f, PROGRAMS[module])]
    return max(built, key=lambda folder: folder.stat().st_mtime, default=None)


def _product(module: str) -> Product:
    return {product.module: product for product in (kubernetes(), *of_real_nodes())}[module]


def _complete(folder: Path, names: tuple[str, ...]) -> bool:
    return all((folder / name).exists() for name in names)


def _version_flags(release: str) -> str:
    """Without these the API server calls itself v0.0.0-master; clients that check it fail."""
    major, minor, _ = release.lstrip("v").split(".")
    values = {
        "gitVersion": release,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "published",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {p}.{key}={value}" for p in packages for key, value in values.items())
