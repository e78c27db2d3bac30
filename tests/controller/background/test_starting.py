"""What a new or returning controller finds: missing rights, a foreign memory, changes it missed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from generators.documents.json import mapping, strings
from generators.kube.errors import KubeError
from generators.kube.resources import CONFIG_MAPS, NAMESPACES, NETWORK_POLICIES
from generators.labels import MANAGED_BY
from tests.controller.background.ground import Ground, labels_of, quiet, started, version_of
from tests.controller.background.rules import EXISTING, SYNC, deny, rule, spec_of_policy
from tests.testbed.waiting import eventually, holds_for
from webhook.kept import MEMORY_NAME

pytestmark = pytest.mark.cluster


def test_missing_rights_are_named_and_found_again(bare: Ground) -> None:
    bare.permit("--policies", "cluster")
    started(bare)
    bare.policy_object(
        "secrets",
        rule(
            "r",
            "x",
            "apiVersion: v1, kind: Secret, name: s,"
            ' namespace: "{{request.object.metadata.name}}", synchronize: true, data: {}',
        ),
    )
    eventually(lambda: bare.condition("secrets")[1] == "Forbidden", "told")
    assert "create secrets" in bare.condition("secrets")[2]
    bare.permit("--policies", "cluster", "--allow-kind", "Secret")
    eventually(lambda: bare.is_ready("secrets"), "Ready", 30)


def test_a_config_map_of_somebody_else_under_the_name_of_the_memory_is_never_replaced(
    bare: Ground,
) -> None:
    bare.config("ringfence-system", MEMORY_NAME, {MANAGED_BY: "Helm"}, **{"team.yaml": "a policy"})
    before = version_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME))
    bare.policy_object("kept", rule("r", "on-it", deny("made", SYNC)))
    controller = started(bare)
    eventually(lambda: bare.is_ready("kept"), "Ready")
    bare.make("new", labels={"run": "on-it"})
    eventually(lambda: bare.networks("new") == ["made"], "carried out all the same")
    eventually(lambda: "is not the controller's" in controller.get("/readyz")[1], "told")
    eventually(lambda: quiet(controller), "done")
    assert version_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME)) == before
    bare.admin.delete(CONFIG_MAPS, MEMORY_NAME, "ringfence-system")
    eventually(
        lambda: (
            labels_of(bare.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME)).get(MANAGED_BY)
            == "ringfence"
        ),
        "remembered from now on",
    )
    # The object is there a moment before the controller has heard so.
    eventually(lambda: "not the controller's" not in controller.get("/readyz")[1], "no complaint")


def test_what_changed_while_nobody_looked_is_repaired(bare: Ground) -> None:
    rules = rule("all", "on-it", deny("all", SYNC, EXISTING)) + rule(
        "new", "on-it", deny("new", SYNC)
    )
    once = rule("once", "on-it", deny("once"))
    bare.policy_object("kept", rules + once)
    bare.policy_object("goes", rule("r", "on-it", deny("goes", SYNC)))
    bare.make("older", labels={"run": "on-it"})
    first = started(bare)
    for name in ("deleted", "edited", "left", "vanishes"):
        bare.make(name, labels={"run": "on-it"})
    everything = ["all", "goes", "new", "once"]
    names = ("older", "deleted", "edited", "left", "vanishes")
    eventually(lambda: all(bare.networks(n) == everything for n in names), "all")
    eventually(lambda: quiet(first), "done")
    eventually(lambda: remembers(bare, "once"), "remembered")
    assert first.terminate() == 0
    for name in everything:
        bare.admin.delete(NETWORK_POLICIES, name, "deleted")
    bare.merge(NETWORK_POLICIES, "edited", "new", {"spec": {"ingress": [{}]}})
    bare.label("left", "off", key="run")
    bare.drop("goes")
    bare.make("made", labels={"run": "on-it"})
    second = started(bare)
    eventually(lambda: bare.networks("deleted") == ["all", "new"], "made again, but for `once`")
    eventually(lambda: "ingress" not in spec_of_policy(bare, "edited", "new"), "undone")
    eventually(lambda: bare.networks("left") == ["once"], "collected")
    eventually(lambda: bare.networks("made") == ["all", "new", "once"], "caught up")
    eventually(lambda: bare.networks("vanishes") == ["all", "new", "once"], "policy deleted")
    eventually(lambda: quiet(second), "done")
    eventually(lambda: remembers(bare, "once"), "remembered")
    assert second.terminate() == 0
    versions = all_versions(bare)
    third = started(bare)
    eventually(lambda: quiet(third), "done")
    holds_for(1.5, lambda: written(bare, versions) == [], "nothing to do writes nothing")


def remembers(on: Ground, rule_name: str) -> bool:
    """Everything that there is has had what the rule makes once."""
    live = on.find(CONFIG_MAPS, "ringfence-system", MEMORY_NAME) or {}
    rules = json.loads(strings(live, "data").get("rules", "{}"))
    newest = max(int(version_of(n)) for n in on.admin.list_all(NAMESPACES))
    return any(row[1] == rule_name and row[3] >= newest for row in rules.values())


def written(on: Ground, before: Mapping[str, str]) -> list[str]:
    """What has changed since."""
    now = all_versions(on)
    return sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))


def all_versions(on: Ground) -> dict[str, str]:
    found = {}
    for resource in (NAMESPACES, NETWORK_POLICIES, CONFIG_MAPS):
        for each in on.admin.list_all(resource):
            meta = mapping(each, "metadata")
            if meta["name"] == "kube-root-ca.crt":
                continue  # Kubernetes' own, in every new namespace
            found[f"{resource}/{meta.get('namespace')}/{meta['name']}"] = version_of(each)
    return found


def test_a_standby_takes_over_and_an_api_server_that_comes_back_is_caught_up(bare: Ground) -> None:
    bare.policy_object("p", rule("r", "on-it", deny("a", SYNC)))
    options = ("--policies", "cluster", "--allow-kind", "Secret", "--lease-seconds", "3")
    first = started(bare, *options)
    second = bare.controller(*options, webhook=False)
    eventually(lambda: "[+]standby" in second.get("/readyz")[1], "stands by")
    bare.make("one", labels={"run": "on-it"})
    eventually(lambda: bare.networks("one") == ["a"], "by the first")
    first.kill()
    bare.make("two", labels={"run": "on-it"})
    eventually(lambda: bare.networks("two") == ["a"], "by the second", 30)
    bare.plane.stop_apiserver()
    bare.plane.start_apiserver()
    eventually(lambda: answers(bare), "it is back", 30)
    bare.make("three", labels={"run": "on-it"})
    eventually(lambda: bare.networks("three") == ["a"], "caught up", 40)


def answers(on: Ground) -> bool:
    try:
        on.networks("default")
    except KubeError:
        return False
    return True
