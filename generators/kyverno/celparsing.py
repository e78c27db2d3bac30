"""`MutatingPolicy` and `GeneratingPolicy` documents -> `Policy` values of one rule, or two.

The spec is the same in all versions of the group. What upstream's compiler refuses is a problem;
what is right there and not carried out here makes the rule `Unsupported`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from generators.documents.json import leaves
from generators.documents.yaml import Field, documents
from generators.errors import InputError
from generators.kyverno import matchparsing
from generators.kyverno.cel import syntax
from generators.kyverno.cel.checking import findings, host_functions
from generators.kyverno.cel.templates import has_placeholder, pieces
from generators.kyverno.failures import BadExpression
from generators.kyverno.model import (
    Action,
    Combine,
    Downstream,
    Expressed,
    ExpressedPatch,
    Expression,
    FailurePolicy,
    Filter,
    Generation,
    KindPattern,
    Match,
    Mutation,
    Operation,
    Patch,
    PatchForm,
    Place,
    Policy,
    PolicyRule,
    Rendered,
    Setting,
    Target,
    Template,
    Unsupported,
    UnsupportedPart,
)
from generators.kyverno.parsing import name_of, switch, word
from generators.manifests.fields import Cursor
from generators.manifests.kinds import kind_of_plural
from generators.objects import Origin

GROUP = "policies.kyverno.io"
API_VERSIONS = tuple(f"{GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
MUTATING = ("MutatingPolicy", "NamespacedMutatingPolicy")
GENERATING = ("GeneratingPolicy", "NamespacedGeneratingPolicy")
KINDS = (*MUTATING, *GENERATING)
MAX_CONDITIONS = 64
MAX_VARIABLES = 200
GENERATE, MUTATE, EXISTING = "generate", "mutations", "mutate-existing"
"""What the rules are called that a policy is: after the fields that they are made of."""
_SHARED = (
    *("matchConstraints", "matchConditions", "variables", "evaluation"),
    *("webhookConfiguration", "auditAnnotations"),
)
SPEC = {
    True: (*_SHARED, "generate", "useServerSideApply"),
    False: (
        *(*_SHARED, "failurePolicy", "mutations", "reinvocationPolicy", "autogen"),
        *("targetMatchConstraints", "targetMatchConditions"),
    ),
}
EVALUATION = {
    True: (
        *("admission", "generateExisting", "synchronize", "orphanDownstreamOnPolicyDelete"),
        "skipBackgroundRequests",
    ),
    False: (
        *("mode", "admission", "background", "mutateExisting", "skipBackgroundRequests"),
        "useServerSideApply",
    ),
}
_RESOURCE_RULE = ("apiGroups", "apiVersions", "resources", "resourceNames", "operations", "scope")
_MATCH = (
    *("resourceRules", "excludeResourceRules", "namespaceSelector", "objectSelector"),
    "matchPolicy",
)


@dataclass(slots=True)
class _Reader:
    """What is collected of one policy."""

    file: str
    generates: bool
    namespaced: bool
    variables: set[str] = field(default_factory=set)
    unsupported: list[UnsupportedPart] = field(default_factory=list)

    def place(self, cursor: Cursor) -> Place:
        return Place(self.file, cursor.line, cursor.path)

    def template(self, cursor: Cursor) -> Template:
        return Template(self.place(cursor), cursor.field)

    def leave(self, cursor: Cursor, what: str, fix: str = "leave this policy to Kyverno") -> None:
        """Note what is right and not carried out here."""
        self.unsupported.append(UnsupportedPart(self.place(cursor), what, fix))

    def expression(self, holder: Cursor, name: str = "", writes: bool = False) -> Expression:
        """The field called `expression`, checked."""
        cursor = holder.child("expression")
        if cursor is None or not cursor.text():
            holder.fail("Required value: expression", "write it in CEL")
            return Expression(self.place(holder), "", name)
        self.check(cursor, cursor.text(), writes)
        return Expression(self.place(cursor), cursor.text(), name)

    def check(self, cursor: Cursor, text: str, writes: bool) -> None:
        """Report what is wrong with an expression."""
        if not syntax.installed():
            return
        try:
            tree = syntax.parse(text)
        except BadExpression as error:
            cursor.fail(f"CEL: {error}", "correct the expression")
            return
        host = host_functions(writes=writes, namespaced=self.namespaced)
        for found in findings(tree, self.variables, host):
            if found.known:
                self.leave(cursor, found.what)
            else:
                cursor.fail(f"CEL: {found.what}", "correct the expression")


def parse_policy(root: Cursor, origin: Origin) -> Policy:
    """The policy; problems go to the cursor's report, and make it worthless."""
    root.only("apiVersion", "kind", "metadata", "spec", "status")
    kind = root.string("kind")
    namespaced = kind.startswith("Namespaced")
    reader = _Reader(origin.file, kind in GENERATING, namespaced)
    meta, spec = root.part("metadata"), root.child("spec")
    name = name_of(meta)
    namespace = meta.string("namespace", "default") if namespaced else ""
    if not name:
        root.fail("Required value: metadata.name", "name the policy")
    if spec is None:
        root.fail("Required value: spec", "say what the policy does")
        return Policy(name, namespace, (), origin=origin)
    if not syntax.installed():
        reader.leave(root, syntax.MISSING, syntax.INSTALL)
    spec.only(*SPEC[reader.generates])
    rules = _rules(spec, reader)
    evaluation = spec.part("evaluation")
    failure = FailurePolicy.IGNORE if reader.generates else FailurePolicy.FAIL
    return Policy(
        name=name,
        namespace=namespace,
        rules=rules,
        failure=word(spec, "failurePolicy", FailurePolicy, failure),
        admission=_enabled(evaluation, "admission", default=True),
        background=_enabled(evaluation, "background", default=True),
        server_side=switch(spec, "useServerSideApply"),
        origin=origin,
    )


