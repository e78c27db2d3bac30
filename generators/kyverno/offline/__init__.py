"""Policies on files: `ringfence policy apply`, `test` and `lint`."""
