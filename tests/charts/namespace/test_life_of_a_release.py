"""Install, upgrade, rollback, test and uninstall by real helms; hooks run with real rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.charts.helm import Done, Helm, said
from tests.charts.namespace.conftest import CHART, Team
from tests.testbed.waiting import eventually, patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NO_PODS = ("--set", "web.replicas=0")
REFUSED_BY_THE_API = ("--set", "web.image=")
POLICY = "shop-ringfence-namespace"


def test_a_team_s_chart_labels_its_namespace_from_install_to_uninstall(
    helm: Helm, team: Team, umbrella: Path
) -> None:
    helm = helm.at(team.plane)
    before = team.labels

    dry = ("install", "shop", umbrella, "--dry-run=server")
    assert "kind: Job" in helm.run(*dry, namespace=team.namespace)
    assert (team.labels, team.objects()) == (before, set())

    def run(*words: str | Path) -> str:
        return helm.run(*words, namespace=team.namespace)

    run("install", "shop", umbrella, *NO_PODS, "--wait", "--timeout", f"{patience(60):.0f}s")
    assert team.labels == before | {"client": "test01"}
    assert team.managers("client") == {"ringfence-shop"}
    assert team.labelled_at("ringfence-shop") <= team.made_at("deployment", "shop-web")
    by_label = {"namespaceSelector": {"matchLabels": {"client": "test01"}}}
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["ingress"]}
    by_name = {"namespaceSelector": {"matchExpressions": [expression]}}
    assert team.policy(POLICY) == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [by_label, by_name]}],
    }
    lasting = {f"networkpolicy/{POLICY}", "deployment/shop-web"}
    assert {o for o in team.objects() if not o.startswith("secret/")} == lasting

    assert "Phase:          Succeeded" in run("test", "shop")

    other = ("--set", "ringfence-namespace.labels.client=test02")
    run(
        "upgrade", "shop", umbrella, *NO_PODS, *other, "--wait", "--timeout", f"{patience(60):.0f}s"
    )
    assert team.labels["client"] == "test02"

    run("rollback", "shop", "1", "--wait", "--timeout", f"{patience(60):.0f}s")
    assert team.labels["client"] == "test01"

    run("uninstall", "shop", "--wait", "--timeout", f"{patience(60):.0f}s")
    assert team.labels == before
    assert team.objects() == set()


@pytest.mark.parametrize(
    ("switches", "says"),
    [(("--no-hooks",), 'release "shop" uninstalled'), ((), "is being terminated")],
    ids=["without hooks", "with hooks"],
)
def test_in_a_namespace_that_is_being_deleted_an_uninstall_needs_no_hooks(
    helm4: Helm, team: Team, umbrella: Path, switches: tuple[str, ...], says: str
) -> None:
    """Nothing can be made there any more, a hook's Job neither; the label goes with it."""
    helm = helm4.at(team.plane)
    helm.run("install", "shop", umbrella, *NO_PODS, namespace=team.namespace)
    release = ("patch", "secret", "sh.helm.release.v1.shop.v1", "-n", team.namespace)
    # The release's own record would be gone a moment later, and with it all that is to be done.
    team.plane.kubectl(*release, "--type=merge", "-p", '{"metadata":{"finalizers":["a.test/b"]}}')
    try:
        team.plane.kubectl("delete", "namespace", team.namespace, "--wait=false")
        done = helm.attempt("uninstall", "shop", *switches, namespace=team.namespace)
        assert says in said(done)
        assert (done.returncode == 0) == bool(switches)
    finally:
        team.plane.try_kubectl(*release, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    eventually(
        lambda: team.namespace not in team.plane.kubectl("get", "namespaces", "-o", "name"), "gone"
    )


def test_a_release_goes_on_under_helm_4_without_the_label_that_it_names_no_more(
    helm3: Helm, helm4: Helm, team: Team
) -> None:
    before = team.labels
    first, second = {"client": "test01", "stage": "test"}, {"stage": "live"}
    words = ["upgrade", "--install", "shop", str(CHART), "--reset-values"]
    for helm, labels in ((helm3, first), (helm4, second)):
        values = helm4.values({"labels": labels})
        helm.at(team.plane).run(*words, *values, namespace=team.namespace)
        assert team.labels == before | labels
    helm4.at(team.plane).run("uninstall", "shop", namespace=team.namespace)
    assert team.labels == before
    assert team.objects() == set()


def test_two_releases_keep_their_label_until_the_last_is_gone(helm4: Helm, team: Team) -> None:
    helm = helm4.at(team.plane)
    wanted = helm.values({"labels": {"client": "test01"}})
    for release in ("first", "second"):
        helm.run("install", release, CHART, *wanted, namespace=team.namespace)
    assert team.managers("client") == {"ringfence-first", "ringfence-second"}
    helm.run("uninstall", "first", namespace=team.namespace)
    assert team.labels["client"] == "test01"
    helm.run("uninstall", "second", namespace=team.namespace)
    assert "client" not in team.labels
    assert team.objects() == set()


def test_two_releases_that_want_different_values_are_both_named(helm: Helm, team: Team) -> None:
    helm = helm.at(team.plane)

    def install(release: str, value: str) -> Done:
        wanted = helm.values({"labels": {"client": value}})
        return helm.attempt("install", release, CHART, *wanted, namespace=team.namespace)

    assert install("first", "test01").returncode == 0
    refused = install("second", "test02")
    assert refused.returncode == 1
    assert (
        'release "second" wants client=test02, but release "first" has set client=test01'
        in said(refused)
    )
    left = {kind for kind, _, _ in (name.partition("/") for name in team.objects())}
    assert left.isdisjoint({"serviceaccount", "role", "rolebinding"}), (
        "rights of a hook that failed"
    )
    helm.run("uninstall", "second", namespace=team.namespace)
    assert team.labels["client"] == "test01"


def test_an_install_that_fails_is_taken_back_with_its_label(
    helm3: Helm, team: Team, umbrella: Path
) -> None:
    helm = helm3.at(team.plane)
    before = team.labels
    words = [*REFUSED_BY_THE_API, helm.major.undo_on_failure]
    failed = helm.attempt("install", "shop", umbrella, *words, namespace=team.namespace)
    assert "image: Required value" in failed.stderr
    assert team.labels == before
    assert team.objects() == set()


def test_an_upgrade_that_fails_brings_the_former_label_back(
    helm4: Helm, team: Team, umbrella: Path
) -> None:
    helm = helm4.at(team.plane)
    helm.run("install", "shop", umbrella, *NO_PODS, namespace=team.namespace)
    other = ("--set", "ringfence-namespace.labels.client=test02")
    words = [*other, *REFUSED_BY_THE_API, helm.major.undo_on_failure]
    failed = helm.attempt("upgrade", "shop", umbrella, *words, namespace=team.namespace)
    assert "image: Required value" in failed.stderr
    assert team.labels["client"] == "test01"
