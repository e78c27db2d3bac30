"""CEL in policies: `syntax.py` reads expressions, `evaluating.py` runs them, in bounded time."""
