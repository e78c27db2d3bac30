"""From tenants to NetworkPolicies: what should exist, what does, and who owns a namespace."""
