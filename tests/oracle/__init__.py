"""Cilium's own policy engine beside ours: `make oracle-cilium`."""
