"""Speed and memory beside a baseline of the same run: `make bench`, `make bench ONLY=webhook`.

Not part of the wheel and never a test of speed: the tests only see that each bench still runs.
A bench is a module with `run(scale)` that yields comparisons; its name is in BENCHES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from bench.measure import Comparison, Scale

BENCHES = (
    "labels",
    "generation",
    "matrix",
    "compilation",
    "webhook",
    "policy_admission",
    "policy_language",
    "policy_generation",
    "controller",
    "traffic",
    "verdict",
    "rulesets",
    "cut",
    "arrival",
    "elsewhere",
    "node",
    "flood",
    "starting",
    "real_node",
    "loading",
    "events",
)

Bench = Callable[["Scale"], Iterable["Comparison"]]


def load(name: str) -> Bench:
    """The bench of that name; what it needs is imported only now."""
    return cast("Bench", import_module(f"bench.{name}").run)
