"""The lab: pods as network namespaces on one Linux host."""
