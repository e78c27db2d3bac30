"""Configurations as the CNIs in use write them: file name and text.

Written from their templates and documentation; what does not matter for chaining is shortened.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One CNI's configuration."""

    file: str
    text: str


AZURE = """{
   "cniVersion":"0.3.0",
   "name":"azure",
   "plugins":[
      {
         "type":"azure-vnet",
         "mode":"transparent",
         "ipsToRouteViaHost":["169.254.20.10"],
         "ipam":{%s}
      },
      {
         "type":"portmap",
         "capabilities":{
            "portMappings":true
         },
         "snat":true
      }
   ]
}
"""
CALICO = """{
  "name": "k8s-pod-network",
  "cniVersion": "%s",
  "plugins": [
    {
      "type": "calico",
      "datastore_type": "kubernetes",
      "mtu": 0,
      "ipam": {"type": "calico-ipam"},
      "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}
    },
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}%s
  ]
}"""
ISTIO = """,
    {
      "type": "istio-cni",
      "log_level": "info",
      "cni_agent_run_dir": "/var/run/istio-cni",
      "ambient_enabled": true,
      "exclude_namespaces": ["istio-system", "kube-system"]
    }"""
FLANNEL = """{
  "name":"cbr0",
  "cniVersion":"1.0.0",
  "plugins":[
    {
      "type":"flannel",
      "delegate":{
        "hairpinMode":true,
        "forceAddress":true,
        "isDefaultGateway":true
      }
    },
    {
      "type":"portmap",
      "capabilities":{
        "portMappings":true
      }
    },
    {
      "type":"bandwidth",
      "capabilities":{
        "bandwidth":true
      }
    }
  ]
}
"""
SHAPES = {
    "aws": Shape(
        "10-aws.conflist",
        """{
  "cniVersion": "0.4.0",
  "name": "aws-cni",
  "disableCheck": true,
  "plugins": [
    {
      "name": "aws-cni",
      "type": "aws-cni",
      "vethPrefix": "eni",
      "mtu": "9001",
      "podSGEnforcingMode": "strict",
      "pluginLogLevel": "DEBUG",
      "capabilities": {"io.kubernetes.cri.pod-annotations": true}
    },
    {
      "name": "egress-cni",
      "type": "egress-cni",
      "mtu": "9001",
      "enabled": "false",
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "fd00::ac:00/118"}]]}
    },
    {
      "type": "portmap",
      "capabilities": {"portMappings": true},
      "snat": true
    }
  ]
}""",
    ),
    "azure": Shape("10-azure.conflist", AZURE % '"type":"azure-vnet-ipam"'),
    "azure dual": Shape(
        "10-azure.conflist", AZURE % '"mode":"dualStackOverlay","type":"azure-cns"'
    ),
    "antrea": Shape(
        "10-antrea.conflist",
        """{
    "cniVersion":"0.3.0",
    "name": "antrea",
    "plugins": [
        {
            "type": "antrea",
            "ipam": {
                "type": "host-local"
            }
        },
        {
            "type": "portmap",
            "capabilities": {"portMappings": true}
        },
        {
            "type": "bandwidth",
            "capabilities": {"bandwidth": true}
        }
    ]
}
""",
    ),
    "kube-ovn": Shape(
        "01-kube-ovn.conflist",
        """{
  "name":"kube-ovn",
  "cniVersion":"0.3.1",
  "plugins":[
    {
      "type":"kube-ovn",
      "log_level":"info",
      "server_socket":"/run/openvswitch/kube-ovn-daemon.sock"
    },
    {
      "type":"portmap",
      "capabilities":{"portMappings":true}
    }
  ]
}
""",
    ),
    "istio": Shape("10-calico.conflist", CALICO % ("0.3.1", ISTIO)),
    "k3s flannel": Shape("10-flannel.conflist", FLANNEL),
    "multus": Shape(
        "00-multus.conf",
        """{
    "cniVersion": "0.3.1",
    "name": "multus-cni-network",
    "type": "multus-shim",
    "logLevel": "verbose",
    "logToStderr": true,
    "clusterNetwork": "/host/etc/cni/net.d/10-flannel.conflist"
}
""",
    ),
    "calico, old": Shape("10-calico.conflist", CALICO % ("0.3.0", "")),
    "calico": Shape(
        "10-calico.conflist",
        CALICO % ("0.3.1", ',\n    {"type": "bandwidth", "capabilities": {"bandwidth": true}}'),
    ),
    "weave": Shape(
        "10-weave.conflist",
        """{
    "cniVersion": "0.3.0",
    "name": "weave",
    "plugins": [
        {
            "name": "weave",
            "type": "weave-net",
            "hairpinMode": true
        },
        {
            "type": "portmap",
            "capabilities": {"portMappings": true},
            "snat": true
        }
    ]
}
""",
    ),
    "ovn-kubernetes": Shape(
        "10-ovn-kubernetes.conf",
        '{"cniVersion":"0.4.0","name":"ovn-kubernetes","type":"ovn-k8s-cni-overlay","ipam":{},'
        '"dns":{},"logFile":"/var/log/ovn-kubernetes/ovn-k8s-cni-overlay.log","logLevel":"5"}',
    ),
    "kindnet": Shape(
        "10-kindnet.conflist",
        """
{
\t"cniVersion": "0.3.1",
\t"name": "kindnet",
\t"plugins": [
\t{
\t\t"type": "ptp",
\t\t"ipMasq": false,
\t\t"ipam": {
\t\t\t"type": "host-local",
\t\t\t"dataDir": "/run/cni-ipam-state",
\t\t\t"routes": [{ "dst": "0.0.0.0/0" }],
\t\t\t"ranges": [ [ { "subnet": "10.244.0.0/24" } ] ]
\t\t},
\t\t"mtu": 1500
\t},
\t{
\t\t"type": "portmap",
\t\t"capabilities": {
\t\t\t"portMappings": true
\t\t}
\t}
\t]
}
""",
    ),
    "gke": Shape(
        "10-containerd-net.conflist",
        """{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "disableCheck": true,
  "plugins": [
    {
      "type": "ptp",
      "mtu": 1460,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.8.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}""",
    ),
    "CRLF": Shape("10-flannel.conflist", FLANNEL.replace("\n", "\r\n")),
    "no version": Shape(
        "10-net.conflist",
        '{"name": "net", "plugins": [{"type": "bridge", "isGateway": true}, {"type": "portmap"}]}',
    ),
    "single": Shape(
        "05-cilium.conf",
        """{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "type": "cilium-cni",
  "enable-debug": false,
  "log-file": "/var/run/cilium/cilium-cni.log"
}
""",
    ),
    "single, no version": Shape(
        "10-flannel.conf",
        '{"name": "cbr0", "type": "flannel", "delegate": {"isDefaultGateway": true}}\n',
    ),
}
