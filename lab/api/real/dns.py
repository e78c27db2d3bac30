"""The DNS of a cluster of real nodes: CoreDNS as a pod, at the address that kubelets give to pods.

The objects are those that kubeadm makes, with one replica and without a cache, so that a Service
has its name at once. Nobody is asked about names outside of the cluster.
"""

from __future__ import annotations

import ipaddress
import time

from generators.documents.json import integer
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import DEPLOYMENTS
from lab.api import users
from lab.api.plane import SERVICE_RANGES
from lab.api.real.images import COREDNS
from lab.names import Places
from lab.parts import POLL_SECONDS, LabFailed

DOMAIN = "cluster.local"
NAMESPACE, NAME = "kube-system", "coredns"
ADDRESSES = tuple(str(ipaddress.ip_network(cidr)[10]) for cidr in SERVICE_RANGES)
"""The tenth of each range of Services, as in any cluster."""
READY_SECONDS = 60.0
OBJECTS = f"""
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: "system:coredns"}}
rules:
- {{apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: "system:coredns"}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}}
subjects: [{{kind: ServiceAccount, name: {NAME}, namespace: {NAMESPACE}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
data:
  Corefile: |
    .:53 {{
        errors
        health
        ready
        kubernetes {DOMAIN} in-addr.arpa ip6.arpa
        template ANY ANY . {{
            rcode NXDOMAIN
        }}
    }}
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: {NAMESPACE}, labels: {{k8s-app: kube-dns}}}}
spec:
  ipFamilyPolicy: PreferDualStack
  clusterIP: "{ADDRESSES[0]}"
  clusterIPs: {list(ADDRESSES)}
  selector: {{k8s-app: kube-dns}}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {NAME}, namespace: {NAMESPACE}, labels: {{k8s-app: kube-dns}}}}
spec:
  selector: {{matchLabels: {{k8s-app: kube-dns}}}}
  template:
    metadata: {{labels: {{k8s-app: kube-dns}}}}
    spec:
      serviceAccountName: {NAME}
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      containers:
      - name: {NAME}
        image: {COREDNS}
        args: [-conf, /etc/coredns/Corefile]
        ports:
        - {{name: dns, containerPort: 53, protocol: UDP}}
        - {{name: dns-tcp, containerPort: 53, protocol: TCP}}
        readinessProbe: {{httpGet: {{path: /ready, port: 8181}}, periodSeconds: 1}}
        livenessProbe: {{httpGet: {{path: /health, port: 8080}}, initialDelaySeconds: 30}}
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {{add: [NET_BIND_SERVICE], drop: [ALL]}}
          readOnlyRootFilesystem: true
        volumeMounts: [{{name: corefile, mountPath: /etc/coredns, readOnly: true}}]
      volumes: [{{name: corefile, configMap: {{name: {NAME}}}}}]
"""


def start(places: Places) -> None:
    """Make what is missing of it; a new one is ready when this returns."""
    with Client.connect(str(places.kubeconfig), user_agent="ringfence-lab") as client:
        try:
            client.get(DEPLOYMENTS, NAME, NAMESPACE)
        except NotFound:
            users.make(places, OBJECTS)
            _wait(client)


def _wait(client: Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _replicas(client):
        if time.monotonic() > deadline:
            raise LabFailed(
                "the cluster's DNS does not become ready; a bug of the lab, unless this machine is "
                "very busy: try `ringfence lab up` again"
            )
        time.sleep(POLL_SECONDS)


def _replicas(client: Client) -> int:
    found = client.get(DEPLOYMENTS, NAME, NAMESPACE)
    return integer(found, "status", "readyReplicas") or 0
