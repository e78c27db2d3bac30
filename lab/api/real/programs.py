"""The programs of real nodes: where they are, and who makes them where they are missing.

In a checkout `lab up --kubelet` builds them itself, with the testbed's own command; an installed
`ringfence` takes what a checkout has left in the cache.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from generators.errors import MachineLacks
from lab.api import assets

HOW = "`python -m tests.testbed node` in a checkout makes them once (Go, Debian's archive)"
NEEDED = ("nsenter", "setpriv", "pivot_root", "nft", "iptables", "ip6tables")
WATCHERS = 24
"""Instances of inotify that a control plane and a node take."""
CONTROLLERS = ("memory", "cpu", "cpuset", "pids")


def check() -> None:
    """Make what is missing; MachineLacks where this machine cannot run real nodes."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for program in NEEDED:
        if shutil.which(program, path=path) is None:
            raise MachineLacks(
                f"real nodes need {program}", "install util-linux, nftables and iptables"
            )
    _check_cgroups()
    _check_inotify()
    if not _all_there() and assets.SOURCES.is_dir():
        checkout = assets.SOURCES.parents[2]
        done = subprocess.run(
            [sys.executable, "-m", "tests.testbed", "node"],
            cwd=checkout,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise MachineLacks("the programs of real nodes could not be made (see above)", HOW)
    if not _all_there():
        raise MachineLacks("no programs of real nodes are on this machine", HOW)


def kubernetes(name: str) -> str:
    """kubelet, kube-proxy or kube-scheduler."""
    return str(_built(assets.NODE) / name)


def responder() -> Path:
    """The program that containers of the lab run."""
    return _built(assets.RESPONDER.module) / assets.RESPONDER.module


def coredns() -> Path:
    """The program that the cluster's DNS runs."""
    return _built(assets.COREDNS.module) / assets.COREDNS.module


def debian(package: str, path: str) -> Path:
    """A file of an unpacked package."""
    return assets.unpacked(package) / path


def _built(module: str) -> Path:
    folder = assets.of_module(module)
    if folder is None:
        raise MachineLacks(f"{module} is not built", HOW)
    return folder


def _all_there() -> bool:
    own = [assets.of_module(module) for module in assets.PROGRAMS if module != assets.KUBERNETES]
    unpacked = (assets.unpacked(package).is_dir() for package in assets.DEBIAN)
    return None not in (assets.find(), *own) and all(unpacked)


def _check_cgroups() -> None:
    root = Path("/sys/fs/cgroup")
    unified = root / "cgroup.controllers"
    if unified.exists():
        missing = set(CONTROLLERS) - set(unified.read_text().split())
    else:
        missing = {name for name in CONTROLLERS if not (root / name).is_dir()}
    if missing or not os.access(root, os.W_OK):
        raise MachineLacks(
            f"real nodes need cgroups to write to, with {', '.join(sorted(missing) or ['rw'])}",
            "mount them, or start a lab with hollow nodes: `ringfence lab up --api-server`",
        )


def _check_inotify() -> None:
    """Without one containerd starts, and offers nothing to kubelets."""
    libc = ctypes.CDLL(None, use_errno=True)
    taken = [libc.inotify_init1(os.O_CLOEXEC) for _ in range(WATCHERS)]
    for descriptor in taken:
        if descriptor >= 0:
            os.close(descriptor)
    if -1 in taken:
        raise MachineLacks(
            "no instances of inotify are left for a real node's programs",
            "end what else takes them, or raise fs.inotify.max_user_instances with sysctl",
        )