def _enabled(evaluation: Cursor, key: str, default: bool = False) -> bool:
    """`key: {enabled: true}`."""
    inner = evaluation.part(key)
    inner.only("enabled")
    return switch(inner, "enabled", default=default)


def _rules(spec: Cursor, reader: _Reader) -> tuple[PolicyRule, ...]:
    constraints = spec.part("matchConstraints")
    match, exclude = _matches(constraints, reader)
    if not match.filters:
        spec.fail(
            "Required value: matchConstraints",
            "a matchConstraints with at least one resource rule is required",
        )
    evaluation = spec.part("evaluation")
    evaluation.only(*EVALUATION[reader.generates])
    if evaluation.string("mode", "Kubernetes") != "Kubernetes":
        reader.leave(evaluation, "policies on JSON that is no object are not carried out")
    variables = _variables(spec, reader)
    setting = Setting(variables=variables, conditions=_conditions(spec, "matchConditions", reader))
    actions: dict[str, Action]
    if reader.generates:
        actions = {GENERATE: _generation(spec, reader)}
    else:
        actions = dict(_mutations(spec, match, reader))
        _autogen(spec, reader)
    left = Unsupported(tuple(dict.fromkeys(reader.unsupported)))
    return tuple(
        PolicyRule(
            name=name,
            place=reader.place(spec),
            match=match,
            exclude=exclude,
            setting=setting,
            action=left if left.reasons else action,
            skip_background=switch(evaluation, "skipBackgroundRequests", default=True),
        )
        for name, action in actions.items()
    )


# --- what triggers it ----------------------------------------------------------------------------


def _matches(constraints: Cursor, reader: _Reader) -> tuple[Match, Match | None]:
    constraints.only(*_MATCH)
    selectors = (
        matchparsing.selector(constraints.child("objectSelector")),
        matchparsing.selector(constraints.child("namespaceSelector")),
    )
    rules = constraints.children("resourceRules")
    filters = tuple(_filter(item, reader) for item in rules)
    chosen = tuple(
        Filter(
            place=one.place,
            kinds=one.kinds,
            operations=one.operations,
            names=one.names,
            selector=selectors[0],
            namespace_selector=selectors[1],
            as_admission=True,
        )
        for one in filters
    )
    left = tuple(_filter(item, reader) for item in constraints.children("excludeResourceRules"))
    return Match(Combine.ANY, chosen), Match(Combine.ANY, left) if left else None


def _filter(rule: Cursor, reader: _Reader) -> Filter:
    rule.only(*_RESOURCE_RULE)
    groups, versions, resources = (
        [item.text() for item in rule.children(key)]
        for key in ("apiGroups", "apiVersions", "resources")
    )
    for key, given in zip(_RESOURCE_RULE, (groups, versions, resources), strict=False):
        if not given:
            rule.fail(f"Required value: {key}", "write at least one, or '*'")
    if rule.string("scope", "*") not in ("*", "Cluster", "Namespaced"):
        rule.fail(f'Unsupported value: "{rule.string("scope")}"', "write Cluster, Namespaced or *")
    return Filter(
        place=reader.place(rule),
        kinds=tuple(_pattern(g, v, r) for g in groups for v in versions for r in resources),
        operations=_operations(rule),
        names=tuple(item.text() for item in rule.children("resourceNames")),
        as_admission=True,
    )


