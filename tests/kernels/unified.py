"""A kubelet's pod in control groups of version 2, which this machine may not have: by the lab's own
configuration of kubelet and containerd, and its own view and control groups of a node.

`python -m tests.kernels.unified` prints as JSON what limit of memory the pod has, whether the lab
finds its process, and what of its control groups is left in the end; `null` where they are of
version 1. There is no API server: the kubelet takes its pod from a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from lab.api.real import bringup, cgroups, configuration, containerd, programs, view
from lab.api.real.images import RESPONDER
from lab.api.real.parts import Parts
from lab.names import Shape, places
from lab.processes import Process
from lab.topology import lab_node
from tests.testbed.waiting import ending, eventually

UID = "11111111-2222-3333-4444-555555555555"
LIMIT = 64 << 20
WELL = {"limit": LIMIT, "found": True, "left": []}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": UID},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "main",
                "image": RESPONDER,
                "args": ["serve", "80"],
                "resources": {"limits": {"memory": str(LIMIT)}},
            }
        ],
    },
}


def prepare(parts: Parts) -> Path:
    """All files of the node; the folder from which its kubelet takes pods."""
    here = parts.node.places
    pods = parts.folder / "pods"
    for path in (parts.root, here.cni_conf, here.cni_bin, parts.cni_state, pods):
        path.mkdir(parents=True)
    runc = programs.debian("runc", "usr/sbin/runc")
    chain = json.loads(configuration.cni(parts, Shape.PTP))
    kubelet = {
        **configuration.kubelet(parts, Path()),
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "staticPodPath": str(pods),
    }
    texts = {
        parts.folder / "containerd.toml": configuration.containerd(parts, runc),
        parts.folder / "kubelet.json": json.dumps(kubelet),
        here.cni_conf / "10-net.conflist": json.dumps({**chain, "plugins": chain["plugins"][:1]}),
    }
    for path, text in texts.items():
        path.write_text(text)
    for plugin in programs.debian("containernetworking-plugins", bringup.PLUGINS).iterdir():
        (here.cni_bin / plugin.name).symlink_to(plugin)
    return pods


def ask(stack: ExitStack, parts: Parts) -> dict[str, object]:
    """Have the pod run, and look at it."""
    pods, folder = prepare(parts), parts.folder
    ready = folder / "view.ready"
    words = [str(parts.root), str(ready), *parts.shown()]
    keeper = stack.enter_context(
        ending(subprocess.Popen([sys.executable, "-m", "lab.api.real.view", *words]))
    )
    eventually(ready.exists, "the node's view")
    node = Process(parts.view, keeper.pid, 0, "")
    command = view.inside(node, *containerd.command(parts))
    stack.enter_context(ending(subprocess.Popen(command, stdout=sys.stderr)))
    eventually(lambda: containerd.answers(parts), "containerd")
    containerd.load_own(parts)
    kubelet = [programs.kubernetes("kubelet"), f"--config={folder}/kubelet.json"]
    kubelet.append(f"--hostname-override={parts.node.name}")
    stack.enter_context(ending(subprocess.Popen(view.inside(node, *kubelet), stdout=sys.stderr)))
    (pods / "web.json").write_text(json.dumps(POD))
    process = eventually(lambda: _of_responder(parts), "the pod's container", 120)
    group = Path(f"/proc/{process}/cgroup").read_text().strip().partition("::")[2]
    limit = int((cgroups.ROOT / group.lstrip("/") / "memory.max").read_text())
    return {"limit": limit, "found": cgroups.process_of(parts.cgroup, UID) is not None}


def _of_responder(parts: Parts) -> int | None:
    """The process of the pod's own container, which is not the one that pauses."""
    for path in (cgroups.ROOT / parts.cgroup).glob(f"kubepods/**/pod{UID}/*/cgroup.procs"):
        for line in path.read_text().split():
            if b"serve" in Path(f"/proc/{line}/cmdline").read_bytes().split(b"\0"):
                return int(line)
    return None


def main() -> None:
    """Ask this kernel."""
    if not (cgroups.ROOT / "cgroup.controllers").exists():
        print("null")
        return
    programs.check()
    lab = places("guest")
    parts = Parts(lab, lab_node(lab, 1))
    cgroups.make(parts.cgroup)
    with ExitStack() as stack:
        found = ask(stack, parts)
    eventually(lambda: not _tidied(parts), "no control group is left")
    json.dump({**found, "left": [str(path) for path in _tidied(parts)]}, sys.stdout)


def _tidied(parts: Parts) -> list[Path]:
    cgroups.remove(parts.cgroup)
    return cgroups.left(parts.cgroup)


if __name__ == "__main__":
    main()
