"""The client against a real API server: what it writes arrives, what is refused has its name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from generators.documents.json import Document, mapping, mappings, meta_of, strings, text
from generators.kube.client import Client, DryRun, OnConflict, PatchKind, Preconditions, WatchScope
from generators.kube.config import Fixed, Kubeconfig, ServiceAccount, Source, access_for
from generators.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Overloaded,
    ServerFailed,
    Unauthorized,
    Unreachable,
)
from generators.kube.resources import (
    ACCESS_REVIEWS,
    CONFIG_MAPS,
    NAMESPACES,
    NETWORK_POLICIES,
    SERVICE_ACCOUNTS,
    Resource,
)
from lab.api.plane import authority_named
from tests.generators.kube.proxy import FaultProxy, refusal
from tests.testbed.plane import ControlPlane
from tests.testbed.processes import free_ports

pytestmark = pytest.mark.cluster
Unique = Callable[[str], str]
Connect = Callable[[Source], Client]


def config_map(name: str, **data: str) -> Document:
    return {"metadata": {"name": name, "namespace": "default"}, "data": dict(data)}


def data_of(document: Document) -> dict[str, str]:
    return strings(document, "data")


def test_an_object_lives_from_create_to_delete(admin: Client, unique_name: Unique) -> None:
    name = unique_name("life")
    created = admin.create(CONFIG_MAPS, config_map(name, a="1"), manager="test")
    assert data_of(admin.get(CONFIG_MAPS, name, "default")) == {"a": "1"}
    admin.update(CONFIG_MAPS, created | {"data": {"a": "2"}}, manager="test")
    admin.patch(
        CONFIG_MAPS, name, "default", {"data": {"b": "3"}}, kind=PatchKind.MERGE, manager="test"
    )
    assert data_of(admin.get(CONFIG_MAPS, name, "default")) == {"a": "2", "b": "3"}
    admin.delete(CONFIG_MAPS, name, "default")
    with pytest.raises(NotFound, match=f'configmaps "{name}" not found'):
        admin.get(CONFIG_MAPS, name, "default")


def test_apply_owns_its_fields_and_gives_up_what_it_no_longer_names(
    admin: Client, unique_name: Unique
) -> None:
    name = unique_name("apply")
    admin.apply(CONFIG_MAPS, config_map(name, a="1", b="2"), manager="ringfence")
    admin.apply(CONFIG_MAPS, config_map(name, c="3"), manager="somebody")
    applied = admin.apply(CONFIG_MAPS, config_map(name, a="1"), manager="ringfence")
    assert data_of(applied) == {"a": "1", "c": "3"}
    assert {text(m, "manager") for m in mappings(applied, "metadata", "managedFields")} == {
        "ringfence",
        "somebody",
    }


def test_apply_does_not_take_a_field_from_another_manager_unless_forced(
    admin: Client, unique_name: Unique
) -> None:
    name = unique_name("force")
    admin.apply(CONFIG_MAPS, config_map(name, a="theirs"), manager="somebody")
    ours = config_map(name, a="ours")
    with pytest.raises(Conflict, match="somebody"):
        admin.apply(CONFIG_MAPS, ours, manager="ringfence")
    forced = admin.apply(CONFIG_MAPS, ours, manager="ringfence", on_conflict=OnConflict.FORCE)
    assert data_of(forced) == {"a": "ours"}


def test_a_dry_run_decides_and_leaves_nothing(admin: Client, unique_name: Unique) -> None:
    name = unique_name("dry")
    admin.apply(CONFIG_MAPS, config_map(name), manager="test", dry_run=DryRun.ALL)
    with pytest.raises(NotFound):
        admin.get(CONFIG_MAPS, name, "default")


def test_delete_spares_an_object_that_is_not_the_one_looked_at(
    admin: Client, unique_name: Unique
) -> None:
    name = unique_name("spare")
    first = meta_of(admin.create(CONFIG_MAPS, config_map(name), manager="test"))
    admin.apply(CONFIG_MAPS, config_map(name, changed="yes"), manager="test")
    for stale in (Preconditions(uid="other"), Preconditions(first.uid, first.resource_version)):
        with pytest.raises(Conflict):
            admin.delete(CONFIG_MAPS, name, "default", only_if=stale)
    admin.delete(CONFIG_MAPS, name, "default", only_if=Preconditions(first.uid))


def test_update_of_an_object_that_changed_meanwhile_is_a_conflict(
    admin: Client, unique_name: Unique
) -> None:
    name = unique_name("race")
    seen = admin.create(CONFIG_MAPS, config_map(name), manager="test")
    admin.apply(CONFIG_MAPS, config_map(name, a="1"), manager="other")
    with pytest.raises(Conflict, match="the object has been modified"):
        admin.update(CONFIG_MAPS, seen | {"data": {"a": "2"}}, manager="test")


def test_a_json_patch_s_test_operation_guards_it(admin: Client, unique_name: Unique) -> None:
    name = unique_name("guard")
    admin.create(CONFIG_MAPS, config_map(name, a="1"), manager="test")
    patch: list[Document] = [
        {"op": "test", "path": "/data/a", "value": "0"},
        {"op": "replace", "path": "/data/a", "value": "2"},
    ]
    with pytest.raises(Invalid):
        admin.patch(CONFIG_MAPS, name, "default", patch, kind=PatchKind.JSON, manager="test")
    assert data_of(admin.get(CONFIG_MAPS, name, "default")) == {"a": "1"}


def test_creating_twice_says_that_it_exists(admin: Client, unique_name: Unique) -> None:
    name = unique_name("twice")
    admin.create(CONFIG_MAPS, config_map(name), manager="test")
    with pytest.raises(AlreadyExists):
        admin.create(CONFIG_MAPS, config_map(name), manager="test")


def test_an_invalid_object_names_the_field(admin: Client) -> None:
    with pytest.raises(Invalid) as caught:
        admin.create(NAMESPACES, {"metadata": {"name": "Not_A_Name"}}, manager="test")
    assert [cause.field for cause in caught.value.status.causes] == ["metadata.name"]


def test_rbac_is_told_apart_from_absence(api: ControlPlane, connect: Connect) -> None:
    alice = connect(Kubeconfig(str(api.kubeconfig("alice", ["team-test01"]))))
    with pytest.raises(Forbidden, match='User "alice" cannot get resource "configmaps"'):
        alice.get(CONFIG_MAPS, "any", "default")
    review = alice.create(
        ACCESS_REVIEWS,
        {"spec": {"resourceAttributes": {"verb": "get", "resource": "configmaps"}}},
        manager="test",
    )
    assert mapping(review, "status")["allowed"] is False


def test_an_unknown_kind_is_not_found(admin: Client) -> None:
    with pytest.raises(NotFound):
        admin.list_all(Resource("kyverno.io", "v1", "clusterpolicies", "ClusterPolicy"))


def test_a_list_is_complete_whatever_the_size_of_its_pages(
    admin: Client, unique_name: Unique
) -> None:
    mark = unique_name("page")
    for index in range(7):
        document = config_map(f"{mark}-{index}")
        document["metadata"] = dict(mapping(document, "metadata")) | {"labels": {"mark": mark}}
        admin.create(CONFIG_MAPS, document, manager="test")
    scope = WatchScope("default", labels=f"mark={mark}")
    sizes = [len(page.items) for page in admin.pages(CONFIG_MAPS, scope, limit=3)]
    assert sizes == [3, 3, 1]
    items = admin.list_all(CONFIG_MAPS, scope)
    assert [meta_of(item).key.name for item in items] == [f"{mark}-{i}" for i in range(7)]
    assert {text(item, "kind") for item in items} == {"ConfigMap"}


def test_selectors_by_field_reach_the_server(admin: Client) -> None:
    found = admin.list_all(NAMESPACES, WatchScope(fields="metadata.name=kube-system"))
    assert [str(meta_of(item).key) for item in found] == ["kube-system"]


def test_the_version_is_that_of_the_testbed(admin: Client) -> None:
    version = admin.version()
    assert version.at_least(1, 30)
    assert not version.at_least(2, 0)
    assert version.release.startswith(f"v{version.major}.{version.minor}.")


def test_many_threads_share_one_client(admin: Client) -> None:
    failed: list[Exception] = []

    def ask() -> None:
        try:
            for _ in range(20):
                assert meta_of(admin.get(NAMESPACES, "default")).key.name == "default"
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []


# --- what can go wrong on the way ----------------------------------------------------------------


def test_a_dead_server_is_unreachable_and_says_why(connect: Connect) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Unreachable, match=r"does not answer: .*refused"):
        connect(Fixed(access_for(url))).version()


def test_a_server_of_another_authority_is_not_trusted(
    api: ControlPlane, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_bytes(authority_named("another").pem)
    source = ServiceAccount("127.0.0.1", str(api.port), tmp_path)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        connect(source).version()


def test_a_connection_that_the_server_closed_while_idle_is_not_noticed_by_the_caller(
    admin: Client, proxy: FaultProxy, unique_name: Unique
) -> None:
    # The proxy closes each connection after one answer, without saying so in the answer.
    client = proxy.client()
    name = unique_name("idle")
    client.create(CONFIG_MAPS, config_map(name), manager="test")
    for value in ("1", "2", "3"):
        client.apply(CONFIG_MAPS, config_map(name, a=value), manager="test")
    assert data_of(admin.get(CONFIG_MAPS, name, "default")) == {"a": "3"}


def test_an_overloaded_server_s_wish_is_passed_on(proxy: FaultProxy) -> None:
    proxy.answer = lambda _: refusal(429, "TooManyRequests", "Retry-After: 7\r\n")
    with pytest.raises(Overloaded) as caught:
        proxy.client().version()
    assert caught.value.retry_after == 7.0


def test_a_forgotten_continue_token_is_gone(proxy: FaultProxy) -> None:
    proxy.answer = lambda target: refusal(410, "Expired") if "continue=" in target else None
    with pytest.raises(Gone):
        list(proxy.client().pages(NAMESPACES, limit=1))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", id="a web page"),
        pytest.param(b"HTTP/1.1 502 Bad\r\nContent-Length: 7\r\n\r\nno luck", id="a gateway"),
    ],
)
def test_what_is_no_api_server_is_a_failed_server(proxy: FaultProxy, answer: bytes) -> None:
    proxy.answer = lambda _: answer
    with pytest.raises(ServerFailed):
        proxy.client().version()


def test_a_truncated_answer_is_no_answer(proxy: FaultProxy) -> None:
    proxy.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    with pytest.raises(Unreachable):
        proxy.client().version()


def test_a_rotated_token_is_picked_up_when_the_old_one_is_refused(
    api: ControlPlane, admin: Client, connect: Connect, unique_name: Unique, tmp_path: Path
) -> None:
    name = unique_name("rotated")
    account: Document = {"metadata": {"name": name, "namespace": "default"}}
    admin.create(SERVICE_ACCOUNTS, account, manager="test")
    (tmp_path / "ca.crt").write_bytes(api.ca)
    (tmp_path / "token").write_text("not a token")
    client = connect(ServiceAccount("127.0.0.1", str(api.port), tmp_path))
    # Anybody who is known may ask for the version of the server; nobody may ask for policies.
    with pytest.raises(Unauthorized):
        client.list_all(NETWORK_POLICIES)
    (tmp_path / "token").write_text(api.kubectl("create", "token", name, "-n", "default"))
    with pytest.raises(Forbidden, match=f"system:serviceaccount:default:{name}"):
        client.list_all(NETWORK_POLICIES)


def test_what_kubectl_shows_is_what_was_applied(
    api: ControlPlane, admin: Client, unique_name: Unique
) -> None:
    name = unique_name("shown")
    policy: Document = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    admin.apply(NETWORK_POLICIES, policy, manager="ringfence")
    shown = json.loads(api.kubectl("get", "networkpolicy", name, "-o", "json", "-n", "default"))
    assert shown["spec"] == policy["spec"]
