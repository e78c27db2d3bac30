"""Kyverno policies: which are in force, and what they make of a request."""
