"""An answer that rests on what the input does not say says so; --strict refuses to give it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from generators.cluster import Cluster, assumed
from tests.generators.builders import TENANTS, cluster, namespace, pod, policy

Run = Callable[..., CompletedProcess[str]]

BY_TEAM = "podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: obs}}}]}]"
BY_NAME = BY_TEAM.replace("team: obs", "kubernetes.io/metadata.name: y")
BY_TENANT = BY_TEAM.replace("team: obs", "client: blue")
BY_BLOCK = "podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]"
BY_ANY_BLOCK = BY_BLOCK.replace("10.0.0.0/8", "0.0.0.0/0")
KNOWN = pod("x/a", "10.0.0.1")
UNKNOWN = "Namespace y is not in the input and is taken to have no labels"


def of_all(found: Cluster, *ends: str) -> str:
    return "\n".join(assumed(found, ends or ("x/a", "y/b")))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_TEAM), namespace("x")), UNKNOWN),
        ((KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_NAME), namespace("x")), ""),
        ((KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_TEAM), *map(namespace, "xy")), ""),
        ((KNOWN, pod("y/b"), policy("x/p", BY_BLOCK)), "pods without status got addresses here"),
        ((KNOWN, pod("y/b"), policy("x/p", BY_ANY_BLOCK)), ""),
        ((KNOWN, pod("y/b")), ""),
    ],
    ids=["labels", "the name alone", "declared", "made-up address", "any address", "no policy"],
)
def test_only_what_could_change_a_verdict_is_said(texts: tuple[str, ...], words: str) -> None:
    said = of_all(cluster(*texts))
    assert words in said
    assert bool(said) == bool(words)


def test_what_bears_on_other_pods_is_not_said() -> None:
    of = cluster(KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_TEAM), *map(namespace, "xz"))
    assert of_all(of, "x/a", "z/c") == ""


def test_the_tenant_files_own_label_is_known_by_name() -> None:
    texts = (KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_TENANT), namespace("x"))
    assert of_all(cluster(*texts, tenants=TENANTS)) == ""
    assert UNKNOWN in of_all(cluster(*texts))


def test_an_address_outside_needs_the_pod_ranges_where_there_is_a_wall() -> None:
    node = "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDR: 10.9.0.0/16}"
    outside = ("ip/192.0.2.1", "x/a")
    assert "no Node says podCIDRs" in of_all(cluster(KNOWN, tenants=TENANTS), *outside)
    assert of_all(cluster(KNOWN, node, tenants=TENANTS), *outside) == ""
    assert of_all(cluster(KNOWN), *outside) == ""


@pytest.mark.parametrize("command", [("matrix", "--port", "80"), ("trace", "y/b", "x/a", "80/TCP")])
def test_commands_say_it_and_strict_refuses(
    ringfence: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    file = tmp_path / "in.yaml"
    texts = (KNOWN, pod("y/b", "10.0.0.2"), policy("x/p", BY_TEAM), namespace("x"))
    file.write_text("\n---\n".join(texts))
    done = ringfence(*command, "-f", file, "-o", "json")
    assert done.returncode == 0
    assert f"warning: assumed: {UNKNOWN}" in done.stderr
    (said,) = json.loads(done.stdout)["assumptions"]
    assert UNKNOWN in said
    refused = ringfence(*command, "-f", file, "-o", "json", "--strict")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"--strict refuses to assume: {UNKNOWN}" in refused.stderr
