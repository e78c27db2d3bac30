"""The lab on a real API server: hollow nodes whose pods are network namespaces of this machine."""
