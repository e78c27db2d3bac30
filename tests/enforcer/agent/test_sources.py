"""Whatever the API server sends in whatever order, the agent's inputs end as what is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.parts.replay import Replayed
from enforcer.compiler.compile import Compiler, compile_tables
from enforcer.policy.changes import ConfigChange, InterfaceChange, PodChange, PolicyChange
from enforcer.sources.api import ApiSupply
from enforcer.sources.manifests import ManifestSupply
from enforcer.sources.readers import ManifestReader, PodReader, Unreadable, ValuePool
from enforcer.sources.record import Record
from enforcer.sources.tenants import AgentTenants
from generators.cluster import Cluster, from_record
from generators.documents.json import Document
from generators.isolation.record import RecordEntry, record_documents
from generators.kube.resources import (
    CILIUM_CLUSTERWIDE_POLICIES,
    CILIUM_NODES,
    CILIUM_POLICIES,
    CONFIG_MAPS,
    CUSTOM_RESOURCES,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    Resource,
)
from generators.manifests import Documents, parse_object
from generators.objects import (
    CiliumPolicy,
    ConfigMap,
    Direction,
    Namespace,
    NetworkPolicy,
    Origin,
    Pod,
    Workload,
)
from generators.tenants.consents import parse_consents
from generators.tenants.load import load_tenants
from tests.enforcer.compiler.test_sequences import meaning
from tests.testbed.waiting import eventually, patience

NODE = "here"
SOON = 10.0
INTERFACES = {
    f"{namespace}/{name}": index
    for index, (namespace, name) in enumerate(product(("n1", "n2"), "abc"), start=2)
}
TENANTS = """
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
labelKey: client
tenants:
  - {name: t1, namespaces: {names: [n1]}}
  - {name: t2, namespaces: {names: [n2]}}
"""

Object = tuple[Resource, str, Document | None]
"""A resource, an object's key, and the object; None: deleted."""


def pod(namespace: str, name: str, **more: object) -> Document:
    number = "abc".index(name) + 3 * int(namespace[1])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"{namespace}-{name}",
            "creationTimestamp": f"2026-01-01T00:00:{number:02}Z",
            "labels": more.get("labels", {}),
        },
        "spec": {"nodeName": NODE, "containers": [{"name": "c"}]},
        "status": {
            "phase": more.get("phase", "Running"),
            "podIPs": [{"ip": str(more.get("ip", f"10.244.0.{number}"))}],
        },
    }


def namespace(name: str, labels: Mapping[str, str] | None = None, uid: str = "") -> Document:
    told = {"kubernetes.io/metadata.name": name, **(labels or {})}
    metadata = {"name": name, "uid": uid or f"uid-{name}", "labels": told}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def policy(name: str, app: str) -> Document:
    peer = {"podSelector": {"matchLabels": {"app": app}}, "namespaceSelector": {}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer]}]},
    }


def definition(kind: Resource, uid: str) -> Document:
    """A CRD as an API server that serves it has it."""
    return {
        "metadata": {"name": str(kind), "uid": uid},
        "spec": {"versions": [{"name": kind.version, "served": True}]},
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    }


def cilium(namespace: str, app: str, parts: int) -> Document:
    """A CiliumNetworkPolicy of so many parts."""
    kind = CILIUM_POLICIES if namespace else CILIUM_CLUSTERWIDE_POLICIES
    rule = {"fromEndpoints": [{"matchLabels": {"app": app}}]}
    part = {"endpointSelector": {}, "ingress": [rule]}
    home = {"namespace": namespace} if namespace else {}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": "p", **home},
        "specs": [part, {**part, "ingressDeny": [rule]}][:parts],
    }


def of_cilium(namespace: str, document: Document | None) -> Object:
    kind = CILIUM_POLICIES if namespace else CILIUM_CLUSTERWIDE_POLICIES
    return kind, f"{namespace}/p" if namespace else "p", document


