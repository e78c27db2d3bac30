"""Kyverno's ClusterPolicy and Policy: mutate and generate rules, run unmodified.

    offline/     policies on files: commands, tests     model.py    what a policy is, free of syntax
    engine.py    policies + request -> results          requests.py what it is asked, what it reads
    limits.py    what policies may read and write       synchronize.py  what happens on changes
    language/    expressions, patterns, functions       patches/    how a patch is laid over an
    object

Everything is pure: reads go through `requests.Lookups`, and nothing is written here.
"""
