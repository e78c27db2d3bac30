"""Repositories as they are: plain manifests, `helm template`, kustomize; with -c and -f only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LAYOUTS = Path(__file__).with_name("layouts")
SHOP = tuple(f"sock-shop/deployment/{name}" for name in ("carts", "carts-db", "front-end", "user"))
WAY_IN = "ingress-nginx/daemonset/controller"
PODINFO = (
    "podinfo/deployment/web-podinfo",
    "podinfo/deployment/web-podinfo-redis",
    "podinfo/job/web-podinfo-migrate",
)
BOOKS = tuple(
    f"guestbook-production/{name}"
    for name in (
        "cronjob/production-backup",
        "deployment/production-guestbook-ui",
        "statefulset/production-guestbook-db",
    )
)
FILES = {
    "plain": "plain",
    "helm": "helm/rendered.yaml",
    "kustomize": "kustomize/built.yaml",
}


def asked(ringfence: Run, *paths: Path) -> dict[tuple[str, str, int], str]:
    """(source, destination, port) -> verdict, which both families share."""
    files = [word for path in paths for word in ("-f", path)]
    done = ringfence("matrix", "-c", LAYOUTS / "tenants.yaml", *files, "-o", "json")
    assert done.returncode == 0, done.stderr
    found: dict[tuple[str, str, int], str] = {}
    for cell in json.loads(done.stdout)["cells"]:
        key = (cell["source"], cell["destination"], cell["port"])
        assert found.setdefault(key, cell["verdict"]) == cell["verdict"]
    return found


@pytest.mark.parametrize(
    ("layout", "ends", "ports", "silent"),
    [
        ("plain", (WAY_IN, *SHOP), (80, 8079, 27017), SHOP[1]),
        ("helm", PODINFO, (6379, 9898, 9999), PODINFO[1]),
        ("kustomize", BOOKS, (3000, 5432), BOOKS[2]),
    ],
)
def test_a_layout_gives_the_right_matrix(
    ringfence: Run, layout: str, ends: tuple[str, ...], ports: tuple[int, ...], silent: str
) -> None:
    """`silent` may call nobody; a client reaches itself, and the way in reaches everybody."""
    expected = {
        (source, destination, port): ("DROPPED" if source == silent != destination else "FORWARDED")
        for source, destination, port in product(ends, ends, ports)
    }
    assert asked(ringfence, LAYOUTS / FILES[layout]) == expected


def test_clients_of_three_repositories_are_apart(ringfence: Run) -> None:
    found = asked(ringfence, *(LAYOUTS / path for path in FILES.values()))
    crossing = {
        verdict
        for (source, destination, _), verdict in found.items()
        for a, b in product((SHOP, PODINFO, BOOKS), repeat=2)
        if a is not b and source in a and destination in b
    }
    assert crossing == {"DROPPED"}
    assert {found[WAY_IN, name, 80] for name in (*SHOP, *PODINFO, *BOOKS)} == {"FORWARDED"}


def test_what_is_expected_of_them_is_tested_beside_them(ringfence: Run) -> None:
    given = ("-c", LAYOUTS / "tenants.yaml", "-f", LAYOUTS)
    done = ringfence("test", LAYOUTS, *given)
    assert (done.returncode, done.stdout) == (0, "6 passed, 0 failed\n"), done.stderr


def test_a_kustomization_that_was_not_rendered_is_told(ringfence: Run, tmp_path: Path) -> None:
    text = (LAYOUTS / "kustomize" / "built.yaml").read_text()
    (tmp_path / "base.yaml").write_text(text)
    (tmp_path / "kustomization.yaml").write_text("resources: [base.yaml]\nnamePrefix: x-\n")
    asking = ("matrix", "-f", tmp_path, "--from", "guestbook-production")
    done = ringfence(*asking)
    assert done.returncode == 0
    assert f"kubectl kustomize {tmp_path} | ringfence ... -f -" in done.stderr
    (tmp_path / "patch.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\n"
        "metadata: {name: production-guestbook-ui, namespace: guestbook-production}\n"
        "spec: {replicas: 5}\n"
    )
    refused = ringfence(*asking)
    assert refused.returncode == 2
    assert f"kubectl kustomize {tmp_path} | ringfence ... -f -" in refused.stderr