names = st.sampled_from(("n1", "n2"))
apps = st.sampled_from(("web", "db"))
objects: st.SearchStrategy[Object] = st.one_of(
    st.builds(
        lambda n, p, app, phase, shared: (
            PODS,
            f"{n}/{p}",
            pod(n, p, labels={"app": app}, phase=phase, **({"ip": "10.244.9.9"} if shared else {})),
        ),
        *(names, st.sampled_from("abc"), apps),
        st.sampled_from(("Running", "Running", "Failed", "Pending")),
        st.booleans(),
    ),
    st.builds(lambda n, p: (PODS, f"{n}/{p}", None), names, st.sampled_from("abc")),
    st.builds(lambda n, app: (NETWORK_POLICIES, f"{n}/p", policy(n, app)), names, apps),
    st.builds(lambda n: (NETWORK_POLICIES, f"{n}/p", None), names),
    st.builds(
        lambda n, app, parts: of_cilium(n, cilium(n, app, parts)),
        *(st.sampled_from(("n1", "n2", "")), apps, st.sampled_from((1, 2))),
    ),
    st.builds(lambda n: of_cilium(n, None), st.sampled_from(("n1", "n2", ""))),
    st.builds(
        lambda n, label, uid: (NAMESPACES, n, namespace(n, labels=label, uid=uid)),
        names,
        st.sampled_from(({}, {"client": "t1"}, {"client": "t2"})),
        st.sampled_from(("uid-n1", "uid-n2", "another")),
    ),
)
steps = st.lists(st.lists(objects, min_size=1, max_size=4), min_size=1, max_size=5)
RECORD = {"uid-n1": RecordEntry("n1", "t1"), "uid-n2": RecordEntry("n2", "t2")}


class Followed:
    """A supply, the compiler that it feeds, and the objects that there are."""

    def __init__(self, folder: Path) -> None:
        tenants = folder / "tenants.yaml"
        tenants.write_text(TENANTS)
        first: dict[Resource, list[Document]] = {
            NAMESPACES: [namespace("n1"), namespace("n2")],
            CONFIG_MAPS: record_documents(RECORD),
        }
        self.there = {(kind, key_of(d)): d for kind, listed in first.items() for d in listed}
        self.replay = Replayed({k: [orjson.dumps(d) for d in v] for k, v in first.items()})
        self.supply = ApiSupply(self.replay, NODE, AgentTenants(tenants), "ringfence-system")
        self.config = load_tenants(tenants)
        self.compiler = Compiler(NODE)
        self.compiler.apply(InterfaceChange(key, index) for key, index in INTERFACES.items())
        self.supply.start(lambda: None)
        for kind in (CILIUM_POLICIES, CILIUM_CLUSTERWIDE_POLICIES):
            self.replay.send(CUSTOM_RESOURCES, "ADDED", definition(kind, str(kind)))

    def happen(self, event: Object) -> None:
        """An event of the watch; what is not there cannot be deleted."""
        kind, key, document = event
        before = self.there.pop((kind, key), None)
        if document is not None:
            self.there[kind, key] = document
            self.replay.send(kind, "ADDED" if before is None else "MODIFIED", document)
        elif before is not None:
            self.replay.send(kind, "DELETED", before)

    def settle(self) -> None:
        """Take in all that was sent."""

        def taken() -> bool:
            self.compiler.apply(self.supply.take().changes)
            return self._is_up_to_date()

        eventually(taken, "the last events came", poll=0.002)
        self.compiler.plan()
        self.compiler.commit()

    def cluster(self) -> Cluster:
        """Everything that is there, as the offline commands read it."""
        found = [parse_object(document, Origin("test")) for document in self.there.values()]
        documents = Documents(
            namespaces=tuple(o for o in found if isinstance(o, Namespace)),
            policies=tuple(o for o in found if isinstance(o, NetworkPolicy)),
            cilium_policies=tuple(o for o in found if isinstance(o, CiliumPolicy)),
            config_maps=tuple(o for o in found if isinstance(o, ConfigMap)),
        )
        pods = tuple(o for o in found if isinstance(o, Pod))
        return replace(from_record(documents, self.config), pods=pods)

    def _is_up_to_date(self) -> bool:
        wanted, known = self.cluster(), self.compiler.known
        return (
            {p.key: _seen(p) for p in wanted.pods} == {k: _seen(p) for k, p in known.pods.items()}
            and {n: (o.uid, o.labels) for n, o in wanted.namespaces.items()}
            == {n: (o.uid, o.labels) for n, o in known.namespaces.items()}
            and {p.key: p.ingress for p in wanted.policies}
            == {key: p.ingress for key, p in self.compiler.policies().items()}
        )


