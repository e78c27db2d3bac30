"""`make release`: the same bytes each time, and each file installs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from generators.documents.json import Document, key_of
from tests.charts.helm import Helm
from tests.conftest import CHECKOUT
from tests.release.registry import registry
from tests.testbed import build
from tests.testbed.plane import ControlPlane

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]

VERSION = "0.1.0"
PLATFORM = "linux-arm64" if os.uname().machine == "aarch64" else "linux-amd64"
SYSTEM = "ringfence-system"
BARE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def released(folder: Path) -> Path:
    helm = build.ensure(build.HELM, lambda _: None) / "helm"
    command = [sys.executable, "-m", "tools.release", str(folder), "--helm", str(helm)]
    done = subprocess.run(
        [*command, "--platform", PLATFORM],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=BARE | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_same_commit_gives_the_same_bytes_and_every_file_has_its_sum(
    release: Path, tmp_path: Path
) -> None:
    sums = (release / "SHA256SUMS").read_text()
    assert (released(tmp_path / "again") / "SHA256SUMS").read_text() == sums
    named = {line.partition("  ")[2] for line in sums.splitlines()}
    files = {str(p.relative_to(release)) for p in release.rglob("*") if p.is_file()}
    assert files - named == {"SHA256SUMS"}
    for line in sums.splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest


def test_the_single_file_needs_python_alone(release: Path, tmp_path: Path) -> None:
    with tarfile.open(release / f"ringfence-{VERSION}-{PLATFORM}.tar.gz") as archive:
        archive.extract("ringfence", tmp_path)
    command, home = tmp_path / "ringfence", {"SHIV_ROOT": str(tmp_path / "root")}
    assert run(command, "version", **home) == f"ringfence {VERSION}\n"
    example = CHECKOUT / "examples/two-clients"
    given = ("-c", example / "tenants.yaml", "-f", example / "cluster.yaml")
    told = run(command, "matrix", *given, "--by", "tenant", **home)
    assert "TENANT_WALL by tenant/test01#wall" in told
    listed = run(command, "tenants", "list", *given, "-o", "jsonpath={.items[*].tenant}", **home)
    assert listed == "test01 test02"


def test_krew_installs_it_as_a_plugin_of_kubectl(release: Path, tmp_path: Path) -> None:
    krew = build.ensure(build.KREW, lambda _: None) / "krew"
    archive = release / f"ringfence-{VERSION}-{PLATFORM}.tar.gz"
    home = {"KREW_ROOT": str(tmp_path), "HOME": str(tmp_path), "SHIV_ROOT": str(tmp_path / "root")}
    home |= {"KREW_NO_UPGRADE_CHECK": "1"}
    manifest = release / "ringfence.krew.yaml"
    run(krew, "install", f"--manifest={manifest}", f"--archive={archive}", **home)
    assert run(tmp_path / "bin/kubectl-ringfence", "version", **home) == f"ringfence {VERSION}\n"


@pytest.mark.parametrize("chart", ["ringfence", "ringfence-namespace"])
def test_charts_come_from_a_registry_and_render_as_the_package_does(
    release: Path, helm4: Helm, helm3: Helm, chart: str
) -> None:
    for helm in (helm4, helm3):
        with registry(release / "oci") as host:
            given = (f"oci://{host}/{chart}", "--version", VERSION, "--plain-http")
            pulled = helm.run("template", "r", *given, namespace=SYSTEM)
        packed = helm.template("r", release / f"{chart}-{VERSION}.tgz", namespace=SYSTEM)
        assert pulled[pulled.index("---\n") :] == packed[packed.index("---\n") :]


def test_the_package_holds_no_link_and_what_helm_packs(
    release: Path, helm4: Helm, tmp_path: Path
) -> None:
    for chart in ("ringfence", "ringfence-namespace"):
        helm4.run("package", CHECKOUT / "charts" / chart, "--destination", tmp_path)
        names = []
        for folder in (release, tmp_path):
            with tarfile.open(folder / f"{chart}-{VERSION}.tgz") as archive:
                assert all(member.isfile() for member in archive.getmembers())
                names.append(sorted(archive.getnames()))
        assert names[0] == names[1]


def test_the_charts_of_the_release_install(
    release: Path, helm4: Helm, api: ControlPlane, unique_name: Callable[[str], str]
) -> None:
    """Without their hooks, for which there is no node; tests/charts/cluster has those."""
    helm = helm4.at(api)
    team = unique_name("released")
    for chart, namespace in (("ringfence", SYSTEM), ("ringfence-namespace", team)):
        package = release / f"{chart}-{VERSION}.tgz"
        told = helm.run(
            *("install", "r", package, "--create-namespace", "--no-hooks"), namespace=namespace
        )
        assert "STATUS: deployed" in told
        helm.run("uninstall", "r", "--no-hooks", namespace=namespace)


def test_install_yaml_is_taken_by_an_api_server(release: Path, api: ControlPlane) -> None:
    file = release / "install.yaml"
    kept = [document for document in yaml.safe_load_all(file.read_text()) if document]
    try:
        told = api.kubectl("apply", "--server-side", "-f", str(file)).splitlines()
        assert len(told) == len(kept)
        found = api.kubectl("get", "daemonsets,deployments", "-n", SYSTEM, "-o", "name")
        assert sorted(found.split()) == [
            "daemonset.apps/ringfence-enforcer",
            "deployment.apps/ringfence-controller",
            "deployment.apps/ringfence-webhook",
        ]
    finally:
        api.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", str(file))


def test_the_bill_of_materials_names_what_is_locked(release: Path) -> None:
    document = json.loads((release / f"ringfence-{VERSION}.cdx.json").read_bytes())
    named = {f"{part['name']}=={part['version']}" for part in document["components"]}
    lock = (CHECKOUT / "requirements.lock").read_text().splitlines()
    assert named == {line.removesuffix(" \\") for line in lock if "==" in line}
    assert document["metadata"]["component"]["name"] == "ringfence"


def test_no_time_and_no_folder_of_this_machine_is_in_install_yaml(release: Path) -> None:
    text = (release / "install.yaml").read_text()
    assert str(CHECKOUT) not in text
    documents: list[Document] = [d for d in yaml.safe_load_all(text) if d]
    assert [key_of(d).name for d in documents if d["kind"] == "Namespace"] == [SYSTEM]
