"""Policies as values, free of syntax: match -> context -> preconditions -> patch or generate.

`parsing.py` makes them of `ClusterPolicy` and `Policy`; another front end could make the same.
Every part knows its `Place`; parts with variables are `Template`s that know the line of each value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from generators.documents.json import Path, Value, copy
from generators.documents.yaml import Field, plain
from generators.objects import Origin, Requirement

Document: TypeAlias = "dict[str, Value]"
"""An object that policies work on: JSON through and through, whatever kind it is."""
MAX_TEXT = 1 << 20
"""Longest text that substitution or a function may make."""


class Operation(StrEnum):
    """What a request does, as in AdmissionReviews."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a part of a policy was written."""

    file: str
    line: int
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path}".removesuffix(": ")


@dataclass(frozen=True, slots=True)
class Template:
    """A value that may hold variables and anchors, with the tree that knows its lines."""

    place: Place
    source: Field
    written: Value = field(init=False, compare=False, repr=False)
    """The value, to be read only: it is made once, and asked for with each request."""
    refers: bool = field(init=False, compare=False, repr=False)
    """Whether a text in it may hold `$(references)`."""

    def __post_init__(self) -> None:
        written = plain(self.source)
        object.__setattr__(self, "written", written)
        object.__setattr__(self, "refers", _holds(written, "$("))

    @property
    def value(self) -> Value:
        """A fresh copy."""
        return copy(self.written)

    def place_of(self, path: Path) -> Place:
        """Where the value at a path within the template was written."""
        here, line = self.source, self.place.line
        shown = self.place.path
        for part in path:
            shown += f"[{part}]" if isinstance(part, int) else f".{part}"
            below = None
            if isinstance(here.value, Mapping):
                below = here.value.get(str(part))
            elif isinstance(here.value, tuple) and isinstance(part, int) and part < len(here.value):
                below = here.value[part]
            if below is not None:
                here, line = below, below.line
        return Place(self.place.file, line, shown)


def _holds(value: Value, mark: str) -> bool:
    if isinstance(value, dict):
        return any(mark in key or _holds(item, mark) for key, item in value.items())
    if isinstance(value, list):
        return any(_holds(item, mark) for item in value)
    return isinstance(value, str) and mark in value


@dataclass(frozen=True, slots=True)
class KindPattern:
    """One item of `kinds`; every part may hold wildcards, an empty subresource means the object."""

    group: str
    version: str
    kind: str
    subresource: str = ""
    plural: str = ""
    """In place of the kind, which is `*` then: `pods`, as the API server's paths name it."""

    @property
    def shown(self) -> str:
        """As the policy's author named it."""
        return self.plural or self.kind


@dataclass(frozen=True, slots=True)
class SelectorPattern:
    """A label selector whose `matchLabels` may hold wildcards in keys and values."""

    labels: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A User, Group or ServiceAccount."""

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """One resource filter: what is given must all hold, of each list one item."""

    place: Place
    kinds: tuple[KindPattern, ...] = ()
    operations: frozenset[Operation] | None = None
    names: tuple[str, ...] = ()
    name: str = ""
    namespaces: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    selector: SelectorPattern | None = None
    namespace_selector: SelectorPattern | None = None
    subjects: tuple[Subject, ...] = ()
    roles: tuple[str, ...] = ()
    cluster_roles: tuple[str, ...] = ()
    as_admission: bool = False
    """Selectors mean what they mean to the API server's admission, where namespaceSelector asks for
    a Namespace's own labels and passes whatever is in none."""


class Combine(StrEnum):
    """How several filters or conditions count together."""

    ANY = "any"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Match:
    """A `match` or `exclude` block."""

    combine: Combine
    filters: tuple[Filter, ...]