def _seen(pod: Pod) -> object:
    return pod.uid, pod.labels, pod.ips, pod.phase


def key_of(document: Document) -> str:
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    return "/".join(metadata[k] for k in ("namespace", "name") if k in metadata)


@settings(suppress_health_check=list(HealthCheck))
@given(steps)
def test_any_events_in_any_order_mean_what_compiling_from_nothing_means(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[Object]]
) -> None:
    followed = Followed(tmp_path_factory.mktemp("supply"))
    try:
        for happened in ([], *history):
            for event in happened:
                followed.happen(event)
            followed.settle()
            fresh = compile_tables(followed.cluster(), NODE, INTERFACES)
            assert meaning(followed.compiler.tables()) == meaning(fresh)
    finally:
        followed.supply.stop()


def test_nothing_is_given_out_before_the_last_resource_has_been_read(tmp_path: Path) -> None:
    release = threading.Event()

    def slow() -> Iterator[bytes]:
        release.wait(patience(SOON))
        yield orjson.dumps(pod("n1", "a"))

    supply = ApiSupply(Replayed({PODS: slow()}), NODE, AgentTenants(None), "ringfence-system")
    woken = threading.Event()
    supply.start(woken.set)
    try:
        others = [s for kind, s in supply.sources().items() if kind != "pods"]
        eventually(lambda: all(source().synced for source in others))
        assert supply.take().changes == ()
        release.set()
        eventually(lambda: supply.sources()["pods"]().synced)
        assert any(isinstance(change, PodChange) for change in supply.take().changes)
    finally:
        supply.stop()


def test_without_a_good_tenant_file_nothing_is_given_out(tmp_path: Path) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text("kind: Nonsense")
    supply = ApiSupply(Replayed({}), NODE, AgentTenants(file), "ringfence-system")
    supply.start(lambda: None)
    try:
        eventually(lambda: all(s().synced for k, s in supply.sources().items() if k != "config"))
        assert supply.take().changes == ()
        assert "tenants.yaml" in supply.health().errors["config"]
        file.write_text(TENANTS)
        assert any(isinstance(c, ConfigChange) for c in supply.take().changes)
        file.write_text("kind: Nonsense")
        assert not any(isinstance(c, ConfigChange) for c in supply.take().changes)
        assert "config" in supply.health().errors
    finally:
        supply.stop()


def test_a_namespace_made_anew_has_no_tenant_until_it_is_recorded_again() -> None:
    record = Record()
    for document in record_documents(RECORD):
        shard = parse_object(document, Origin("test"))
        assert isinstance(shard, ConfigMap)
        record.put_shard(shard.name, shard.data)
    record.put_namespace("n1", Namespace("n1", uid="uid-n1"))
    assert list(record.changes()) == [("n1", "t1")]
    record.put_namespace("n1", None)
    record.put_namespace("n1", Namespace("n1", uid="another"))
    assert list(record.changes()) == [("n1", None)]
    record.put_namespace("n3", Namespace("n3", uid="uid-n2"))
    assert list(record.changes()) == []


