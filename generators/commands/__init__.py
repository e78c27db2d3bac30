"""The offline commands: generate, plan, matrix, trace. Answers about files; no root, no cluster."""
