"""What the subchart renders: golden files, refused values, names, switches, notes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from generators.documents.json import Document, key_of, mapping, text
from tests.charts import golden
from tests.charts.helm import Helm
from tests.charts.namespace.conftest import CHART
from tests.conftest import Run
from tests.testbed.plane import ControlPlane
from tools import charts

pytestmark = pytest.mark.cluster

VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
GOLDEN = Path(__file__).with_name("golden")


def documents(rendered: str) -> list[Document]:
    """In the order of the text."""
    return [d for d in yaml.safe_load_all(rendered) if d]


def kinds(rendered: str) -> list[str]:
    return [text(d, "kind") for d in documents(rendered)]


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_render_is_the_one_on_file_and_the_same_twice(helm: Helm, values: Path) -> None:
    once, again = (helm.template("shop", CHART, "--values", str(values)) for _ in range(2))
    assert once == again
    golden.matches(once, GOLDEN / values.name.replace("-values", ""))


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_lint_finds_nothing(helm: Helm, values: Path) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, "--values", values)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_api_server_takes_every_object(
    helm4: Helm, values: Path, api: ControlPlane, namespace: str
) -> None:
    rendered = helm4.template("shop", CHART, "--values", str(values), namespace=namespace)
    restricted = "pod-security.kubernetes.io/enforce=restricted"
    api.kubectl("label", "namespace", namespace, restricted)
    api.kubectl("create", "serviceaccount", "shop-ringfence-namespace-test", "-n", namespace)
    api.kubectl("create", "serviceaccount", "labeler", "-n", namespace)
    words = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    taken = api.kubectl(*words, stdin=rendered)
    assert len(taken.splitlines()) == len(documents(rendered))


def test_schema_and_reference_of_values_are_those_of_the_comments() -> None:
    stale = [p.name for p, words in charts.outputs(CHART).items() if p.read_text() != words]
    assert stale == [], "run .venv/bin/python tools/charts.py --write charts/ringfence-namespace"


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "an unknown value": ({"label": {}}, "additional properties 'label' not allowed"),
    "an unknown value of the hook": ({"hook": {"retry": 1}}, "'retry' not allowed"),
    "a value of a label over 63 characters": (
        {"labels": {"client": "x" * 64}},
        "at '/labels/client': maxLength: got 64, want 63",
    ),
    "a label that YAML takes for a number": (
        {"labels": {"cost-centre": 4711}},
        "at '/labels/cost-centre': got number, want string",
    ),
    "a label key with two slashes": ({"labels": {"a/b/c": "x"}}, "invalid propertyName 'a/b/c'"),
    "a label of Pod Security": (
        {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        "pod-security.kubernetes.io/enforce",
    ),
    "the label of the namespace's name": (
        {"labels": {"kubernetes.io/metadata.name": "kube-system"}},
        "kubernetes.io/metadata.name",
    ),
    "a string among allowFrom": ({"allowFrom": ["test01"]}, "got string, want object"),
    "an empty entry, which would mean everybody": (
        {"allowFrom": [{}]},
        "at '/allowFrom/0': minProperties: got 0, want 1",
    ),
    "labels beside names in one entry": (
        {"allowFrom": [{"namespaces": ["a"], "client": "test01"}]},
        "at '/allowFrom/0': additional properties 'client' not allowed",
    ),
    "no names": ({"allowFrom": [{"namespaces": []}]}, "minItems: got 0, want 1"),
    "what is no name of a namespace": (
        {"allowFrom": [{"namespaces": ["team_a"]}]},
        "'team_a' does not match pattern",
    ),
    "a short digest": ({"image": {"digest": "sha256:12"}}, "at '/image/digest'"),
    "an unknown word of ours below global": (
        {"global": {"ringfence": {"label": {}}}},
        "at '/global/ringfence': additional properties 'label' not allowed",
    ),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_values_are_refused_with_their_place(
    helm4: Helm, values: dict[str, object], words: str
) -> None:
    done = helm4.attempt("template", "shop", CHART, *helm4.values(values))
    assert done.returncode == 1
    assert words in done.stderr


def test_lint_finds_nothing_in_the_team_s_chart(helm: Helm, umbrella: Path) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", "--with-subcharts", umbrella)


def test_globals_of_other_charts_are_none_of_its_business(helm4: Helm) -> None:
    values = {"global": {"storageClass": "fast", "imageRegistry": "registry.example/team"}}
    rendered = helm4.template("shop", CHART, *helm4.values(values))
    assert "image: registry.example/team/ringfence:" in rendered


def test_labels_from_global_give_way_to_the_chart_s_own(helm4: Helm) -> None:
    values = {
        "global": {"ringfence": {"labels": {"client": "test02", "stage": "test"}}},
        "labels": {"client": "test01"},
    }
    rendered = helm4.template("shop", CHART, *helm4.values(values))
    assert set(re.findall(r"- ((?:client|stage)=\S+)", rendered)) == {"client=test01", "stage=test"}


@pytest.mark.parametrize("switch", ["enabled", "ringfence-namespace.enabled"])
def test_switched_off_it_renders_neither_policy_nor_hook(
    helm: Helm, switch: str, umbrella: Path
) -> None:
    chart = umbrella if "." in switch else CHART
    rendered = helm.template("shop", chart, "--set", f"{switch}=false")
    assert [text(d, "kind") for d in documents(rendered)] == (
        ["Deployment"] if "." in switch else []
    )


def test_without_hooks_the_policy_is_all(helm4: Helm) -> None:
    rendered = helm4.template("shop", CHART, "--set", "hook.enabled=false")
    assert kinds(rendered) == ["NetworkPolicy"]


def test_two_aliases_of_one_release_share_no_name_and_no_manager(
    helm4: Helm, umbrella: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "examples/parent"
    parent.mkdir(parents=True)
    shutil.copytree(CHART, tmp_path / "charts" / CHART.name)
    one = {
        "name": CHART.name,
        "version": "0.1.0",
        "repository": f"file://../../charts/{CHART.name}",
    }
    chart: Document = {"apiVersion": "v2", "name": "parent", "version": "0.1.0"}
    chart["dependencies"] = [one | {"alias": "front"}, one | {"alias": "back"}]
    (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
    helm4.run("dependency", "update", parent)
    rendered = helm4.template("shop", parent)
    names = [(text(d, "kind"), key_of(d).name) for d in documents(rendered)]
    assert len(set(names)) == len(names)
    assert set(re.findall(r"- (ringfence-\S+)", rendered)) == {
        "ringfence-shop/front",
        "ringfence-shop/back",
    }


def test_long_names_stay_apart_and_short_enough(helm4: Helm) -> None:
    longest = ["a" * 52 + end for end in "xy"]
    names = [
        {key_of(d).name for d in documents(helm4.template(release, CHART))} for release in longest
    ]
    assert not names[0] & names[1]
    assert max(len(name) for name in names[0] | names[1]) <= 63


NOTES: dict[str, tuple[dict[str, object], str]] = {
    "nobody": ({}, "no pod may enter, and the pods of this namespace cannot reach each other"),
    "only themselves": ({"allowSameNamespace": True}, "no pod of another namespace may enter"),
    "labels and names": (
        {"allowFrom": [{"client": "a", "stage": "b"}, {"namespaces": ["x", "y"]}]},
        "by label: client=a, stage=b\n  by name: x, y\n",
    ),
    "switched off": ({"enabled": False}, "disabled"),
    "no hooks": ({"hook": {"enabled": False}}, "is not labelled (hook.enabled: false)"),
}


@pytest.mark.parametrize(("values", "words"), NOTES.values(), ids=NOTES.keys())
def test_notes_say_who_may_enter(
    helm4: Helm, api: ControlPlane, values: dict[str, object], words: str
) -> None:
    helm = helm4.at(api)
    assert words in helm.run("install", "shop", CHART, "--dry-run=client", *helm.values(values))


DENY_ALL: Document = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all", "namespace": "team"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def pod(name: str, template: Mapping[str, object]) -> Document:
    """The pod that a Job makes from its template."""
    meta = {"name": name, "namespace": "team", "labels": mapping(template, "metadata")["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def test_in_a_namespace_that_denies_all_the_hook_still_reaches_the_api_server(
    helm4: Helm, ringfence: Run, tmp_path: Path
) -> None:
    rendered = documents(helm4.template("shop", CHART))
    template = {
        key_of(d).name: mapping(mapping(d, "spec"), "template")
        for d in rendered
        if text(d, "kind") == "Job"
    }["shop-ringfence-namespace-label"]
    stranger = {"metadata": {"labels": {"app": "other"}}, "spec": template["spec"]}
    policies = [d for d in rendered if text(d, "kind") == "NetworkPolicy"]
    cluster = tmp_path / "cluster.yaml"
    everything = [pod("hook", template), pod("other", stranger), DENY_ALL, *policies]
    cluster.write_text(yaml.dump_all(everything, Dumper=yaml.SafeDumper))

    def verdict(name: str, port: str) -> int:
        words = ("trace", f"team/{name}", "192.0.2.1", port, "--expect", "FORWARDED")
        return ringfence(*words, "-f", cluster).returncode

    assert verdict("hook", "6443/TCP") == 0
    assert verdict("hook", "80/TCP") == 1
    assert verdict("other", "6443/TCP") == 1
