"""What the agent answers on its control socket, one module a question."""
