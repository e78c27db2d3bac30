"""What the controller keeps for itself and others is put back while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from generators.documents.json import Document, meta_of, text
from generators.isolation.record import RECORD_PREFIX, shard
from generators.kube.client import PatchKind
from generators.kube.errors import AlreadyExists, Conflict, NotFound
from generators.kube.resources import CONFIG_MAPS, SECRETS, Resource
from generators.labels import MANAGED_BY, MANAGER
from generators.tenants.packed import GUARD_NAME
from tests.controller.cluster import SYSTEM, Cluster, guarded
from tests.testbed.planes import Planes
from tests.testbed.waiting import eventually
from webhook.background import memory
from webhook.background.memory import Memory, Newcomer
from webhook.kept import MEMORY_NAME, SECRET_NAME, STATUS_NAME, Content, KeptObject

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def running(planes: Planes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Not the shared one: what belongs to the controller is taken from it."""
    with guarded(tmp_path_factory.mktemp("kept"), plane=planes.one()) as (made, _):
        made.make("annas", made.as_user("anna", "team-test01"))
        eventually(lambda: made.isolated("annas", "test01"), "isolated")
        eventually(made.synchronized, "synchronized")
        yield made


def content(cluster: Cluster, resource: Resource, name: str) -> object:
    try:
        return cluster.admin.get(resource, name, SYSTEM).get("data")
    except NotFound:
        return None


def kept(cluster: Cluster) -> list[tuple[Resource, str]]:
    record = RECORD_PREFIX + shard(cluster.uid("annas"))
    secret = (SECRETS, SECRET_NAME)
    return [(CONFIG_MAPS, STATUS_NAME), (CONFIG_MAPS, GUARD_NAME), (CONFIG_MAPS, record), secret]


def remove(cluster: Cluster, resource: Resource, name: str) -> None:
    cluster.admin.delete(resource, name, SYSTEM)


def forge(cluster: Cluster, resource: Resource, name: str) -> None:
    patch: Document = {"data": {"problem": "e30=", "generation": "e30="}}
    cluster.admin.patch(resource, name, SYSTEM, patch, kind=PatchKind.MERGE, manager="test")


@pytest.mark.parametrize("number", range(4), ids=["status", "guard", "record", "certificates"])
def test_what_is_deleted_comes_back(running: Cluster, number: int) -> None:
    resource, name = kept(running)[number]
    assert content(running, resource, name)
    remove(running, resource, name)
    eventually(lambda: content(running, resource, name), f"{name} is back", 30)
    eventually(lambda: running.isolated("annas", "test01"), "nobody has moved")


@pytest.mark.parametrize("number", range(2), ids=["status", "guard"])
def test_what_is_edited_is_put_right(running: Cluster, number: int) -> None:
    resource, name = kept(running)[number]
    before = content(running, resource, name)
    assert before
    forge(running, resource, name)
    eventually(lambda: content(running, resource, name) == before, f"{name} is as it was", 30)


@pytest.mark.parametrize("harm", [remove, forge])
def test_the_memory_of_policies_is_put_back(
    running: Cluster,
    harm: Callable[[Cluster, Resource, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.2)
    kept = Memory(running.admin, SYSTEM)
    kept.load()
    kept.introduce([Newcomer(("policy", "rule"), False, "digest", 7)], complete=True)
    kept.save()
    before = content(running, CONFIG_MAPS, MEMORY_NAME)
    assert before
    harm(running, CONFIG_MAPS, MEMORY_NAME)

    def as_it_was() -> bool:
        kept.save()
        return content(running, CONFIG_MAPS, MEMORY_NAME) == before

    eventually(as_it_was, "it is restored", 30)


def test_what_says_the_same_already_is_not_written_again(
    running: Cluster, name: Callable[[str], str]
) -> None:
    admin, called = running.admin, name("kept")
    kept = KeptObject(admin, CONFIG_MAPS, SYSTEM, called)
    assert kept.read() == Content()
    made = kept.write({"a": "1"}, Content())
    assert kept.read() == made
    assert kept.write({"a": "1"}, made) is made
    assert meta_of(admin.get(CONFIG_MAPS, called, SYSTEM)).labels == {MANAGED_BY: MANAGER}
    assert kept.write({"b": "2"}, made).version != made.version
    assert kept.read().data == {"b": "2"}


def test_nothing_is_written_over_what_was_not_read(
    running: Cluster, name: Callable[[str], str]
) -> None:
    kept = KeptObject(running.admin, CONFIG_MAPS, SYSTEM, name("kept"))
    made = kept.write({"a": "1"}, Content())
    with pytest.raises(AlreadyExists):
        kept.write({"a": "2"}, Content())
    kept.write({"a": "3"}, made)
    with pytest.raises(Conflict):
        kept.write({"a": "4"}, made)


def test_an_object_without_our_mark_is_told_and_a_write_marks_it(
    running: Cluster, name: Callable[[str], str]
) -> None:
    admin, called = running.admin, name("kept")
    kept = KeptObject(admin, SECRETS, SYSTEM, called, "kubernetes.io/tls")
    kept.write({"tls.crt": "", "tls.key": ""}, Content())
    patch: Document = {"metadata": {"labels": {MANAGED_BY: "Helm"}}}
    admin.patch(SECRETS, called, SYSTEM, patch, kind=PatchKind.MERGE, manager="test")
    found = kept.read()
    assert not found.ours
    kept.write(found.data, found)
    assert kept.read().ours
    assert text(admin.get(SECRETS, called, SYSTEM), "type") == "kubernetes.io/tls"
