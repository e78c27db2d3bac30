"""`ringfence prove` on files, as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.enforcer.proof import mutations

Run = Callable[..., "CompletedProcess[str]"]
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "two-clients"
FILES = ("-c", str(EXAMPLE / "tenants.yaml"), "-f", str(EXAMPLE / "cluster.yaml"))


def test_two_clients_are_apart(ringfence: Run) -> None:
    done = ringfence("prove", *FILES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("apart: ")
    assert done.stdout == ringfence("prove", *FILES).stdout


@pytest.fixture
def overridable(tmp_path: Path) -> tuple[str, ...]:
    """Policies alone keep the tenants apart, and one of them opens a namespace to everybody."""
    tenants, objects = tmp_path / "tenants.yaml", tmp_path / "objects.yaml"
    tenants.write_text(mutations.TENANTS + "mode: overridable\n")
    objects.write_text(mutations.objects())
    return "-c", str(tenants), "-f", str(objects)


def test_policies_of_a_tenants_own_open_what_mode_overridable_lets_them(
    ringfence: Run, overridable: tuple[str, ...], tmp_path: Path
) -> None:
    opening = tmp_path / "opening.yaml"
    opening.write_text(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        "metadata: {name: open, namespace: green}\nspec: {podSelector: {}, ingress: [{}]}\n"
    )
    assert ringfence("prove", *overridable, "-f", str(opening)).returncode == 0


def test_what_nothing_isolates_is_a_counterexample(
    ringfence: Run, overridable: tuple[str, ...], tmp_path: Path
) -> None:
    """A policy of the whole cluster is no tenant's own."""
    opening = tmp_path / "opening.yaml"
    opening.write_text(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\n"
        "metadata: {name: open}\n"
        "spec:\n  endpointSelector: {matchLabels: {app: web}}\n"
        "  ingress: [{fromEntities: [cluster]}]\n"
    )
    done = ringfence("prove", *overridable, "-f", str(opening), "-o", "json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert (found["apart"], found["agrees"]) == (False, True)
    first = found["counterexamples"][0]
    assert first["destination"].endswith("/web")
    assert first["verdicts"] == {"policies": "FORWARDED", "entries": "FORWARDED"}
    assert "in mode overridable no wall stands behind the policies" in first["because"]


def test_without_tenants_there_is_nothing_to_prove(ringfence: Run, tmp_path: Path) -> None:
    (tmp_path / "objects.yaml").write_text(mutations.objects())
    done = ringfence("prove", "-f", str(tmp_path / "objects.yaml"))
    assert done.returncode == 2
    assert "give their file with -c FILE" in done.stderr
