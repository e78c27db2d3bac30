"""The stories that `lab demo` tells."""