def test_a_policy_that_makes_no_sense_lets_nobody_in_or_out() -> None:
    problems = Unreadable()
    odd = policy("n1", "web")
    odd["spec"] = {"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"fom": []}]}
    found = ManifestReader(problems).policy(odd)
    assert found.ingress == ()
    assert found.pod_selector.requirements != ()
    assert "n1/p" in problems.read()

    odd["spec"] = {"podSelector": 7}
    found = ManifestReader(problems).policy(odd)
    assert found.directions == frozenset(Direction)
    assert found.pod_selector.requirements == ()
    ManifestReader(problems).policy(policy("n1", "web"))
    assert problems.read() == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, ("10.244.0.3",), id="as it is"),
        pytest.param({"podIPs": [{"ip": "::FFFF:10.0.0.1"}]}, ("10.0.0.1",), id="mapped"),
        pytest.param({"podIPs": [{"ip": "fd00:0::1"}]}, ("fd00::1",), id="long spelling"),
        pytest.param({"podIPs": [], "podIP": "10.0.0.9"}, ("10.0.0.9",), id="podIP alone"),
        pytest.param({"podIPs": [{"ip": "nonsense"}]}, (), id="nonsense is no address"),
    ],
)
def test_pods_are_read_as_manifests_are(
    change: Mapping[str, object], expected: tuple[str, ...]
) -> None:
    document = pod("n1", "a")
    status = document["status"]
    assert isinstance(status, dict)
    status.update(change)
    found = PodReader(NODE, Unreadable())(document)
    assert found is not None
    assert found.ips == expected
    if expected:
        assert found == parse_object(document, Origin("test"))


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([], None),
        ([("ReplicaSet", "web-5d9", True)], Workload("Deployment", "web")),
        ([("ReplicaSet", "web-5d9", False)], None),
        ([("Other", "x", False), ("StatefulSet", "db", True)], Workload("StatefulSet", "db")),
    ],
)
def test_a_pods_workload_is_read_as_in_manifests_and_is_one_object_for_its_pods(
    owners: list[tuple[str, str, bool]], expected: Workload | None
) -> None:
    document = pod("n1", "a", labels={"pod-template-hash": "5d9"})
    document["metadata"]["ownerReferences"] = [  # type: ignore[index]
        {"kind": kind, "name": name, "controller": controls} for kind, name, controls in owners
    ]
    read = PodReader(NODE, Unreadable())
    found, again = read(document), read(document)
    assert found is not None
    assert again is not None
    assert found.workload == expected
    assert found.workload is again.workload
    assert found == parse_object(document, Origin("test"))


def test_pods_on_the_network_of_other_nodes_are_nobodys_peers() -> None:
    document = pod("n1", "a")
    document["spec"] = {"nodeName": "elsewhere", "hostNetwork": True}
    assert PodReader(NODE, Unreadable())(document) is None


