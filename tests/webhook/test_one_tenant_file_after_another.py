"""No order of files, requests, restarts and lagging webhooks gives a namespace to a stranger."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.tenants.assignment import Requester
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import BOTH, ONE, PLATFORM, ROBOT, TENANTS, TWO
from tests.webhook.world import World

CARLA = Requester("carla", frozenset({"team-three"}))
CLIENT = TENANTS
PROOF = TENANTS.replace("labelKey: client", "labelKey: proof")
SWAPPED = TENANTS.replace("team-test01", "team-x").replace("team-test02", "team-test01")
SWAPPED = SWAPPED.replace("team-x", "team-test02")
AFFIX = PROOF.replace('suffixes: ["-test01"]', 'suffixes: ["-was01"]').replace(
    'suffixes: ["-test02"]', 'suffixes: ["-test02", "-test01"]'
)
THREE = CLIENT + "  - name: test03\n    members: {groups: [team-three]}\n"
WITHOUT = CLIENT[: CLIENT.index("  - name: test02")]
RETIRED = PROOF.replace("labelKey: proof", "labelKey: proof\nretiredLabelKeys: [client]")
FILES = [
    parse_tenants(text.encode(), "tenants.yaml")
    for text in (CLIENT, PROOF, SWAPPED, AFFIX, THREE, WITHOUT, RETIRED)
]
PEOPLE = [ONE, TWO, BOTH, ROBOT, CARLA]
NAMES = ["a", "m", "z", "a-test01", "m-test02", "legacy-shop", "ingress"]

two = st.integers(0, 1)
people = st.sampled_from(PEOPLE)
names = st.sampled_from(NAMES)
keys = st.sampled_from(["client", "proof"])
values = st.sampled_from(["test01", "test02", "test03"])
wishes = st.dictionaries(keys, values, max_size=2)
events = st.one_of(
    st.tuples(st.just("create"), names, people, wishes, two, two),
    st.tuples(st.just("create"), names, people, wishes, two, two),
    st.tuples(st.just("relabel"), names, people, keys, values | st.none(), two, two),
    st.tuples(st.just("relabel"), names, st.just(PLATFORM), keys, values, two, two),
    st.tuples(st.just("write"), st.sampled_from(FILES)),
    st.tuples(st.just("webhook_reads"), two),
    st.tuples(st.just("controller_reads")),
    st.tuples(st.just("server_hears"), two),
    st.tuples(st.just("step")),
    st.tuples(st.just("hurry")),
    st.tuples(st.just("reconcile"), names),
    st.tuples(st.just("crash"), names),
    st.tuples(st.just("change"), st.sampled_from(FILES)),
    st.tuples(st.just("change"), st.sampled_from(FILES)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("follow")),
)


def happen(world: World, event: tuple[Any, ...]) -> None:
    word, *rest = event
    if word == "change":
        for part in (("write", *rest), ("webhook_reads", 0), ("webhook_reads", 1)):
            happen(world, part)
        happen(world, ("controller_reads",))
        return world.step()
    if word == "settle":
        world.server_hears(0)
        world.server_hears(1)
        return world.step()
    if word == "hurry":
        world.step(patient=False)
    elif word == "crash":
        world.reconcile(*rest, crash=True)
    else:
        getattr(world, word)(*rest)
    return None


@settings(deadline=None, max_examples=400)
@given(st.lists(events, max_size=40))
def test_a_recorded_tenant_was_given_by_admission_or_by_a_file_in_force(
    sequence: list[tuple[Any, ...]],
) -> None:
    world = World(FILES[0])
    for event in sequence:
        happen(world, event)
        world.check()
    world.follow()
    world.check()


@settings(deadline=None, max_examples=100)
@given(st.lists(events, max_size=20), st.sampled_from(FILES))
def test_a_members_namespace_keeps_its_tenant_as_long_as_files_know_it(
    sequence: list[tuple[Any, ...]], other: TenantConfig
) -> None:
    """Without admins, whatever else happens between."""
    world = World(FILES[0])
    for event in sequence:
        if PLATFORM not in event and WITHOUT_DIGEST not in digests(event):
            happen(world, event)
    if other.digest != WITHOUT_DIGEST:
        world.write(other)
    world.follow()
    for namespace in world.namespaces.values():
        entry = world.record.get(namespace.uid)
        given_by_admission = world.granted[namespace.uid]
        if given_by_admission and not world.named[namespace.uid] - {None}:
            assert entry is not None
            assert entry.tenant in given_by_admission


WITHOUT_DIGEST = FILES[5].digest


def digests(event: tuple[Any, ...]) -> list[str]:
    return [part.digest for part in event if isinstance(part, TenantConfig)]


def test_a_label_of_the_controller_itself_is_no_decision_of_admission() -> None:
    """It relabels by the name, and before it has written that down another file comes."""
    world = World(FILES[1])
    assert world.create("a-test01", ROBOT, {}, 0, 0)
    world.reconcile("a-test01")
    moved, back = FILES[3], FILES[1]
    for config in (moved, back):
        happen(world, ("change", config))
        happen(world, ("settle",))
        happen(world, ("settle",))
        world.reconcile("a-test01", crash=config is moved)
        world.check()
    world.follow()
    assert world.record[world.namespaces["a-test01"].uid].tenant == "test01"


def test_while_the_key_changes_nobodys_tenant_is_decided() -> None:
    """One API server has heard of the new key, the other one not: no label is lost between."""
    world = World(FILES[0])
    happen(world, ("change", FILES[1]))
    world.server_hears(0)
    assert not world.create("a", ONE, {}, 0, 0)
    assert world.create("m", ONE, {}, 1, 1)
    world.step()
    world.server_hears(1)
    assert not world.create("z", ONE, {}, 1, 1)
    world.follow()
    assert world.create("z", ONE, {}, 1, 1)
    world.follow()
    assert {entry.namespace: entry.tenant for entry in world.record.values()} == {
        "m": "test01",
        "z": "test01",
    }


@pytest.mark.parametrize("there", [FILES[1], FILES[6]], ids=["proof", "client retired"])
@pytest.mark.parametrize("restart", [False, True], ids=["one controller", "restarted between"])
def test_of_a_thousand_namespaces_none_moves(there: TenantConfig, restart: bool) -> None:
    """Everyone writes the label of test02 under the key that is to come, there and back."""
    world, dice = World(FILES[0]), random.Random(17)  # noqa: S311
    names = [f"{dice.choice('abcdefghijklmnopqrstuvwxyz')}{n}" for n in range(1000)]
    for number, name in enumerate(names):
        who = ONE if number % 2 else ROBOT
        assert world.create(name, who, {"proof": "test02"}, dice.randrange(2), dice.randrange(2))
        world.reconcile(name)
    before = {name: world.record.get(world.namespaces[name].uid) for name in names}
    for config, key in ((there, "client"), (FILES[0], "proof")):
        world.write(config)
        world.webhook_reads(0)
        world.controller_reads()
        world.step()
        if restart:
            world.restart()
        for name in dice.sample(names, 200):
            world.relabel(name, ROBOT, config.label_key, "test02", 0, 0)
            world.reconcile(name)
        world.follow()
        for name in names:
            world.relabel(name, ROBOT, key, "test02", 1, 1)
    world.follow()
    after = {name: world.record.get(world.namespaces[name].uid) for name in names}
    assert after == before
    tenants = [None if entry is None else entry.tenant for entry in after.values()]
    assert tenants == [("test01" if number % 2 else None) for number in range(1000)]
