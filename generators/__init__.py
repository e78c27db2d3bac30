"""What should be there: tenants, labels, NetworkPolicies, plans, reachability.

Pure: values in, values out.
"""
