"""The tenant file changes under two webhooks, one of which lags behind: nobody moves by it.

A label under a key that is not the tenant label is anybody's to write. What it says must never
count once another file makes that key the tenant label.
"""

from __future__ import annotations

import contextlib
import random
from functools import partial
from pathlib import Path

import pytest

from generators.isolation.record import Basis, RecordEntry
from generators.kube.errors import KubeError, ServerFailed
from generators.tenants.assignment import Requester, assign, assign_by_name
from generators.tenants.load import parse_tenants
from tests.controller.cluster import TENANTS, Cluster, ControllerProcess
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
PROOF = TENANTS.replace("labelKey: client", "labelKey: proof")


def started(cluster: Cluster) -> tuple[ControllerProcess, list[Path]]:
    controller = cluster.controller()
    files = cluster.replicas()
    eventually(controller.in_force, "in force")
    return controller, files


def write(text: str, *files: Path) -> None:
    for file in files:
        file.write_text(text)


def change(cluster: Cluster, text: str, replicas: list[Path], *, key: str, last: bool) -> None:
    """Controller and first webhook read it at once; `last`: the other one only afterwards."""
    write(text, cluster.tenants, replicas[0])
    if last:
        eventually(lambda: "waits" in waiting(cluster), "it waits for the other webhook")
        assert not cluster.synchronized()
    write(text, replicas[1])
    cluster.key = key
    eventually(cluster.synchronized, f"{key} is in force")


def waiting(cluster: Cluster) -> str:
    problem = cluster.status().get("problem", "")
    return f"waits: {problem}" if "have not read the tenant file" in problem else ""


def forge(cluster: Cluster, names: list[str], key: str) -> None:
    """Anybody may: the key means nothing at the moment."""
    robot = cluster.as_user("robot", "robots")
    for name in names:
        cluster.label(name, "test02", robot, key=key)


def tenants_are(cluster: Cluster, expected: dict[str, str | None]) -> None:
    entries = {e.namespace: (e.tenant, e.basis) for e in cluster.record().values()}
    found = {name: entries[name][0] if name in entries else None for name in expected}
    assert found == expected
    for name, tenant in expected.items():
        assert cluster.labels(name).get(cluster.key) == tenant


def test_no_label_counts_that_was_written_before_its_key_did(fresh: Cluster) -> None:
    """There and back again, a webhook that lags behind, a controller that starts anew between."""
    controller, replicas = started(fresh)
    anna = fresh.as_user("anna", "team-test01")
    names = [f"{letter}{random.randrange(10**6)}" for letter in "abcmxyz"]  # noqa: S311
    for name in names:
        fresh.make(name)
    fresh.make("annas", anna)
    fresh.make("her-test01", anna)
    eventually(lambda: fresh.recorded("annas") == "test01", "recorded")
    expected = dict.fromkeys(names) | {"annas": "test01", "her-test01": "test01"}
    forge(fresh, [*names, "annas", "her-test01"], "proof")

    change(fresh, PROOF, replicas, key="proof", last=True)
    eventually(partial(quiet, fresh, expected), "followed")
    tenants_are(fresh, expected)
    assert {e.basis for e in fresh.record().values() if e.namespace == "annas"} == {Basis.ADMISSION}
    assert all("client" not in fresh.labels(name) for name in expected)

    # The former key is removed wherever it is written, and the way back is no way in either.
    with contextlib.suppress(KubeError):
        forge(fresh, names, "client")
    fresh.make("late", fresh.as_user("robot", "robots"), labels={"client": "test02"})
    expected["late"] = None
    assert controller.terminate() == 0
    write(TENANTS, fresh.tenants, *replicas)
    fresh.key = "client"
    second = fresh.controller()
    eventually(second.in_force, "in force")
    eventually(fresh.synchronized, "client is in force")
    eventually(partial(quiet, fresh, expected), "followed")
    tenants_are(fresh, expected)
    assert all("proof" not in fresh.labels(name) for name in expected)
    fresh.make("annas-next", anna)
    eventually(lambda: fresh.isolated("annas-next", "test01"), "members go on")


def quiet(cluster: Cluster, expected: dict[str, str | None]) -> bool:
    """Label and record of every namespace say the same."""
    return all(
        cluster.labels(name).get(cluster.key) == tenant == cluster.recorded(name)
        for name, tenant in expected.items()
    )


def test_what_was_decided_last_under_the_old_file_is_not_lost(fresh: Cluster) -> None:
    """Made while the controller was away, by the old key; found by a controller with the new."""
    controller, replicas = started(fresh)
    assert controller.terminate() == 0
    fresh.make("annas", fresh.as_user("anna", "team-test01"))
    fresh.make("given", fresh.as_user("petra", "platform-team"), labels={"client": "test02"})
    write(PROOF, fresh.tenants, *replicas)
    fresh.key = "proof"
    fresh.controller()
    eventually(fresh.synchronized, "in force")
    eventually(lambda: fresh.isolated("annas", "test01"), "a member's")
    eventually(lambda: fresh.isolated("given", "test02"), "an admin's word")


