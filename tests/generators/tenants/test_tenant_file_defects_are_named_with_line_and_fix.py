"""One row a defect: the smallest change to a good file, the line that is named, and the words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from generators.errors import InvalidConfig, Problem
from generators.tenants.load import parse_tenants

HEAD = "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\n"


def problems(text: str | bytes) -> tuple[Problem, ...]:
    """Every defect of a file; a right file has none."""
    data = text if isinstance(text, bytes) else text.encode()
    try:
        parse_tenants(data, "t.yaml")
    except InvalidConfig as error:
        return error.problems
    return ()


def tenant(*lines: str) -> str:
    """A file with one tenant `a` that has these further lines, from line 5 on."""
    return HEAD + "tenants:\n- name: a\n" + "".join(f"  {line}\n" for line in lines)


def in_list(scalar: str) -> str:
    return tenant(f"namespaces: {{names: [{scalar}]}}")


Case = tuple[str | bytes, int | None, str, str]

YAML: dict[str, Case] = {
    "broken": ("a: [b\nc: d\n", 2, "broken YAML", "correct the syntax"),
    "tab": ("tenants:\n\t- name: a\n", 2, "broken YAML", "indent with spaces"),
    "empty": ("", 1, "is empty", "apiVersion"),
    "comment only": ("# nothing\n", 1, "is empty", "apiVersion"),
    "null": ("~\n", 1, "is null", "apiVersion"),
    "list": ("- a\n- b\n", 1, "is a list, not a mapping", "apiVersion"),
    "text": ("hello\n", 1, "is text, not a mapping", "apiVersion"),
    "not UTF-8": (HEAD.encode() + b"mode: \xff\n", 3, "not UTF-8", "save the file as UTF-8"),
    "UTF-16": (HEAD.encode("utf-16"), 1, "not UTF-8", "save the file as UTF-8"),
    "control character": (HEAD + "mode: \x01\n", 3, "U+0001", "remove it"),
    "second document": (HEAD + "---\na: b\n", 3, "one document", "into the first"),
    "duplicate key": (
        tenant("labels: {}", "name: b"),
        6,
        "twice, first in line 4",
        "remove line 4",
    ),
    "anchor": (tenant("labels: &x {}"), 5, "anchor &x", "remove it"),
    "alias": (tenant("labels: &x {}", "members: *x"), 6, "alias *x", "write the value out"),
    "tag": (tenant("labels: {x: !!str 1}"), 5, "tag", "remove it"),
    "python tag": (tenant("labels: !!python/object:os.system {}"), 5, "tag", "remove it"),
    "deep": (HEAD + "tenants: " + "[" * 100_000, 3, "nested deeper", "remove it"),
    "large": ("#" * (1 << 20) + "\n", 1, "larger than 1 MiB", "shorten it"),
    "list as key": (tenant("? [x]", ": y"), 5, "used as a key", "plain text key"),
    "merge key": (tenant("<<: {name: b}"), 5, 'key "<<"', "quote it"),
    "boolean key": (tenant("labels: {on: x}"), 5, 'key "on" is read as a boolean', 'it: "on"'),
    "number key": (tenant("labels: {1: x}"), 5, 'key "1" is read as a number', 'it: "1"'),
}

NOT_TEXT = {
    "a boolean": ["no", "on", "yes", "y", "N", "Off", "true", "False"],
    "a number": [
        *("123", "-1", "0123", "089", "1_000", "1e3", "1.5", ".5", "+5", "1" * 40),
        *("0x1f", "0o17", "0b1", ".inf", ".NaN", "12:30:45", "190:20:30.15"),
    ],
    "null": ["~", "null", "Null"],
    "a date": ["2024-01-01", "2024-01-01T00:00:00Z"],
}
SURPRISES = {
    scalar: (in_list(scalar), 5, f"{scalar} is read as {kind}", f'quote it: "{scalar}"')
    for kind, scalars in NOT_TEXT.items()
    for scalar in scalars
}

SHAPE = {
    "no apiVersion": ("kind: TenantConfig\n", 1, "is required but missing", "v1alpha1`"),
    "no kind": ("apiVersion: ringfence.io/v1alpha1\n", 1, "is required", "kind: TenantConfig"),
    "other apiVersion": (HEAD.replace("1alpha1", "2"), 1, "not the API version", "v1alpha1"),
    "other kind": (HEAD.replace("TenantC", "C"), 2, '"Config" is not the kind', "TenantConfig"),
    "unknown field": (HEAD + "tenant: []\n", 3, 'unknown field "tenant"', 'mean "tenants"?'),
    "unknown inner field": (tenant("namespaces: {prefix: [a-]}"), 5, "unknown", '"prefixes"?'),
    "unknown far field": (HEAD + "zzzzz: 1\n", 3, 'unknown field "zzzzz"', "known: admins"),
    "field in wrong case": (tenant("allowmasked: true"), 5, "unknown", '"allowMasked"?'),
    "tenants as mapping": (HEAD + "tenants: {a: b}\n", 3, "is a mapping, not a list", "a list"),
    "tenant as text": (HEAD + "tenants: [a]\n", 3, '"a" is not a mapping', "name"),
    "tenant without name": (HEAD + "tenants:\n- labels: {}\n", 4, "is required", "name"),
    "names as text": (tenant("namespaces: {names: x}"), 5, '"x" is not a list', "list"),
    "field without value": (tenant("members:"), 5, "has no value", "remove the field"),
    "item without value": (in_list("x, "), None, "", ""),
    "list in list": (in_list("[x]"), 5, "is a list, not a DNS label", "lower-case"),
    "mode unknown": (HEAD + "mode: strickt\n", 3, '"strickt" is not a mode', '"strict"?'),
    "mode is boolean": (HEAD + "mode: off\n", 3, "off is not a mode", "strict or overridable"),
    "unassigned unknown": (HEAD + "defaults: {unassigned: no}\n", 3, "no is not", "ignore or deny"),
    "switch as word": (tenant("allowMasked: yes"), 5, "yes is not a boolean", "true or false"),
    "switch as text": (tenant('allowMasked: "true"'), 5, "not a boolean", "without quotes"),
    "upper case name": (in_list("Shop"), 5, '"Shop" is not a DNS label', "lower-case"),
    "dash at the end": (in_list("shop-"), 5, "not a DNS label", "lower-case"),
    "dot in name": (in_list("a.b"), 5, "not a DNS label", "lower-case"),
    "trailing newline": (in_list('"shop\\n"'), 5, '"shop\\n" is not a DNS label', "lower-case"),
    "look-alike letter": (in_list("sh\u043ep"), 5, r'"sh\u043ep" is not a DNS label', "lower-case"),
    "empty name": (in_list('""'), 5, '"" is not a DNS label', "lower-case"),
    "64 characters": (in_list("a" * 64), 5, "64 characters long, 63 are allowed", "63 characters"),
    "tenant of 64": (tenant().replace("name: a", f"name: {'a' * 64}"), 4, "64 characters", "63"),
    "prefix with dash first": (tenant("namespaces: {prefixes: [-a]}"), 5, "beginning", "dash"),
    "prefix of 63": (tenant(f"namespaces: {{prefixes: [{'a' * 63}]}}"), 5, "62 are allowed", "62"),
    "empty prefix": (tenant('namespaces: {prefixes: [""]}'), 5, "beginning", "lower-case"),
    "suffix with dash last": (tenant("namespaces: {suffixes: [a-]}"), 5, "the end", "dash"),
    "suffix with dot": (tenant("namespaces: {suffixes: [.a]}"), 5, "the end", "lower-case"),
    "label key": (HEAD + "labelKey: a b\n", 3, '"a b" is not a label key', "63"),
    "label key, two slashes": (HEAD + "labelKey: a/b/c\n", 3, "not a label key", "slash"),
    "label key, long name": (HEAD + f"labelKey: x/{'a' * 64}\n", 3, "not a label key", "63"),
    "label key, upper prefix": (HEAD + "labelKey: A.io/x\n", 3, "not a label key", "DNS prefix"),
    "label value": (tenant("labels: {x: a b}"), 5, '"a b" is not a label value', "63"),
    "label value of 64": (tenant(f"labels: {{x: {'a' * 64}}}"), 5, "64 characters long", "63"),
    "label value number": (tenant("labels: {cost-centre: 4711}"), 5, "4711 is read", '"4711"'),
    "tenant's label key": (tenant('labels: {"a b": x}'), 5, '"a b" is not a label key', "63"),
    "user with blanks": (tenant('members: {users: [" a"]}'), 5, "as the API server", "blanks"),
    "user with newline": (tenant('members: {users: ["a\\nb"]}'), 5, "as the API", "control"),
    "service account": (tenant("members: {serviceAccounts: [ci]}"), 5, "account", "namespace/name"),
    "grant without tenant": (tenant("allowFrom: [{}]"), 5, "is required", "with a DNS label"),
    "shared without names": (
        HEAD + "shared:\n- name: x\n  namespaces: {}\n",
        5,
        "is required",
        "list",
    ),
    "shared, empty names": (
        HEAD + "shared:\n- name: x\n  namespaces: {names: []}\n",
        5,
        "is empty",
        "list",
    ),
}


def port(item: str) -> str:
    return HEAD + f"shared:\n- name: x\n  namespaces: {{names: [x]}}\n  ports: [{item}]\n"


PORTS = {
    "0": (port("{port: 0}"), 6, "0 is not a port number", "1 to 65535"),
    "65536": (port("{port: 65536}"), 6, "65536 is not a port number", "1 to 65535"),
    "negative": (port("{port: -1}"), 6, "-1 is not a port number", "1 to 65535"),
    "boolean": (port("{port: true}"), 6, "true is not a port number", "1 to 65535"),
    "text": (port('{port: "80"}'), 6, '"80" is not a port number', "without quotes"),
    "octal": (port("{port: 080}"), 6, "080 is not a port number", "decimal"),
    "float": (port("{port: 80.0}"), 6, "80.0 is not a port number", "decimal"),
    "lower-case protocol": (port("{port: 80, protocol: tcp}"), 6, '"tcp" is not', "TCP"),
    "unknown protocol": (port("{port: 80, protocol: ICMP}"), 6, '"ICMP" is not', "TCP"),
    "endPort alone": (port("{endPort: 80}"), 6, "together with port", "add port"),
    "endPort below port": (port("{port: 80, endPort: 79}"), 6, "endPort 79 is below", "smaller"),
    "nothing in it": (port("{}"), 6, "is empty", "port"),
}

TWO = HEAD + "tenants:\n- name: a\n  namespaces: {%s}\n- name: b\n  namespaces: {%s}\n"
GRANT = HEAD + (
    "tenants:\n"
    "- {name: a, namespaces: {names: [a]}, %s}\n"
    "- {name: b, namespaces: {names: [b]}, %s}\n"
)

RULES = {
    "same tenant": (TWO.replace("name: b", "name: a") % ("names: [x]", "names: [v]"), 6, "a", "re"),
    "same name": (TWO % ("names: [x]", "names: [x]"), 7, 'name "x" of tenant b', "remove it"),
    "same prefix": (
        TWO % ("prefixes: [x-]", "prefixes: [x-]"),
        7,
        'prefix "x-" of tenant b is also that of tenant a in line 5, "x-x" would belong to both',
        "make one longer",
    ),
    "same suffix": (
        TWO % ("suffixes: [-x]", "suffixes: [-x]"),
        7,
        'suffix "-x" of tenant b is also that of tenant a in line 5, "x-x" would belong to both',
        "make one longer",
    ),
    "name twice in one": (TWO % ("names: [x, x]", "names: [v]"), 5, "already in line 5", "remove"),
    "claims kube-system": (TWO % ("names: [kube-system]", "names: [x]"), 5, "always", "remove"),
    "claims the system's beside one of its own": (
        TWO % ("prefixes: [kube-]", "names: [x]") + "protectedNamespaces:\n- vault\n",
        5,
        'matches namespace "kube-system", which is always protected',
        "narrower",
    ),
    "prefix on kube-": (TWO % ("prefixes: [kube-]", "names: [x]"), 5, '"kube-public"', "narrower"),
    "suffix on -system": (TWO % ("suffixes: [-system]", "names: [x]"), 5, "kube-system", "narrow"),
    "claims protected": (
        TWO % ("names: [x]", "names: [v]") + "protectedNamespaces:\n- x\n",
        5,
        'protected namespace "x" (line 9)',
        "line 9",
    ),
    "claims shared": (
        TWO % ("names: [x]", "prefixes: [v]")
        + "shared:\n- name: s\n  namespaces:\n    names: [ves-x]\n",
        7,
        'prefix "v" of tenant b matches namespace "ves-x" of shared component s (line 11)',
        "line 11",
    ),
    "shared twice": (
        HEAD + "shared:\n" + "- {name: s, namespaces: {names: [x]}}\n" * 2,
        5,
        'shared component "s" is already in line 4',
        "rename",
    ),
    "label key of Kubernetes": (HEAD + "labelKey: kubernetes.io/x\n", 3, "Kubernetes", "your own"),
    "label key below k8s.io": (HEAD + "labelKey: a.k8s.io/x\n", 3, "Kubernetes", "your own"),
    "label key of app": (
        HEAD + "labelKey: app.kubernetes.io/managed-by\n",
        3,
        "Kubernetes",
        "your own",
    ),
    "label key of ours": (HEAD + "labelKey: ringfence.io/policy\n", 3, "generates", "another key"),
    "label key prefix": (HEAD + f"labelKey: {'a' * 254}/x\n", 3, "254 characters", "shorter"),
    "label is label key": (
        tenant("labels: {ringfence.io/tenant: b}", "namespaces: {names: [x]}"),
        5,
        "is the label key",
        "remove it",
    ),
    "label is metadata.name": (
        tenant("labels: {kubernetes.io/metadata.name: b}", "namespaces: {names: [x]}"),
        5,
        "set by the API server",
        "remove it",
    ),
    "admin is member": (
        tenant("members: {groups: [g]}") + "admins: {groups: [g]}\n",
        5,
        'group "g" is an admin (line 6) and a member of tenant a',
        "line 6",
    ),
    "admin is member by full name": (
        tenant("members: {serviceAccounts: [ci/x]}")
        + "admins: {users: ['system:serviceaccount:ci:x']}\n",
        5,
        "is an admin",
        "line 6",
    ),
    "everybody is admin": (
        HEAD + "admins: {groups: ['system:authenticated']}\n",
        3,
        "an admin",
        "group of your own",
    ),
    "member in kube-system": (
        tenant("members: {serviceAccounts: [kube-system/x]}"),
        5,
        "part of the cluster",
        "remove it",
    ),
    "masters are members": (
        tenant("members: {groups: ['system:masters']}"),
        5,
        "always an admin",
        "remove it",
    ),
    "no way in": (tenant(), 4, "no namespace can ever belong to tenant a", "give it"),
    "shares of more than there is": (
        GRANT % ("mapShare: 60", "mapShare: 31"),
        5,
        "with tenant b the mapShares add up to 91 percent",
        "lower some: 90 percent can be given away",
    ),
    "a share of more than all": (
        GRANT % ("mapShare: 91", "labels: {}"),
        4,
        "is not a percentage",
        "write a decimal number from 1 to 90",
    ),
    "grant to itself": (GRANT % ("allowTo: [{tenant: a}]", "labels: {}"), 4, "itself", "another"),
    "grant to unknown": (
        GRANT % ("allowTo: [{tenant: bb}]", "labels: {}"),
        4,
        'no tenant "bb"',
        'did you mean "b"?',
    ),
    "grant, only allowTo": (
        GRANT % ("allowTo: [{tenant: b}]", "labels: {}"),
        4,
        "tenant b does not let in tenant a",
        "add `allowFrom: [{tenant: a}]` to tenant b (line 5)",
    ),
    "grant, only allowFrom": (
        GRANT % ("labels: {}", "allowFrom: [{tenant: a}]"),
        5,
        "tenant a does not ask to enter tenant b",
        "add `allowTo: [{tenant: b}]` to tenant a (line 4)",
    ),
    "grant twice": (
        GRANT % ("allowTo: [{tenant: b}, {tenant: b}]", "allowFrom: [{tenant: a}]"),
        4,
        "already in line 4",
        "remove one",
    ),
    "grant without common port": (
        GRANT
        % (
            "allowTo: [{tenant: b, ports: [{port: 80}]}]",
            "allowFrom: [{tenant: a, ports: [{port: 80, protocol: UDP}]}]",
        ),
        5,
        "no port is in both",
        "at least one port on both sides",
    ),
}

TABLES: dict[str, Mapping[str, Case]] = {
    "yaml": YAML,
    "surprise": SURPRISES,
    "shape": SHAPE,
    "port": PORTS,
    "rule": RULES,
}
CASES = {
    f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()
}


@pytest.mark.parametrize(("text", "line", "what", "fix"), CASES.values(), ids=CASES)
def test_defect_is_reported_in_its_line_with_a_fix(
    text: str | bytes, line: int | None, what: str, fix: str
) -> None:
    found = problems(text)
    if line is None:
        assert found == ()
        return
    matching = [p for p in found if p.line == line and what in p.what and fix in p.fix]
    assert matching, "\n".join(map(str, found)) or "nothing was found"


SEVERAL = {
    "prefix on kube-": 3,
    "claims the system's beside one of its own": 3,
    "suffix on -system": 2,
    "item without value": 0,
}


@pytest.mark.parametrize("case", [*RULES, *SHAPE])
def test_one_defect_is_reported_once_and_draws_no_others(case: str) -> None:
    text = {**RULES, **SHAPE}[case][0]
    assert len(problems(text)) == SEVERAL.get(case, 1), "\n".join(map(str, problems(text)))


def test_all_defects_of_all_kinds_come_at_once_in_file_order() -> None:
    text = tenant(
        "namespaces: {names: [no, x], prefix: [x-]}",
        "name: again",
        "labels: {a: 1}",
    ) + ("- name: b\n  namespaces: {names: [x]}\n")
    assert [(p.line, p.path) for p in problems(text)] == [
        (5, "tenants[0].namespaces.names[0]"),
        (5, "tenants[0].namespaces.prefix"),
        (6, "tenants[0].name"),
        (7, "tenants[0].labels.a"),
        (9, "tenants[1].namespaces.names[0]"),
    ]


def test_a_part_that_could_not_be_read_is_not_said_to_be_missing() -> None:
    """Tenant b's consent is unreadable: that is one defect, not two."""
    text = GRANT % ("allowTo: [{tenant: b}]", "allowFrom: [{tenant: a, ports: 80}]")
    assert [p.path for p in problems(text)] == ["tenants[1].allowFrom[0].ports"]


def test_problem_reads_file_line_path_what_fix() -> None:
    (problem,) = problems(HEAD + "mode: strickt\n")
    assert str(problem) == 't.yaml:3: mode: "strickt" is not a mode; did you mean "strict"?'


LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(20)
)

HOSTILE = {
    "billion laughs": LAUGHS,
    "5 MB of aliases": "a: &a [x]\nb: [" + "*a," * 1_700_000 + "]\n",
    "1 MB of aliases": "a: &a [x]\nb: [" + "*a," * 300_000 + "]\n",
    "1 MB of brackets": "[" * 1_000_000,
    "1 MB of braces": "{" * 1_000_000,
    "unknown fields": tenant(*(f"k{i}: 1" for i in range(15_000))),
    "bad names": in_list("A," * 100_000),
    "one name again and again": in_list("a," * 50_000),
    "a long number": in_list("1" * 900_000),
    "a long name": in_list("a-" * 450_000),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_is_answered_with_a_bounded_list(text: str) -> None:
    """The time limit of a test is the other half of the claim: what grows too fast never ends."""
    found = problems(text)
    assert 1 <= len(found) <= 501
    assert sum(len(str(problem)) for problem in found) < 200_000
