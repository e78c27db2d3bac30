"""What a rule did with an object, and why. Every run of a rule ends in one of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from generators.documents.json import ObjectKey
from generators.kyverno.model import Place


class RuleOutcome(StrEnum):
    """How a rule ended."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"
    ERROR = "error"
    WARN = "warn"
    EXCLUDED = "excluded"
    """`match` or `exclude` kept the rule away; upstream gives no result then, nor do commands."""


class RuleKind(StrEnum):
    """What a rule does."""

    MUTATE = "Mutation"
    GENERATE = "Generation"
    UNSUPPORTED = "Unsupported"


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule on one object; of a mutate rule with targets, on one target."""

    policy: str
    rule: str
    kind: RuleKind
    resource: ObjectKey
    outcome: RuleOutcome
    message: str
    place: Place
    target: ObjectKey | None = None

    def __str__(self) -> str:
        target = f" on {self.target}" if self.target is not None else ""
        return f"{self.policy}/{self.rule}: {self.resource}{target}: {self.outcome}: {self.message}"
