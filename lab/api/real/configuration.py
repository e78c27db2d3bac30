"""The configurations of containerd, CNI, kubelet and kube-proxy on a real node. Pure.

What surprises is said beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

from generators.documents.json import Document
from lab.api.real import dns
from lab.api.real.images import PAUSE
from lab.api.real.parts import CNI_BIN, CNI_CONF, CNI_STATE, Parts
from lab.names import Shape

CNI_VERSION = "1.0.0"
NETWORK = "ringfence-lab"
BRIDGE = "cni0"
KUBELET_PORT = 10250


def containerd(parts: Parts, runc: Path) -> str:
    """containerd's config.toml."""
    folder = parts.folder
    cri = "io.containerd.grpc.v1.cri"
    unused = ", ".join(
        f'"io.containerd.snapshotter.v1.{name}"' for name in ("aufs", "btrfs", "devmapper", "zfs")
    )
    return f"""version = 2
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = [{unused}]
[grpc]
  address = "{parts.socket}"
[plugins."{cri}"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE runc may not lower it, and says so in a riddle.
  restrict_oom_score_adj = true
  [plugins."{cri}".cni]
    bin_dir = "{CNI_BIN}"
    conf_dir = "{CNI_CONF}"
  [plugins."{cri}".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."{cri}".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."{cri}".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"""


def cni(parts: Parts, shape: Shape) -> str:
    """The chain that Ringfence joins: a network of the CNI project, and portmap."""
    first: dict[str, object] = {"type": "ptp", "ipMasq": False}
    if shape is Shape.BRIDGE:
        first = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True}
    first["ipam"] = {
        "type": "host-local",
        "dataDir": f"{CNI_STATE}/networks",
        "ranges": [[{"subnet": cidr}] for cidr in parts.node.pod_cidrs],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    chain = [first, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": chain}, indent=2)


def kubelet(parts: Parts, authority: Path) -> Document:
    """KubeletConfiguration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        # containerd 1.6 cannot tell which driver it has.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{parts.cgroup}",
        "containerRuntimeEndpoint": f"unix://{parts.socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "port": KUBELET_PORT,
        "healthzBindAddress": "127.0.0.1",
        "clusterDomain": dns.DOMAIN,
        "clusterDNS": list(dns.ADDRESSES),
        "resolvConf": "",
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
        # It asks cadvisor for the disk below, which does not know every one.
        "localStorageCapacityIsolation": False,
        "imageMinimumGCAge": "24h",
        "enforceNodeAllocatable": [],
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
    }


def proxy(parts: Parts) -> Document:
    """KubeProxyConfiguration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": parts.node.name,
        "clientConnection": {"kubeconfig": str(parts.kubeconfig(parts.proxy))},
        "detectLocalMode": "NodeCIDR",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The connection table is the machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
