"""A small client for a Kubernetes API server: requests, and caches that follow a resource.

`config.py` finds the server and the identity, `client.py` speaks to it, `reflector.py` keeps a
copy of a resource, `queue.py` holds the keys that changed until they are dealt with.
Objects travel as plain documents (what JSON decodes to); a caller reduces them to its own values
at once.
"""
