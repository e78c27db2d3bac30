"""Flows for people: names put to the kernel's events, kept, filtered and printed."""
