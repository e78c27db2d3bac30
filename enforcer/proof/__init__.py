"""Policies, compiled entries and the kernel's maps against one another and the tenant file."""
