"""Preconditions: whether the conditions of a rule hold, and which does not.

Both sides are templates; a variable that leads nowhere is an error here as everywhere else. The
answer says which condition failed and what the two sides were; how they compare is in
`language/operators.py`.
"""

from __future__ import annotations

from generators.documents.json import compact
from generators.kyverno.language.operators import holds
from generators.kyverno.model import Condition, Conditions
from generators.kyverno.variables import Scope, fill


def first_unmet(conditions: Conditions, scope: Scope) -> str:
    """Why the conditions do not hold; empty when they do."""
    reasons: list[str] = []
    for condition in conditions.any or ():
        why = _unmet(condition, scope)
        if not why:
            reasons.clear()
            break
        reasons.append(why)
    for condition in conditions.all:
        if why := _unmet(condition, scope):
            return why
    return "none of `any` holds: " + "; ".join(reasons) if reasons else ""


def _unmet(condition: Condition, scope: Scope) -> str:
    key = fill(condition.key, scope)
    value = fill(condition.value, scope)
    if holds(key, condition.operator, value):
        return ""
    shown = f"{compact(key):.100} {condition.operator} {compact(value):.100}"
    return f"{condition.message or shown} does not hold (line {condition.key.place.line})"
