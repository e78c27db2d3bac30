"""Questions about patches: anchors at every place, lists of every built-in kind, RFC 6902."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from tests.generators.kyverno.reference.shapes import Json, Question

POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "labels": {"app": "web", "tier": "front", "n": "5", "on": "true"},
        "finalizers": ["a/b", "c/d"],
    },
    "spec": {
        "hostNetwork": False,
        "priority": 5,
        "containers": [
            {
                "name": "one",
                "image": "nginx:1.2",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "value": "1"}],
            },
            {
                "name": "two",
                "image": "busybox:latest",
                "securityContext": {"privileged": True},
                "args": ["x", "y"],
            },
        ],
        "initContainers": [{"name": "init", "image": "nginx:latest"}],
        "imagePullSecrets": [{"name": "old"}],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "cfg", "configMap": {"name": "c"}}],
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
}

ANCHORS = ("({})", "<({})", "+({})")
INSIDE = ("=({})", "^({})", "X({})")

PATTERNS: tuple[Json, ...] = (
    *(
        "web",
        "w*",
        "?*",
        "!web",
        "!front",
        "web|api",
        "front & f*",
        "*",
        "",
        None,
        True,
        False,
        "true",
    ),
    *(
        5,
        "5",
        ">4",
        "<5",
        ">=5",
        "1-10",
        "1!-10",
        "6-9",
        5.0,
        "null",
        {},
        {"app": "web"},
        {"(app)": "w*"},
    ),
    *({"app": "*", "tier": "?*"}, {"absent": "*"}, {"absent": None}, {"X(absent)": "null"}, []),
    *(
        ["a/b"],
        ["a/*"],
        ["x"],
        [{"name": "one"}],
        [{"(name)": "t*", "image": "*:latest"}],
        [{"name": "*"}],
    ),
    *(
        [{"name": "*", "image": "!*:latest"}],
        [{"=(securityContext)": {"=(privileged)": False}}],
        ["a/b", "c/d"],
    ),
    *([{"^(name)": "x"}], [{"ports": [{"containerPort": "1-100"}]}]),
)

PLAIN_SCALARS: tuple[Json, ...] = (
    *(None, True, False, 0, 1, 5, 1.5, -3),
    *("", "0", "5", "1.5", "true", "web"),
)
SCALARS: tuple[Json, ...] = (
    *PLAIN_SCALARS,
    *("null", "10Mi", "1h", "a b", "1-10"),
    *(["web"], ["web", "api"], [5, 6], [], {}, {"a": 1}),
)
SCALAR_PATTERNS: tuple[Json, ...] = (
    *PLAIN_SCALARS,
    *("w*", "?", "?*", "*", "!web", "!5", ">1", "<2", ">=5", "<=5"),
    *("1-10", "-5-5", "0.5-2", "1!-4", "5Mi-20Mi", "10m-2h"),
    *("web|5", "web & w*", "!a & !b", "> 1 & < 6", ">10m", "<1Gi"),
    *("null", "1e0", "10240Ki", "60m", "a b", "|", "&", "!"),
)

PLACES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("app", ("metadata", "labels")),
    ("labels", ("metadata",)),
    ("name", ("metadata",)),
    ("absent", ("metadata",)),
    ("finalizers", ("metadata",)),
    ("hostNetwork", ("spec",)),
    ("priority", ("spec",)),
    ("containers", ("spec",)),
    ("spec", ()),
    ("absent", ("spec", "absent")),
)

WRITTEN_DATA: Json = {"seen": "yes"}
WRITTEN: Json = {"metadata": {"annotations": {"seen": "yes"}}}


def _merge(patch: Json, document: Json = POD) -> Iterator[Question]:
    yield {"op": "merge", "patch": patch, "object": document}


def _below(path: tuple[str, ...], inner: Json) -> Json:
    for part in reversed(path):
        inner = {part: inner}
    return inner


def _joined(one: Json, other: Json) -> Json:
    if isinstance(one, dict) and isinstance(other, dict):
        both = dict(one)
        for key, value in other.items():
            both[key] = _joined(one[key], value) if key in one else value
        return both
    return other


def merges() -> Iterator[Question]:
    """Anchors, then lists, then what people write."""
    for (name, path), anchor, pattern in product(PLACES, ANCHORS, PATTERNS):
        yield from _merge(_joined(WRITTEN, _below(path, {anchor.format(name): pattern})))
    for (name, path), anchor, pattern in product(PLACES, INSIDE, PATTERNS):
        # Inside a condition; the first part of the path carries it.
        whole = _below(path[1:], {anchor.format(name): pattern})
        yield from _merge({f"({path[0] if path else 'spec'})": whole, **WRITTEN_DATA})
    for value, pattern in product(SCALARS, SCALAR_PATTERNS):
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "x": value}
        yield from _merge({"(x)": pattern, "data": {"seen": "yes"}}, document)
        yield from _merge(
            {"(y)": {"x": pattern}, "data": {"seen": "yes"}}, {**document, "y": {"x": value}}
        )
    for anchor, pattern in product(("", *ANCHORS), ("nginx:*", "*:latest", "absent", "*", None)):
        for more in MORE:
            for named in NAMED:
                element = {anchor.format("image") if anchor else "image": pattern, **named, **more}
                yield from _merge({"spec": {"containers": [element]}})
    for patch in HANDWRITTEN:
        yield from _merge(patch)
    for where, keys in LISTS:
        yield from _lists(where, keys)
    for patch, document in PAIRS:
        yield from _merge(patch, document)


NAMED: tuple[Json, ...] = (
    {},
    {"name": "one"},
    {"name": "new"},
    {"(name)": "*"},
    {"(name)": "t*"},
    {"<(name)": "t*"},
)
MORE: tuple[Json, ...] = (
    {"tty": True},
    {"securityContext": {"+(privileged)": False}},
    {},
    {"+(tty)": True},
)

HANDWRITTEN: Json = json.loads((Path(__file__).parent / "patches.json").read_text())

# Lists of built-in kinds: (apiVersion/kind, path), and the keys that could tell elements apart.
LISTS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (
        path,
        (
            "name",
            "ip",
            "type",
            "mountPath",
            "devicePath",
            "uid",
            "containerPort",
            "port",
            "topologyKey",
            "key",
            "kind",
        ),
    )
    for path in """
