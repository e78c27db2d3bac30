"""Text and decoded JSON of Kubernetes objects, before anything is known of their kind."""
