"""What a real node of a lab is made of: names, folders and addresses. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.names import Places
from lab.topology import LabNode

SCHEDULER = "kube-scheduler"
CNI_CONF, CNI_BIN, CNI_STATE = "/etc/cni/net.d", "/opt/cni/bin", "/var/lib/cni"
"""Where the node has what is below its folder `cni-NODE` on the machine."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One real node."""

    lab: Places
    node: LabNode

    @property
    def view(self) -> str:
        """The process that keeps its view of the machine, and with it all others."""
        return f"node-{self.node.name}"

    @property
    def containerd(self) -> str:
        """Its container runtime."""
        return f"containerd-{self.node.name}"

    @property
    def kubelet(self) -> str:
        """Its kubelet."""
        return self.node.places.kubelet

    @property
    def proxy(self) -> str:
        """Its kube-proxy."""
        return f"kube-proxy-{self.node.name}"

    @property
    def folder(self) -> Path:
        """Its configurations, and what containerd keeps; the same path on machine and node."""
        return self.lab.run / self.view

    @property
    def root(self) -> Path:
        """Where its view is put together; on the machine an empty folder."""
        return self.folder / "root"

    @property
    def socket(self) -> Path:
        """Where containerd answers."""
        return self.folder / "containerd.sock"

    @property
    def cni_state(self) -> Path:
        """What the CNI library writes down."""
        return self.node.places.cni_conf.parent / "state"

    @property
    def cgroup(self) -> str:
        """Below which all of its pods are, in every hierarchy."""
        return self.node.places.netns

    def kubeconfig(self, name: str) -> Path:
        """That of one of its processes."""
        return self.folder / f"{name}.kubeconfig"

    def shown(self) -> tuple[str, ...]:
        """Folders of the machine that the node has elsewhere."""
        here = self.node.places
        return (
            f"{self.lab.run}:{self.lab.run}",
            f"{here.cni_conf}:{CNI_CONF}",
            f"{here.cni_bin}:{CNI_BIN}",
            f"{self.cni_state}:{CNI_STATE}",
        )
