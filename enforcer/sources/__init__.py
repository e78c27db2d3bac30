"""Where the agent's objects come from: an API server, or manifests on disk; and the tenant file.

`supply.py` defines a source of changes; `api.py` and `manifests.py` are the two kinds.
"""
