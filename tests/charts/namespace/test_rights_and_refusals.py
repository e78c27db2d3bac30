"""What `ringfence namespace label` may do, what it is refused, and what it says then."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from generators.errors import Refused
from generators.kube.client import Client
from tests.charts.helm import Helm, said
from tests.charts.namespace.conftest import CHART, Team
from tests.conftest import COMMAND, Run
from tests.controller.cluster import guarded
from tests.testbed.node import JobNode
from tests.testbed.plane import ControlPlane
from tests.testbed.processes import free_ports
from tests.testbed.waiting import ended, ending, eventually
from webhook.release.apply import Patience
from webhook.release.apply import label as put
from webhook.release.labels import Act, LabelWish

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

Label = Callable[..., list[str]]


@pytest.fixture
def place(api: ControlPlane, namespace: str) -> Team:
    return Team(api, namespace)


@pytest.fixture(scope="module")
def admin(api: ControlPlane) -> Iterator[Client]:
    with Client.connect(str(api.kubeconfig())) as client:
        yield client


@pytest.fixture
def label(place: Team, admin: Client) -> Label:
    """`label("shop", client="a")`: what release shop wants of the fixture's namespace."""

    def ask(release: str, act: Act = Act.APPLY, **labels: str) -> list[str]:
        wish = LabelWish(place.namespace, f"ringfence-{release}", labels)
        return put(admin, wish, Patience(20), act).lines()

    return ask


