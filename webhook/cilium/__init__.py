"""CiliumNetworkPolicies in a cluster without Cilium: their kinds, and what their status says."""