def test_a_member_is_told_to_come_back_and_then_served(fresh: Cluster) -> None:
    """No request is lost or wrong while the key changes: refused for a moment, with words."""
    _, replicas = started(fresh)
    anna, refusals = fresh.as_user("anna", "team-test01"), []
    write(PROOF, fresh.tenants, *replicas)
    made = []
    for number in range(10_000):
        try:
            fresh.make(f"annas-{number}", anna)
            made.append(f"annas-{number}")
        except ServerFailed as refused:
            refusals.append(refused.status.message)
        if len(made) > 1 and fresh.labels(made[-1]).get("proof") == "test01":
            break
    fresh.key = "proof"
    assert all("try again" in refusal for refusal in refusals)
    for name in made:
        eventually(partial(fresh.isolated, name, "test01"), f"{name} is test01's")


def test_a_new_member_and_a_new_tenant_are_served_without_a_refusal(fresh: Cluster) -> None:
    _, replicas = started(fresh)
    newer = TENANTS + "  - name: test03\n    members: {users: [carla]}\n"
    write(newer, fresh.tenants, *replicas)
    anna = fresh.as_user("anna", "team-test01")
    number = 0
    while not fresh.synchronized():
        fresh.make(f"annas-{number}", anna)
        number += 1
    for each in range(number):
        eventually(partial(fresh.isolated, f"annas-{each}", "test01"), "test01's")
    fresh.make("carlas", fresh.as_user("carla", "team-test01x", "robots"))
    eventually(lambda: fresh.isolated("carlas", "test03"), "the new tenant's")


THREE = TENANTS + "  - name: test03\n    members: {users: [carla]}\n"
MEMBERS = {
    "anna": ("team-test01",),
    "bob": ("team-test02",),
    "carla": ("robots",),
    "robot": ("robots",),
}
ALL = [TENANTS, PROOF, THREE, THREE.replace("labelKey: client", "labelKey: proof")]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_a_recorded_tenant_was_given_by_a_file_in_force(fresh: Cluster, seed: int) -> None:
    """Random sequences; `granted`: what a file that could be in force gave the requester."""
    dice = random.Random(seed)  # noqa: S311
    controller, replicas = started(fresh)
    running, possible = controller, [TENANTS]
    granted: dict[str, set[str | None]] = {}
    for number in range(40):
        happening = dice.choice(["make", "make", "make", "label", "label", "file", "restart"])
        if happening == "make":
            user = dice.choice(list(MEMBERS))
            name = f"{dice.choice('abxyz')}{number}{dice.choice(['', '', '-test01', '-test02'])}"
            wish = {"client": "test02"} if dice.random() < 0.3 else {"proof": "test02"}
            with contextlib.suppress(KubeError):
                fresh.make(name, fresh.as_user(user, *MEMBERS[user]), labels=wish)
                granted[name] = {given(text, name, wish, user) for text in possible}
        elif happening == "label" and granted:
            robot = fresh.as_user("robot", "robots")
            with contextlib.suppress(KubeError):
                key = dice.choice(["client", "proof"])
                fresh.label(dice.choice(list(granted)), "test02", robot, key=key)
        elif happening == "file":
            text = dice.choice(ALL)
            possible.append(text)
            write(text, fresh.tenants, *replicas[: dice.choice([1, 2])])
        elif happening == "restart":
            running.kill()
            running = fresh.controller()
    final = dice.choice(ALL)
    write(final, fresh.tenants, *replicas)
    fresh.key = "proof" if "labelKey: proof" in final else "client"
    eventually(fresh.synchronized, "the last file is in force", 120)
    config = parse_tenants(final.encode(), "tenants.yaml")
    for name, tenants in granted.items():
        named = assign_by_name(config, name).tenant
        if named is not None:
            eventually(partial(entry_of, fresh, name), f"{name}, which is {named}'s, is recorded")
        entry = entry_of(fresh, name)
        if entry is not None and entry.basis is Basis.ADMISSION:
            assert entry.tenant in tenants, (name, entry, tenants)
        else:
            assert (entry.tenant if entry else None) == named, (name, entry, tenants)
            lost = named is None and None not in tenants and tenants <= config.tenants.keys()
            assert not lost, f"{name} was given {tenants} and is nobody's"


def entry_of(cluster: Cluster, namespace: str) -> RecordEntry | None:
    """What the record says of a namespace."""
    return next((e for e in cluster.record().values() if e.namespace == namespace), None)


def given(text: str, name: str, wish: dict[str, str], user: str) -> str | None:
    """Whose a namespace is that the user creates under a tenant file."""
    config = parse_tenants(text.encode(), "tenants.yaml")
    return assign(config, name, wish, Requester(user, frozenset(MEMBERS[user]))).tenant
