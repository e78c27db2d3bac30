"""A small HTTP server that holds under hostile clients: admission, metrics and health use it.

One thread reads from all connections and hands over what is whole; a pool of threads answers. So a
client that only connects, sends slowly or does not read never holds a thread that others need.
"""
