"""From tenants to NetworkPolicies: what should be there, what is, and whose a namespace is."""
