"""Where the agent's objects come from: an API server, or manifests on disk; and the tenant file.

`supply.py` says what a source of changes is, `api.py` and `manifests.py` are the two of them.
"""
