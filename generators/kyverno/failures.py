"""What can go wrong while a rule runs: one tree; the engine turns each into a rule's result.

    RuleFailure              base; the rule's result is `error`
    ├── UnresolvedVariable   a variable has no value and no default
    ├── BadExpression        a JMESPath expression is wrong, or too deep, large or slow
    ├── BadPatch             a patch does not fit the object, or makes an invalid one
    ├── LookupFailed         something outside could not be read: never the same as "no match"
    └── NotAllowed           the policy may not read or write there

None of them is for the command line's top: a policy that fails must not stop the others.
"""

from __future__ import annotations


class RuleFailure(Exception):
    """Base: the rule cannot be carried out for this object; the message says why."""


class UnresolvedVariable(RuleFailure):
    """`{{ ... }}` or `$( ... )` that leads nowhere; `path` is the place within the template."""

    def __init__(self, variable: str, path: tuple[str | int, ...], why: str) -> None:
        self.variable = variable
        self.path = path
        self.why = why
        super().__init__(f"{variable} at {pointer(path)}: {why}")

    def at(self, place: str) -> UnresolvedVariable:
        """The same, by the place in the policy's file."""
        told = UnresolvedVariable(self.variable, self.path, self.why)
        told.args = (f"{place}: {self.variable} is not resolved: {self.why}",)
        return told


class BadExpression(RuleFailure):
    """An expression that cannot be parsed or evaluated within bounds."""


class BadPatch(RuleFailure):
    """A patch that does not fit, or whose result no API server would accept."""


class LookupFailed(RuleFailure):
    """A read that failed; the rule is an error, not a mismatch."""


class NotAllowed(RuleFailure):
    """A read or write outside what policies are allowed."""


def pointer(path: tuple[str | int, ...]) -> str:
    """A place within a template, as users write paths."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "the whole value"
