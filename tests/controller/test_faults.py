"""What goes wrong in a cluster, and that nothing is lost by it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generators.documents.json import Document, mapping, strings, text
from generators.kube.client import Client
from generators.kube.errors import KubeError
from generators.kube.resources import NAMESPACES, NETWORK_POLICIES, Resource
from tests.controller.cluster import (
    COMMAND,
    KEY,
    TENANTS,
    Cluster,
    ControllerProcess,
)
from tests.testbed.waiting import eventually, holds_for, patience

pytestmark = pytest.mark.cluster
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


def make_many(cluster: Cluster, names: list[str], by: Client | None = None) -> None:
    """Several at a time; each is tried until it is there."""

    def make(name: str) -> None:
        def made() -> bool:
            try:
                cluster.make(name, by)
            except KubeError as error:
                return error.status.reason == "AlreadyExists"
            return True

        eventually(made, f"{name} is made", poll=0.1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, names))


def unfinished(cluster: Cluster, tenant: str, suffix: str) -> list[str]:
    """Namespaces of a suffix that lack label or policy."""
    policies = {
        text(mapping(p, "metadata"), "namespace") for p in cluster.admin.list_all(NETWORK_POLICIES)
    }
    found = []
    for document in cluster.admin.list_all(NAMESPACES):
        meta = mapping(document, "metadata")
        name = text(meta, "name")
        isolated = strings(meta, "labels").get(KEY) == tenant and name in policies
        if name.endswith(suffix) and not isolated:
            found.append(name)
    return found


def finished(cluster: Cluster, count: int) -> bool:
    """That many namespaces of test02 are labelled, isolated and recorded."""
    recorded = sum(entry.tenant == "test02" for entry in cluster.record().values())
    return recorded == count and not unfinished(cluster, "test02", "-test02")


def test_a_broken_tenant_file_is_refused_and_the_last_good_one_stays(fresh: Cluster) -> None:
    controller = fresh.controller(webhook=False)
    eventually(fresh.synchronized, "synchronized")
    fresh.tenants.write_text(TENANTS.replace("labelKey: client", "labelKey: a b"))
    eventually(lambda: "[!]config refused" in controller.get("/readyz")[1], "told")
    assert controller.ready()
    assert controller.metrics()["ringfence_config_last_reload_successful"] == 0
    fresh.make("a-test02")
    eventually(lambda: fresh.isolated("a-test02", "test02"), "the last good file is in force")
    eventually(lambda: "labelKey" in fresh.status()["problem"], "the status says it")
    fresh.tenants.write_text(TENANTS + "  - name: test03\n    namespaces: {names: [third]}\n")
    fresh.make("third")
    eventually(lambda: fresh.isolated("third", "test03"), "the next good file is")
    eventually(lambda: fresh.status()["configGeneration"] == "2", "the second file")


def test_a_bad_tenant_file_at_the_start_ends_the_command(fresh: Cluster) -> None:
    fresh.tenants.write_text("apiVersion: nothing\n")
    controller = fresh.controller(webhook=False)
    eventually(lambda: controller.ended() is not None, "ends")
    assert controller.ended() == 1
    assert "tenants.yaml:1:" in controller.log.read_text()


def test_what_is_killed_while_the_tenant_file_is_broken_comes_back_with_the_last_good_one(
    fresh: Cluster,
) -> None:
    kept = ("--state-dir", str(fresh.folder / "state"))
    first = fresh.controller(*kept)
    old = fresh.webhook(*kept)
    eventually(first.in_force, "in force")
    fresh.tenants.write_text("labelKey: [")
    first.kill()
    old.kill()
    second = fresh.controller(*kept)
    fresh.webhook(*kept)
    eventually(second.in_force, "in force again")
    eventually(lambda: "[!]config refused" in second.get("/readyz")[1], "told")
    fresh.make("a-test02", fresh.as_user("bob", "team-test02"))
    eventually(lambda: fresh.isolated("a-test02", "test02"), "as the last good file says")
    fresh.tenants.write_text(TENANTS)
    eventually(lambda: "[+]config ok" in second.get("/readyz")[1], "the file is good again")


def test_a_missing_rule_is_named_at_the_start(fresh: Cluster) -> None:
    fresh.plane.kubectl(
        *("patch", "clusterrole", "ringfence-controller", "--type=json"),
        *("-p", '[{"op": "remove", "path": "/rules/1/verbs/4"}]'),
    )
    controller = fresh.controller(webhook=False)
    eventually(lambda: controller.ended() is not None, "ends")
    assert controller.ended() == 3
    words = controller.log.read_text()
    assert (
        "missing RBAC permissions: patch networkpolicies.networking.k8s.io in the cluster" in words
    )
    assert "ringfence controller rules" in words
    assert "Traceback" not in words


def test_without_an_api_server_it_waits_and_says_so(fresh: Cluster) -> None:
    fresh.plane.stop_apiserver()
    controller = fresh.controller(webhook=False)
    eventually(lambda: "[-]starting: " in controller.get("/readyz")[1], "not ready")
    assert controller.get("/livez")[0] == 200
    fresh.plane.start_apiserver()
    eventually(controller.ready, "ready", 30)


def test_an_api_server_that_comes_back_finds_controller_and_webhook_at_work(
    fresh: Cluster,
) -> None:
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    fresh.make("before-test02")
    eventually(lambda: fresh.isolated("before-test02", "test02"), "isolated")
    fresh.plane.stop_apiserver()
    eventually(lambda: "[!]namespaces: nothing received" in controller.get("/readyz")[1], "told")
    fresh.plane.start_apiserver()
    eventually(lambda: made(fresh, "after-test02"), "admission works", 30)
    eventually(lambda: fresh.isolated("after-test02", "test02"), "isolated", 40)
    fresh.admin.delete(NETWORK_POLICIES, "allow-ingress-namespace", "before-test02")
    eventually(lambda: fresh.isolated("before-test02", "test02"), "repaired", 40)
    metrics = controller.metrics()
    relists = [v for n, v in metrics.items() if n.startswith("ringfence_controller_relists_total")]
    assert max(relists) <= 2
    assert controller.ended() is None


def made(cluster: Cluster, name: str) -> bool:
    with contextlib.suppress(KubeError):
        cluster.make(name, cluster.as_user("robot", "robots"))
        return True
    return False


@pytest.mark.parametrize(
    "many",
    [200, pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_namespaces_made_while_the_controller_was_down_are_caught_up(
    fresh: Cluster, many: int
) -> None:
    first = fresh.controller(webhook=False)
    eventually(fresh.synchronized, "synchronized")
    assert first.terminate() == 0
    make_many(fresh, [f"n{number}-test02" for number in range(many)])
    second = fresh.controller(webhook=False)
    eventually(second.ready, "ready", 60)
    # Label and policy of each. Counted by the controller: listing everything would slow it down.
    eventually(lambda: writes(second) >= 2 * many, "all written", 400)
    eventually(lambda: finished(fresh, many), "all isolated", 60)
    # Once each, but for those that the watch brought back late.
    assert many <= writes(second, "Namespace") <= 1.1 * many
    assert many <= writes(second, "NetworkPolicy") <= 1.1 * many
    # The record is written for many at once; for how many, the machine decides.
    assert writes(second, "ConfigMap") <= many / 2


def writes(controller: ControllerProcess, kind: str = "") -> float:
    """How many it made so far, of one kind or of all."""
    name, label = "ringfence_controller_writes_total{", f'kind="{kind}"' if kind else ""
    found = controller.metrics().items()
    return sum(v for n, v in found if n.startswith(name) and label in n)


@pytest.mark.timeout(180)
def test_a_controller_that_is_killed_again_and_again_finishes(fresh: Cluster) -> None:
    make_many(fresh, [f"n{number}-test02" for number in range(100)])
    for attempt in range(4):
        controller = fresh.controller("--lease-seconds", "1", webhook=False)
        eventually(controller.leads, "leads", 30)
        time.sleep(random.Random(attempt).uniform(0.0, 0.3))  # noqa: S311 - the moment to die
        controller.kill()
    fresh.controller("--lease-seconds", "1", webhook=False)
    eventually(lambda: finished(fresh, 100), "all isolated", 60)


@pytest.mark.timeout(120)
def test_a_webhook_killed_in_a_burst_lets_nothing_through_unlabelled(fresh: Cluster) -> None:
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    anna = fresh.as_user("anna", "team-test01")
    names = [f"annas-{number}" for number in range(60)]
    burst = threading.Thread(target=make_many, args=(fresh, names, anna))
    burst.start()
    fresh.stop_webhooks()
    refused = fresh.plane.try_kubectl(
        *("create", "namespace", "closed"), user="anna", groups=["team-test01"]
    )
    assert "failed calling webhook" in refused.stderr
    fresh.webhook()
    burst.join(patience(60))
    eventually(
        lambda: sum(e.tenant == "test01" for e in fresh.record().values()) == len(names),
        "all recorded",
        40,
    )
    for name in names[::10]:
        assert fresh.isolated(name, "test01")


def test_what_the_mutating_webhook_missed_the_controller_labels(fresh: Cluster) -> None:
    """Mutation fails open: the label comes from the controller, by the name."""
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    assert controller.terminate() == 0
    fresh.plane.kubectl("delete", "mutatingwebhookconfiguration", "ringfence")
    robot = fresh.as_user("robot", "robots")
    eventually(lambda: unlabelled(fresh, robot), "made without a label")
    second = fresh.controller()
    eventually(second.in_force, "in force")
    eventually(lambda: unfinished(fresh, "test02", "-test02") == [], "none without label")


def unlabelled(cluster: Cluster, robot: Client) -> bool:
    name = f"n{time.monotonic_ns()}-test02"
    cluster.make(name, robot)
    return cluster.tenant(name) is None


def test_namespaces_deleted_while_they_are_labelled_leave_nothing_behind(fresh: Cluster) -> None:
    controller = fresh.controller(webhook=False)
    eventually(fresh.synchronized, "synchronized")
    names = [f"n{number}-test02" for number in range(30)]
    for name in names:
        fresh.make(name)
        fresh.admin.delete(NAMESPACES, name)
    eventually(lambda: not fresh.record(), "no record of them", 60)
    eventually(lambda: controller.metrics()["ringfence_controller_queue_depth"] == 0, "idle")
    assert controller.ready()


def test_an_object_that_the_api_server_refuses_holds_up_nobody_else(fresh: Cluster) -> None:
    fresh.make("full-test02")
    quota: Document = {
        "metadata": {"name": "none", "namespace": "full-test02"},
        "spec": {"hard": {"count/networkpolicies.networking.k8s.io": "0"}},
    }
    fresh.admin.create(QUOTAS, quota, manager="test")
    eventually(lambda: "hard" in mapping(quota_of(fresh), "status"), "quota in force")
    controller = fresh.controller(webhook=False)
    fresh.make("other-test02")
    eventually(lambda: fresh.isolated("other-test02", "test02"), "the other is isolated")
    failures = 'ringfence_controller_failures_total{error="Forbidden"}'
    eventually(lambda: controller.metrics().get(failures, 0) > 2, "tried again")
    holds_for(0.5, lambda: not fresh.synchronized(), "not called synchronized")
    assert controller.events("not_synchronized")[0]["namespace"] == "full-test02"
    fresh.admin.delete(QUOTAS, "none", "full-test02")
    eventually(lambda: fresh.isolated("full-test02", "test02"), "caught up", 70)


def quota_of(cluster: Cluster) -> Document:
    return cluster.admin.get(QUOTAS, "none", "full-test02")


def test_rights_that_are_taken_away_make_it_unready(fresh: Cluster) -> None:
    controller = fresh.controller(webhook=False)
    eventually(controller.ready, "ready")
    fresh.plane.kubectl("delete", "clusterrolebinding", "ringfence-controller")
    fresh.plane.stop_apiserver()
    fresh.plane.start_apiserver()
    eventually(lambda: "RBAC does not allow" in controller.get("/readyz")[1], "told", 40)
    assert not controller.ready()


def test_wrong_options_are_refused_with_the_right_ones(fresh: Cluster) -> None:
    rows = {
        ("--webhook-url", "http://127.0.0.1:1"): "is not https://HOST:PORT",
        ("--webhook-service", "nobody"): "is not NAMESPACE/NAME",
        ("--certificate-dir", str(fresh.folder)): "needs --webhook-url",
        ("--webhook-url", "https://a:1", "--webhook-service", "a/b"): "not both",
    }
    for options, words in rows.items():
        command: list[str | Path] = [COMMAND, "controller", "run", "-c", fresh.tenants]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 2, options
        assert words in done.stderr