v1/Pod spec.containers
v1/Pod spec.initContainers
v1/Pod spec.ephemeralContainers
v1/Pod spec.volumes
v1/Pod spec.imagePullSecrets
v1/Pod spec.hostAliases
v1/Pod spec.tolerations
v1/Pod spec.topologySpreadConstraints
v1/Pod spec.readinessGates
v1/Pod status.conditions
v1/Pod metadata.ownerReferences
v1/Pod metadata.managedFields
v1/Pod spec.dnsConfig.options
v1/Service spec.ports
v1/Service status.conditions
v1/Endpoints subsets
v1/ServiceAccount secrets
v1/ServiceAccount imagePullSecrets
v1/ReplicationController spec.template.spec.containers
v1/PersistentVolumeClaim status.conditions
v1/PersistentVolumeClaim spec.accessModes
v1/Node spec.taints
v1/Node status.addresses
v1/Node status.conditions
v1/Namespace status.conditions
v1/Namespace spec.finalizers
v1/LimitRange spec.limits
v1/ResourceQuota spec.scopes
apps/v1/Deployment spec.template.spec.containers
apps/v1/Deployment spec.template.spec.volumes
apps/v1/Deployment spec.template.spec.imagePullSecrets
apps/v1/Deployment spec.template.metadata.finalizers
apps/v1/Deployment status.conditions
apps/v1/StatefulSet spec.template.spec.initContainers
apps/v1/StatefulSet spec.volumeClaimTemplates
apps/v1/DaemonSet spec.template.spec.containers
apps/v1/ReplicaSet spec.template.spec.containers
batch/v1/Job spec.template.spec.containers
batch/v1/CronJob spec.jobTemplate.spec.template.spec.containers
batch/v1beta1/CronJob spec.jobTemplate.spec.template.spec.containers
networking.k8s.io/v1/NetworkPolicy spec.ingress
networking.k8s.io/v1/NetworkPolicy spec.egress
networking.k8s.io/v1/NetworkPolicy spec.policyTypes
networking.k8s.io/v1/Ingress spec.rules
networking.k8s.io/v1/Ingress spec.tls
rbac.authorization.k8s.io/v1/Role rules
rbac.authorization.k8s.io/v1/ClusterRole rules
rbac.authorization.k8s.io/v1/RoleBinding subjects
rbac.authorization.k8s.io/v1/ClusterRoleBinding subjects
admissionregistration.k8s.io/v1/MutatingWebhookConfiguration webhooks
admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration webhooks
policy/v1/PodDisruptionBudget status.conditions
autoscaling/v2/HorizontalPodAutoscaler spec.metrics
autoscaling/v1/HorizontalPodAutoscaler metadata.ownerReferences
apiextensions.k8s.io/v1/CustomResourceDefinition spec.versions
storage.k8s.io/v1/StorageClass allowedTopologies
discovery.k8s.io/v1/EndpointSlice endpoints
discovery.k8s.io/v1/EndpointSlice ports
example.com/v1/Thing spec.containers
example.com/v1/Thing metadata.ownerReferences
cilium.io/v2/CiliumNetworkPolicy spec.ingress
""".strip().splitlines()
)


def _lists(where: str, keys: tuple[str, ...]) -> Iterator[Question]:
    """Two elements that one key tells apart, and a patch with one of them and a new one."""
    kind, path = where.split()
    api_version, _, name = kind.rpartition("/")
    head = {"apiVersion": api_version, "kind": name, "metadata": {"name": "x"}}
    parts = tuple(path.split("."))
    for key in keys:
        base = [{key: _key(key, "a"), "v": 1}, {key: _key(key, "b"), "v": 2}]
        patch = [{key: _key(key, "b"), "w": 3}, {key: _key(key, "c"), "w": 4}]
        yield from _merge(_below(parts, patch), _joined(head, _below(parts, base)))
    yield from _merge(_below(parts, ["b", "c"]), _joined(head, _below(parts, ["a", "b"])))
    yield from _merge(_below(parts, [{"v": 1}]), _joined(head, _below(parts, [{"v": 1}, {"w": 2}])))


def _key(key: str, text: str) -> Json:
    return ord(text) if key in ("containerPort", "port") else text


_SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
_POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}}

PAIRS: tuple[tuple[Json, Json], ...] = (
    (
        {"spec": {"ports": [{"port": 80, "protocol": "UDP", "name": "u"}]}},
        {**_SERVICE, "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "t"}]}},
    ),
    (
        {"spec": {"ports": [{"port": 80, "name": "u"}]}},
        {**_SERVICE, "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "t"}]}},
    ),
    (
        {"spec": {"ports": [{"port": 81}, {"port": 80, "protocol": "TCP", "nodePort": 30000}]}},
        {**_SERVICE, "spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 82}]}},
    ),
    (
        {"spec": {"ingress": [{"ports": [{"port": 80}]}]}},
        {
            **_POLICY,
            "spec": {"ingress": [{"from": [{"podSelector": {}}]}], "policyTypes": ["Ingress"]},
        },
    ),
    (
        {"spec": {"policyTypes": ["Egress"]}},
        {**_POLICY, "spec": {"ingress": [], "policyTypes": ["Ingress"]}},
    ),
    (
        {"spec": {"ingress": []}},
        {**_POLICY, "spec": {"ingress": [{"from": [{"podSelector": {}}]}]}},
    ),
    (
        {"spec": {"podSelector": {}}},
        {**_POLICY, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}},
    ),
    (
        {"data": {"a": "1", "b": None}},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "2", "c": "3"}},
    ),
    ({"data": {"a": "1"}}, {"apiVersion": "v1", "kind": "ConfigMap"}),
    ({"data": None}, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": "2"}}),
    ({"data": {"a": {"b": None, "c": 1}}}, {"apiVersion": "v1", "kind": "ConfigMap"}),
    ({"data": {"a": [None, 1]}}, {"apiVersion": "v1", "kind": "ConfigMap"}),
    ({"data": {"a": "x"}}, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": {"b": 1}}}),
    ({"data": {"a": {"b": 1}}}, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "x"}}),
    ({"data": {"a": {"b": 1}}}, {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": None}}),
    (
        {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": [{"verbs": ["*"]}]},
    ),
)

_DOCUMENT: Json = {
    "metadata": {"name": "x", "labels": {"a": "1", "b/c": "2", "~": "3"}},
    "list": [1, 2, 3],
    "maps": [{"name": "a", "v": 1}, {"name": "b"}],
    "text": "abc",
    "null": None,
    "deep": {"a": {"b": {"c": 1}}},
}

_PATHS = [
    "/metadata/labels/a",
    "/metadata/labels/new",
    "/metadata/labels/b~1c",
    "/metadata/labels/~0",
    "/metadata/annotations/x",
    "/list/0",
    "/list/1",
    "/list/3",
    "/list/4",
    "/list/-1",
    "/list/-3",
    "/list/-4",
    "/list/-",
    "/list/x",
    "/list/01",
    "/maps/0/v",
    "/maps/1/v",
    "/maps/-1/name",
    "/maps/2/v",
    "/maps/-/v",
    "/text/a",
    "/null",
    "/null/a",
    "/absent",
    "/absent/a",
    "/absent/0",
    "/absent/-/a",
    "/deep/a/b/c",
    "/deep/a/x/y/z",
    "/absent/1",
    "/text",
    "list",
    "/",
    "/metadata",
    "/absent/-1",
]


def json_patches() -> Iterator[Question]:
    """Every operation on every kind of path, then texts that hold operations."""
    for path in [*_PATHS, ""]:
        for value in (5, {"k": "v"}, None, [1]):
            yield _patch([{"op": "add", "path": path, "value": value}])
        yield _patch([{"op": "replace", "path": path, "value": "new"}])
        yield _patch([{"op": "remove", "path": path}])
        yield _patch([{"op": "test", "path": path, "value": 1}])
        for source in ("/metadata/labels/a", "/list/0", "/maps/0", "/absent", "/null"):
            yield _patch([{"op": "move", "from": source, "path": path}])
            yield _patch([{"op": "copy", "from": source, "path": path}])
        yield _patch([{"op": "move", "from": path, "path": "/moved"}])
        yield _patch([{"op": "copy", "from": path, "path": "/copied"}])
    for text in TEXTS:
        yield {"op": "jsonpatch", "patches": text, "object": _DOCUMENT}


def _patch(operations: list[Json]) -> Question:
    return {"op": "jsonpatch", "patches": json.dumps(operations), "object": _DOCUMENT}


TEXTS = (
    "- op: add\n  path: /metadata/labels/x\n  value: y",
    "- op: add\n  path: /metadata/labels/x\n  value: 5",
    "- op: remove\n  path: /list/2\n- op: remove\n  path: /list/0",
    "- op: remove\n  path: /list/0\n- op: remove\n  path: /list/1",
    "- op: add\n  path: /list/-\n  value: 4\n- op: replace\n  path: /list/-1\n  value: 5",
    "- op: test\n  path: /text\n  value: abc\n- op: remove\n  path: /text",
    "- op: test\n  path: /text\n  value: no\n- op: remove\n  path: /text",
    "- op: test\n  path: /absent\n  value: null",
    "- op: test\n  path: /null\n  value: null",
    "- op: add\n  path: /x",
    "- op: replace\n  path: /text",
    "- op: odd\n  path: /x\n  value: 1",
    "- path: /x\n  value: 1",
    "- op: add\n  value: 1",
    "op: add\npath: /x\nvalue: 1",
    "[]",
    "",
    "x",
    "- x",
    "- op: add\n  path: x/y\n  value: 1",
    "- op: move\n  path: /deep/a/b\n  from: /deep/a",
    "- op: copy\n  path: /deep/a/b/d\n  from: /deep/a",
    "- op: copy\n  path: /list/-\n  from: /maps/0/v",
    "- op: add\n  path: /maps/0\n  value: {name: z}\n- op: remove\n  path: /maps/1/v",
)
