// The definition of ClusterNetworkPolicy, which walls are written for.
module ringfence.io/testbed/clusternetworkpolicy

go 1.26.0

require sigs.k8s.io/network-policy-api v0.2.0
