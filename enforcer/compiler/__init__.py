"""One node's tables kept up to date: changes in, a plan of writes out. Pure."""