class ConditionOperator(StrEnum):
    """How a condition compares its key with its value."""

    EQUALS = "Equals"
    EQUAL = "Equal"
    NOT_EQUALS = "NotEquals"
    NOT_EQUAL = "NotEqual"
    ANY_IN = "AnyIn"
    ALL_IN = "AllIn"
    ANY_NOT_IN = "AnyNotIn"
    ALL_NOT_IN = "AllNotIn"
    IN = "In"
    NOT_IN = "NotIn"
    GREATER = "GreaterThan"
    GREATER_OR_EQUAL = "GreaterThanOrEquals"
    LESS = "LessThan"
    LESS_OR_EQUAL = "LessThanOrEquals"
    LONGER = "DurationGreaterThan"
    LONGER_OR_EQUAL = "DurationGreaterThanOrEquals"
    SHORTER = "DurationLessThan"
    SHORTER_OR_EQUAL = "DurationLessThanOrEquals"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of two templates."""

    key: Template
    operator: ConditionOperator
    value: Template
    message: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """`any` and `all` of a `preconditions` block; both must hold, an absent list does."""

    any: tuple[Condition, ...] | None = None
    all: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class VariableEntry:
    """A value, a query of it or of everything known so far, and what to take when it is missing."""

    name: str
    place: Place
    value: Template | None = None
    query: Template | None = None
    default: Template | None = None


@dataclass(frozen=True, slots=True)
class ConfigMapEntry:
    """A ConfigMap; its name and namespace may hold variables."""

    name: str
    place: Place
    config_map: Template
    namespace: Template | None = None


@dataclass(frozen=True, slots=True)
class ApiCallEntry:
    """A GET of the API server, and a query of the answer."""

    name: str
    place: Place
    path: Template
    query: Template | None = None
    default: Template | None = None


ContextEntry: TypeAlias = VariableEntry | ConfigMapEntry | ApiCallEntry


@dataclass(frozen=True, slots=True)
class Expression:
    """A CEL expression, and the name of the variable or condition that it is."""

    place: Place
    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """What comes between match and action: context entries in order, then conditions."""

    context: tuple[ContextEntry, ...] = ()
    preconditions: Conditions = Conditions()
    variables: tuple[Expression, ...] = ()
    """Computed when they are first asked for, each seeing those before it."""
    conditions: tuple[Expression, ...] = ()
    """All of them hold, or the rule does not run."""


class PatchForm(StrEnum):
    """What a patch of MutatingPolicies is."""

    APPLY = "ApplyConfiguration"
    JSON = "JSONPatch"


@dataclass(frozen=True, slots=True)
class ExpressedPatch:
    """A patch that an expression makes."""

    form: PatchForm
    expression: Expression
    whole: bool = False
    """Lists and maps that merge as a whole may be replaced: useServerSideApply."""


@dataclass(frozen=True, slots=True)
class Patch:
    """How an object is changed: in one of these forms."""

    strategic: Template | None = None
    json6902: Template | None = None
    foreach: tuple[ForEachPatch, ...] = ()
    expressed: tuple[ExpressedPatch, ...] = ()
    """One after the other."""


class Order(StrEnum):
    """In which direction `foreach` goes through a list."""

    ASCENDING = "Ascending"
    DESCENDING = "Descending"


@dataclass(frozen=True, slots=True)
class ForEachPatch:
    """A patch for each element of a list."""

    place: Place
    list: Template
    setting: Setting
    patch: Patch
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Existing objects that a mutate rule changes instead of the trigger."""

    place: Place
    fields: Template
    setting: Setting
    match: Match | None = None
    """Of those, the ones that fit."""
    expression: Expression | None = None
    """In place of all that: what it gives, an object or a list of them."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A mutate rule. With targets it runs in the background; `existing`: also on policy changes."""

    patch: Patch
    targets: tuple[Target, ...] = ()
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Clone:
    """Copy one object."""

    source: Template


@dataclass(frozen=True, slots=True)
class CloneList:
    """Copy all objects of some kinds in a namespace, or those that a selector picks."""

    fields: Template


@dataclass(frozen=True, slots=True)
class Data:
    """Write the content of the template."""

    content: Template


@dataclass(frozen=True, slots=True)
class Expressed:
    """What an expression hands to generator.apply()."""

    expression: Expression


@dataclass(frozen=True, slots=True)
class Rendered:
    """Whole objects, with `(( expressions ))` in them where they are interpolated."""

    documents: tuple[Template, ...]
    interpolated: bool


Source: TypeAlias = Data | Clone | CloneList | Expressed | Rendered


@dataclass(frozen=True, slots=True)
class Downstream:
    """What one pattern of a generate rule makes; the list of a `foreach` makes it many times."""

    place: Place
    target: Template
    source: Source
    list: Template | None = None
    setting: Setting = Setting()


@dataclass(frozen=True, slots=True)
class Generation:
    """A generate rule."""

    downstreams: tuple[Downstream, ...]
    synchronize: bool = False
    existing: bool = False
    orphan: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A rule that is not carried out, and why; never silently."""

    reasons: tuple[UnsupportedPart, ...]


@dataclass(frozen=True, slots=True, order=True)
class UnsupportedPart:
    """One thing outside the supported subset."""

    place: Place
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.fix}"


Action: TypeAlias = Mutation | Generation | Unsupported


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule of a policy."""

    name: str
    place: Place
    match: Match
    exclude: Match | None
    setting: Setting
    action: Action
    skip_background: bool = True


class ApplyRules(StrEnum):
    """Whether rules after the first one that applied still run."""

    ALL = "All"
    ONE = "One"


class FailurePolicy(StrEnum):
    """What a request gets when a rule cannot be carried out."""

    FAIL = "Fail"
    IGNORE = "Ignore"


@dataclass(frozen=True, slots=True)
class Policy:
    """A ClusterPolicy (no namespace) or a Policy, which acts in its own namespace only."""

    name: str
    namespace: str
    rules: tuple[PolicyRule, ...]
    apply: ApplyRules = ApplyRules.ALL
    failure: FailurePolicy = FailurePolicy.FAIL
    admission: bool = True
    background: bool = True
    server_side: bool = False
    origin: Origin = field(default=Origin(), compare=False)

    @property
    def key(self) -> str:
        """`name` or `namespace/name`, as users and test files write it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name
