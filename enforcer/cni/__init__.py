"""The chained CNI plugin: its C source, its place in the node's configuration, the agent's side."""