def _pattern(group: str, version: str, resource: str) -> KindPattern:
    plural, _, subresource = resource.partition("/")
    if kind := kind_of_plural(group, plural):
        return KindPattern(group, version, kind, subresource)
    return KindPattern(group, version, "*", subresource, "" if plural == "*" else plural)


def _operations(rule: Cursor) -> frozenset[Operation]:
    found: set[Operation] = set()
    given = rule.children("operations")
    if not given:
        rule.fail("Required value: operations", "write CREATE, UPDATE, DELETE, CONNECT or '*'")
    for item in given:
        text = item.text()
        if text == "*":
            found |= set(Operation)
        elif text in Operation.__members__:
            found.add(Operation(text))
        else:
            item.fail(f'Unsupported value: "{text}"', f"write one of {', '.join(Operation)}")
    return frozenset(found)


def _variables(spec: Cursor, reader: _Reader) -> tuple[Expression, ...]:
    given = spec.children("variables")
    if len(given) > MAX_VARIABLES:
        spec.fail(f"more than {MAX_VARIABLES} variables", "write fewer")
        return ()
    made = []
    for item in given:
        item.only("name", "expression")
        name = item.string("name")
        if not name.isidentifier() or name in reader.variables:
            item.fail(f'name "{name}" of a variable', "give each a name of its own, such as nsName")
        made.append(reader.expression(item, name))
        reader.variables.add(name)
    return tuple(made)


def _conditions(spec: Cursor, key: str, reader: _Reader) -> tuple[Expression, ...]:
    given = spec.children(key)
    if len(given) > MAX_CONDITIONS:
        spec.fail(f"more than {MAX_CONDITIONS} {key}", "join some with &&")
        return ()
    made = []
    for item in given:
        item.only("name", "expression")
        if not item.string("name"):
            item.fail("Required value: name", "name the condition")
        made.append(reader.expression(item, item.string("name")))
    return tuple(made)


def _autogen(spec: Cursor, reader: _Reader) -> None:
    autogen = spec.part("autogen")
    autogen.only("podControllers", "mutatingAdmissionPolicy")
    if _enabled(autogen, "mutatingAdmissionPolicy"):
        reader.leave(autogen, "no MutatingAdmissionPolicy is made of it", "write one by hand")


# --- mutate --------------------------------------------------------------------------------------


def _mutations(spec: Cursor, match: Match, reader: _Reader) -> Iterator[tuple[str, Action]]:
    """With targets the policy is about those alone; else about what is admitted, and with
    mutateExisting also about what is there already."""
    evaluation = spec.part("evaluation")
    whole = switch(evaluation, "useServerSideApply")
    patch = Patch(expressed=tuple(_patch(i, reader, whole) for i in spec.children("mutations")))
    if not patch.expressed:
        spec.fail("Required value: mutations", "write at least one")
    existing = _enabled(evaluation, "mutateExisting")
    admission = _enabled(evaluation, "admission", default=True)
    if not existing and not admission:
        evaluation.fail(
            "disabling both admission and mutateExisting evaluation modes is not allowed",
            "enable one of them",
        )
    targets = _targets(spec, reader)
    if targets and not existing:
        what = "targets are changed with evaluation.mutateExisting only"
        reader.leave(spec.part("targetMatchConstraints"), what, "set its enabled to true")
    if targets:
        yield EXISTING, Mutation(patch, targets, existing)
        return
    if admission:
        yield MUTATE, Mutation(patch)
    if existing:
        itself = tuple(_itself(p, one.place, spec.line) for one in match.filters for p in one.kinds)
        yield EXISTING, Mutation(patch, itself, existing)


def _itself(pattern: KindPattern, place: Place, line: int) -> Target:
    """The trigger as its own target."""
    named = {
        "name": "{{ request.object.metadata.name }}",
        "namespace": "{{ request.object.metadata.namespace || '' }}",
    }
    return Target(place, _fields(pattern, place, line, named), Setting())


def _patch(item: Cursor, reader: _Reader, whole: bool) -> ExpressedPatch:
    item.only("patchType", "applyConfiguration", "jsonPatch")
    form = word(item, "patchType", PatchForm, PatchForm.APPLY)
    key = "applyConfiguration" if form is PatchForm.APPLY else "jsonPatch"
    body = item.part(key)
    body.only("expression")
    return ExpressedPatch(form, reader.expression(body), whole)