@contextmanager
def trying(log: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`namespace label` running, after it has said twice that it tries again."""
    with log.open("w") as output:
        command = [str(COMMAND), "namespace", "label", *words]
        with ending(subprocess.Popen(command, stdout=output, stderr=output)) as waiting:
            again = "trying again"
            eventually(lambda: log.read_text().count(again) >= 2, f"it tries again: {log}")
            yield waiting


def test_applying_again_writes_nothing(place: Team, label: Label) -> None:
    def version() -> str:
        path = "jsonpath={.metadata.resourceVersion}"
        return place.plane.kubectl("get", "namespace", place.namespace, "-o", path)

    label("shop", client="a")
    first = version()
    (line,) = label("shop", client="a")
    assert line.endswith("client=a is set")
    assert version() == first


def test_a_label_stays_with_whoever_else_has_set_it(
    place: Team, label: Label, ringfence: Run
) -> None:
    for release in ("one", "two/front"):
        label(release, client="a", stage="x")
    words = ("--remove", "client", "--field-manager", "ringfence-one")
    config = ("--kubeconfig", place.plane.kubeconfig())
    given_up = ringfence("namespace", "label", place.namespace, *words, *config)
    assert 'client stays: also set by release "two" (its "front")' in given_up.stdout
    assert place.managers("client") == {"ringfence-two/front"}
    assert place.managers("stage") == {"ringfence-one", "ringfence-two/front"}
    assert any("client is removed" in line for line in label("two/front"))
    label("three", Act.CHECK, stage="x")
    with pytest.raises(Refused, match="does not carry client=a; leave --check out to set it"):
        label("three", Act.CHECK, client="a", stage="x")


def test_what_a_person_has_set_is_not_overwritten(place: Team, label: Label) -> None:
    place.plane.kubectl("label", "namespace", place.namespace, "client=by-hand")
    with pytest.raises(Refused, match='but field manager "kubectl-label" has set client=by-hand'):
        label("shop", client="a")
    assert place.labels["client"] == "by-hand"


def test_a_namespace_that_is_not_there(ringfence: Run, api: ControlPlane) -> None:
    config = ("--kubeconfig", api.kubeconfig())
    refused = ringfence("namespace", "label", "no-such-team", "a=b", *config)
    assert refused.returncode == 1
    assert 'there is no namespace "no-such-team"; create it first' in refused.stderr
    # To give up what is gone with its namespace is done.
    assert ringfence("namespace", "label", "no-such-team", *config).returncode == 0


def test_who_lacks_the_right_is_told_the_role_and_the_role_suffices(
    helm4: Helm, team: Team, namespace: str
) -> None:
    helm = helm4.at(team.plane)
    team.plane.kubectl("create", "serviceaccount", "labeler", "-n", namespace)
    values = {"labels": {"client": "test01"}, "hook": {"serviceAccountName": "labeler"}}
    words = ["install", "shop", str(CHART), *helm.values(values)]
    refused = helm.attempt(*words, namespace=namespace)
    assert refused.returncode == 1
    assert "cannot get resource" in said(refused)
    job = "job/shop-ringfence-namespace-label"
    told = team.plane.kubectl("logs", job, "-n", namespace)
    team.plane.kubectl("apply", "-f", "-", stdin=told[told.index("apiVersion:") :])
    helm.run("uninstall", "shop", namespace=namespace)
    helm.run(*words, namespace=namespace)
    assert team.labels["client"] == "test01"
    # And it is for this namespace alone.
    account = f"--as=system:serviceaccount:{namespace}:labeler"
    elsewhere = team.plane.try_kubectl("label", "namespace", "default", "client=x", account)
    assert 'cannot get resource "namespaces"' in elsewhere.stderr


def test_a_role_that_is_made_while_the_hook_runs_is_waited_for(place: Team, tmp_path: Path) -> None:
    name = place.namespace
    place.plane.kubectl("create", "serviceaccount", "labeler", "-n", name)
    config = place.plane.service_account_kubeconfig(name, "labeler")
    rule = ("--verb=get,patch", "--resource=namespaces", f"--resource-name={name}")
    place.plane.kubectl("create", "role", "labels", *rule, "-n", name)
    with trying(tmp_path / "log", name, "client=a", "--kubeconfig", str(config)) as waiting:
        # One call: a hook waits a few seconds for its rights, however busy the machine is.
        account = f"--serviceaccount={name}:labeler"
        place.plane.kubectl("create", "rolebinding", "labels", "--role=labels", account, "-n", name)
        assert ended(waiting, 30) == 0
    assert place.labels["client"] == "a"


def test_a_namespace_s_admin_needs_one_more_right_to_install(helm4: Helm, team: Team) -> None:
    name = team.namespace
    admin = ("create", "rolebinding", "dana", "--clusterrole=admin", "--user=dana", "-n", name)
    team.plane.kubectl(*admin)
    helm = helm4.at(team.plane).by("dana")
    values = helm.values({"labels": {"client": "test01"}})
    words = ["upgrade", "--install", "shop", str(CHART), *values]
    refused = helm.attempt(*words, namespace=name)
    assert "attempting to grant RBAC permissions not currently held" in said(refused)
    rule = ("--verb=get,patch", "--resource=namespaces", f"--resource-name={name}")
    team.plane.kubectl("create", "role", "labels-namespace", *rule, "-n", name)
    binding = ("rolebinding", "labels-namespace", "--role=labels-namespace", "--user=dana")
    team.plane.kubectl("create", *binding, "-n", name)
    helm.attempt("uninstall", "shop", namespace=name)
    helm.run(*words, namespace=name)
    assert team.labels["client"] == "test01"


@pytest.fixture(scope="module")
def lonely(api: ControlPlane) -> Iterator[ControlPlane]:
    """A plane whose API server may be stopped."""
    with ControlPlane() as plane:
        yield plane


def test_while_the_api_server_is_away_it_is_waited_for_and_then_not(
    lonely: ControlPlane, ringfence: Run, tmp_path: Path
) -> None:
    lonely.kubectl("create", "namespace", "team")
    config = ("--kubeconfig", str(lonely.kubeconfig()))
    lonely.stop_apiserver()
    gone = ringfence("namespace", "label", "team", "a=b", *config, "--timeout", "1")
    assert gone.returncode == 3
    assert "the API server does not answer" in gone.stderr
    with trying(tmp_path / "log", "team", "a=b", *config) as waiting:
        lonely.start_apiserver()
        assert ended(waiting, 30) == 0
    assert Team(lonely, "team").labels["a"] == "b"


def test_a_hook_that_cannot_reach_the_api_server_says_so_through_helm(
    helm4: Helm, lonely: ControlPlane
) -> None:
    lonely.kubectl("create", "namespace", "cut-off")
    (nobody,) = free_ports(1)
    once = {"timeoutSeconds": 1, "backoffLimit": 0}
    values = helm4.values({"labels": {"client": "test01"}, "hook": once})
    with JobNode(lonely, api_port=nobody):
        failed = helm4.at(lonely).attempt("install", "shop", CHART, *values, namespace="cut-off")
    assert failed.returncode == 1
    assert "the API server does not answer" in said(failed)
    assert "client" not in Team(lonely, "cut-off").labels


def test_the_hook_asks_and_the_cluster_s_webhook_decides(helm4: Helm, tmp_path: Path) -> None:
    with guarded(tmp_path) as (cluster, _), JobNode(cluster.plane):
        helm = helm4.at(cluster.plane)
        team = Team(cluster.plane, "shop-test01")
        cluster.plane.kubectl("create", "namespace", team.namespace)
        assert team.labels["client"] == "test01"
        ours, theirs = (helm.values({"labels": {"client": c}}) for c in ("test01", "test02"))
        refused = helm.attempt("install", "other", CHART, *theirs, namespace=team.namespace)
        assert refused.returncode == 1
        assert "label client" in said(refused)
        assert "only admins of" in said(refused)
        assert team.labels["client"] == "test01"
        helm.run("install", "shop", CHART, *ours, namespace=team.namespace)
        # Nor does the last release that asked for the label take it away.
        helm.run("uninstall", "shop", namespace=team.namespace)
        assert team.labels["client"] == "test01"
