"""Real nodes of a lab: kubelet, containerd and kube-proxy, whose pods are containers."""
