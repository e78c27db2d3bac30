"""Kyverno's ClusterPolicy and Policy: mutate and generate rules, run unmodified.

    loading.py   files and API objects -> Policy        model.py    what a policy is, free of syntax
    engine.py    policies + request -> results          requests.py what it is asked, what it reads
    guard.py     what policies may read and write       synchronize.py  what happens on changes
    lint.py, testing.py, applying.py                    the offline commands

Everything is pure: reads go through `requests.Lookups`, and nothing is written here.
"""
