"""HTTP rules: the node's proxy, an Envoy in a network namespace of its own."""