def _targets(spec: Cursor, reader: _Reader) -> tuple[Target, ...]:
    constraints = spec.part("targetMatchConstraints")
    constraints.only(*_MATCH, "expression")
    conditions = _conditions(spec, "targetMatchConditions", reader)
    setting = Setting(variables=_again(spec), conditions=conditions)
    place = reader.place(constraints)
    if constraints.child("expression") is not None:
        nothing = Template(place, Field({}, constraints.line))
        return (Target(place, nothing, setting, expression=reader.expression(constraints)),)
    rest = {key: value.field for key, value in constraints.entries() if key != "expression"}
    inner = Cursor(Field(rest, constraints.line), constraints.path, constraints.report)
    wanted, _ = _matches(inner, reader)
    made = []
    for one in wanted.filters:
        for pattern in one.kinds:
            if pattern.kind == "*" or pattern.subresource:
                reader.leave(constraints, f"targets of resource {pattern.shown} are not changed")
            else:
                fields = _fields(pattern, one.place, constraints.line, {})
                made.append(Target(one.place, fields, setting, wanted))
    return tuple(made)


def _again(spec: Cursor) -> tuple[Expression, ...]:
    """Targets see the same variables; what is wrong with them has been said."""
    return tuple(
        Expression(
            Place(spec.report.file, item.line, item.path),
            item.string("expression"),
            item.string("name"),
        )
        for item in spec.children("variables")
    )


def _fields(pattern: KindPattern, place: Place, line: int, named: Mapping[str, str]) -> Template:
    """A target's fields as a ClusterPolicy has them."""
    version = f"{pattern.group}/{pattern.version}" if pattern.group else pattern.version
    given = {"apiVersion": version, "kind": pattern.kind, **named}
    return Template(
        place, Field({key: Field(text, line, text) for key, text in given.items()}, line)
    )


# --- generate ------------------------------------------------------------------------------------


def _generation(spec: Cursor, reader: _Reader) -> Action:
    made = tuple(_downstream(item, reader) for item in spec.children("generate"))
    if not made:
        spec.fail("Required value: generate", "write at least one")
    evaluation = spec.part("evaluation")
    return Generation(
        downstreams=tuple(each for each in made if each is not None),
        synchronize=_enabled(evaluation, "synchronize"),
        existing=_enabled(evaluation, "generateExisting"),
        orphan=_enabled(evaluation, "orphanDownstreamOnPolicyDelete"),
    )


def _downstream(item: Cursor, reader: _Reader) -> Downstream | None:
    item.only("expression", "template")
    place = reader.place(item)
    nothing = Template(place, Field({}, item.line))
    template = item.child("template")
    if (template is None) is (item.child("expression") is None):
        item.fail("exactly one of expression or template must be set", "write one of them")
        return None
    if template is None:
        expression = reader.expression(item, writes=True)
        return Downstream(place, nothing, Expressed(expression))
    template.only("value", "interpolate")
    mode = template.string("interpolate", "none")
    if mode not in ("none", "cel"):
        template.fail(f'Unsupported value: "{mode}"', "write none or cel")
    value = template.part("value")
    found = tuple(_documents(value, reader))
    if not found:
        value.fail("template must contain at least one YAML document", "write an object")
    if mode == "cel":
        _placeholders(value, found, reader)
    return Downstream(place, nothing, Rendered(found, mode == "cel"))


def _documents(value: Cursor, reader: _Reader) -> Iterable[Template]:
    """The objects of a template, whose lines follow that of the template."""
    try:
        for document in documents(value.text().encode(errors="replace"), reader.file):
            if document.value is None:
                continue
            if not isinstance(document.value, Mapping) and not has_placeholder(document.text):
                value.fail("a document must be a mapping describing a resource", "write an object")
            yield Template(reader.place(value), document)
    except InputError as error:
        value.fail(f"failed to parse YAML: {error.problems[0].what}", "correct the template")


def _placeholders(value: Cursor, found: Iterable[Template], reader: _Reader) -> None:
    for template in found:
        for path, item in leaves(template.value):
            for key in path:
                if isinstance(key, str) and has_placeholder(key):
                    value.fail(
                        "placeholders are not supported in mapping keys",
                        "put one for the whole value of the parent field",
                    )
            if not isinstance(item, str):
                continue
            try:
                parts = pieces(item)
            except BadExpression as error:
                value.fail(str(error), "correct the placeholder")
                continue
            for piece in parts:
                if piece.expression:
                    reader.check(value, piece.text, writes=False)