def test_only_changed_manifests_are_parsed_again(tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        (tmp_path / f"{name}.json").write_bytes(orjson.dumps(policy(name, "web")))
    supply = ManifestSupply(tmp_path, AgentTenants(None))
    first = {c.key: c.policy for c in supply.take().changes if isinstance(c, PolicyChange)}
    assert first.keys() == {"n1/p", "n2/p"}
    assert supply.take().changes == ()

    (tmp_path / "n1.json").write_bytes(orjson.dumps(policy("n1", "db")))
    again = [c for c in supply.take().changes if isinstance(c, PolicyChange)]
    assert [c.key for c in again] == ["n1/p"]

    (tmp_path / "n3.json").write_bytes(orjson.dumps(policy("n2", "db")))
    assert supply.take().changes == ()
    assert "given twice" in supply.health().errors["manifests"]
    (tmp_path / "n3.json").unlink()
    assert supply.take().changes == ()
    assert supply.health().errors == {}


def test_a_change_on_disk_wakes_the_agent(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    supply = ManifestSupply(tmp_path, AgentTenants(None))
    woken = threading.Event()
    supply.start(woken.set)
    try:
        (below / "p.json").write_bytes(orjson.dumps(policy("n1", "web")))
        assert woken.wait(patience(SOON))
        eventually(lambda: bool(supply.take().changes))
    finally:
        supply.stop()


def test_values_of_objects_that_are_gone_are_not_kept_for_ever() -> None:
    """What is in use goes on being one object meanwhile."""
    shared = ValuePool()
    first = shared.labels({"app": "web"})
    for number in range(5 * ValuePool.ROOM):
        shared.labels({"pod": str(number)})
        if number % 1000 == 0:
            assert shared.labels({"app": "web"}) is first
    assert len(shared) <= 2 * ValuePool.ROOM


def test_grants_that_the_record_has_are_in_force_and_end_with_it(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    file = tmp_path / "tenants.yaml"
    file.write_text(file.read_text() + "grants: self-service\n")
    followed.config = load_tenants(file)
    followed.settle()

    def now() -> list[str]:
        followed.settle()
        config = followed.compiler.known.config
        assert config is not None
        return [grant.tenant for grant in config.consented("t1")]

    def recorded(**said: str) -> None:
        entries = {
            uid: replace(entry, consents=parse_consents(said.get(entry.tenant, "")))
            for uid, entry in RECORD.items()
        }
        for document in record_documents(entries):
            followed.happen((CONFIG_MAPS, key_of(document), document))

    recorded(t1="t1 from t2:80")
    assert now() == []
    recorded(t1="t1 from t2:80", t2="t2 to t1")
    eventually(lambda: now() == ["t2"], "in force")
    recorded(t2="t2 to t1")
    eventually(lambda: now() == [], "withdrawn")


def taken(supply: ApiSupply) -> dict[str, NetworkPolicy | None]:
    """Policies in the changes of the next turn."""
    changes = supply.take().changes
    return {c.key: c.policy for c in changes if isinstance(c, PolicyChange)}


@pytest.fixture
def served() -> Iterator[tuple[Replayed, ApiSupply]]:
    """An API server that serves Cilium's policies, and one of them."""
    replay = Replayed({CILIUM_POLICIES: [orjson.dumps(cilium("n1", "web", 2))]})
    supply = ApiSupply(replay, NODE, AgentTenants(None), "ringfence-system")
    supply.start(lambda: None)
    replay.send(CUSTOM_RESOURCES, "ADDED", definition(CILIUM_POLICIES, "one"))
    try:
        eventually(lambda: set(taken(supply)) == {"n1/cnp:p#specs[0]", "n1/cnp:p#specs[1]"})
        yield replay, supply
    finally:
        supply.stop()


def test_a_definition_that_goes_takes_its_policies_along(
    served: tuple[Replayed, ApiSupply],
) -> None:
    replay, supply = served
    replay.send(CUSTOM_RESOURCES, "DELETED", definition(CILIUM_POLICIES, "one"))
    gone = {"n1/cnp:p#specs[0]": None, "n1/cnp:p#specs[1]": None}
    eventually(lambda: taken(supply) == gone, "all parts are gone")


def test_a_definition_made_anew_is_another_kind_and_its_objects_are_read_again(
    served: tuple[Replayed, ApiSupply],
) -> None:
    replay, supply = served
    replay.send(CUSTOM_RESOURCES, "MODIFIED", definition(CILIUM_POLICIES, "two"))
    eventually(lambda: taken(supply).get("n1/cnp:p#specs[0]", supply) is None, "the old are gone")


def test_where_cilium_runs_on_this_node_and_no_other_its_policies_are_left_to_it(
    served: tuple[Replayed, ApiSupply],
) -> None:
    replay, supply = served
    replay.send(CUSTOM_RESOURCES, "ADDED", definition(CILIUM_NODES, "nodes"))
    replay.send(CILIUM_NODES, "ADDED", {"metadata": {"name": "another"}})
    replay.send(CILIUM_NODES, "ADDED", {"metadata": {"name": NODE}})
    eventually(lambda: None in taken(supply).values(), "the policy is let go")
    assert "Cilium runs on this node" in supply.health().notices[0]
    replay.send(CILIUM_NODES, "DELETED", {"metadata": {"name": NODE}})
    eventually(lambda: not supply.health().notices or bool(taken(supply)), "it is gone")


def test_an_invalid_policy_is_a_closed_one_and_no_error_of_the_agent(
    served: tuple[Replayed, ApiSupply],
) -> None:
    replay, supply = served
    bad = {**cilium("n1", "web", 1), "specs": [{"endpointSelector": {}, "ingress": [{"x": 1}]}]}
    replay.send(CILIUM_POLICIES, "MODIFIED", bad)
    found: dict[str, NetworkPolicy | None] = {}

    def came() -> bool:
        found.update(taken(supply))
        return "n1/cnp:p#specs[0]" in found

    eventually(came, "it is read")
    closed = found["n1/cnp:p#specs[0]"]
    assert closed is not None
    assert (set(closed.directions), closed.ingress) == ({Direction.INGRESS}, ())
    assert found["n1/cnp:p#specs[1]"] is None
    source = supply.sources()["ciliumnetworkpolicies.cilium.io"]()
    assert source.tolerant
    assert "specs[0].ingress[0].x" in source.unreadable["n1/p"]
    assert supply.health().errors == {}
