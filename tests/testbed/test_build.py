"""Where the testbed's programs come from: the order of looking, and words when there is no way."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from generators.errors import MachineLacks
from lab.api import assets
from lab.api.assets import kubernetes
from tests.testbed import build
from tests.testbed.releases import UnknownRelease, modules


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has built nothing of ours yet; what Go has of its own library stays."""
    kept = build.cache_root().parents[1] / "go-build"
    monkeypatch.setenv("GOCACHE", os.environ.get("GOCACHE", str(kept)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache"


def _programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_nothing_is_found_before_the_first_build() -> None:
    assert build.find(build.KUBERNETES) is None


def test_what_was_built_from_these_sources_is_found(cache: Path) -> None:
    folder = _programs(build.cache_folder(build.KUBERNETES), *build.KUBERNETES.names)
    assert build.find(build.KUBERNETES) == folder
    assert folder.is_relative_to(cache)


def test_other_sources_are_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.cache_folder(build.HELM)
    changed = tmp_path / "go" / "helm"
    changed.mkdir(parents=True)
    for path in build.HELM.folder.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(assets, "SOURCES", tmp_path / "go")
    assert build.cache_folder(build.HELM) == before
    (changed / "go.mod").write_text((changed / "go.mod").read_text() + "\n// changed\n")
    assert build.cache_folder(build.HELM) != before


def test_kubebuilder_assets_beat_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(build.cache_folder(build.KUBERNETES), *build.KUBERNETES.names)
    folder = _programs(tmp_path / "assets", "etcd", "kube-apiserver", "kubectl")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    assert build.find(build.KUBERNETES) == folder


def test_incomplete_assets_are_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(_programs(tmp_path / "assets", "etcd")))
    with pytest.raises(MachineLacks, match="has no kube-apiserver, kubectl; unset it"):
        build.find(build.KUBERNETES)


def test_without_go_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(MachineLacks, match=r"no Go 1\.26 .* `make setup` .* KUBEBUILDER_ASSETS"):
        build.ensure(build.KUBERNETES, lambda _: None)


def test_an_old_go_on_path_is_passed_over_for_the_environment_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("old", "go1.19.8"), ("environment", "go1.26.6")):
        go = _programs(tmp_path / folder, "go") / "go"
        go.write_text(f"#!/bin/sh\necho {version}\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:/usr/bin:/bin")
    monkeypatch.setattr("sys.executable", str(tmp_path / "environment" / "python"))
    assert build.find_go() == tmp_path / "environment" / "go"


def test_a_build_that_fails_says_what_the_compiler_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "go" / "broken"
    broken.mkdir(parents=True)
    (broken / "go.mod").write_text("module broken\n\ngo 1.26.0\n")
    (broken / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    monkeypatch.setattr(assets, "SOURCES", tmp_path / "go")
    product = build.Product("broken", ".", ("broken",))
    with pytest.raises(build.BuildFailed, match="undefined: nonsense"):
        build.ensure(product, lambda _: None)
    assert build.find(product) is None
    assert not list(build.cache_root().glob("broken-*")), "no half-built folder is left"


def test_a_build_gives_one_binary_under_all_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "go" / "small"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module small\n\ngo 1.26.0\n")
    (source / "main.go").write_text(
        'package main\n\nimport "os"\n\nfunc main() { println(os.Args[0]) }\n'
    )
    monkeypatch.setattr(assets, "SOURCES", tmp_path / "go")
    said: list[str] = []
    folder = build.ensure(build.Product("small", ".", ("one", "two")), said.append)
    done = subprocess.run([folder / "two"], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("/two")
    assert "building one, two" in said[0]
    said.clear()
    build.ensure(build.Product("small", ".", ("one", "two")), said.append)
    assert said == [], "the second time it is found"


def test_other_releases_are_other_builds_of_the_same_programs() -> None:
    found = {build.kubernetes_release(module): kubernetes(module) for module in modules()}
    assert len(found) == 2
    folders = {build.cache_folder(product) for product in found.values()}
    assert len(folders | {build.cache_folder(build.KUBERNETES)}) == 3
    for release, product in found.items():
        assert product.names == build.KUBERNETES.names
        assert f"version.gitVersion={release} " in product.ldflags


def test_a_release_is_picked_by_its_series_and_another_one_is_named() -> None:
    assert [build.kubernetes_release(module)[:6] for module in modules(["1.30"])] == ["v1.30."]
    with pytest.raises(UnknownRelease, match=r"no API server 1\.29; there are: 1\.30, 1\.3\d"):
        modules(["1.29"])


def test_the_oldest_release_is_the_one_that_the_charts_ask_for(checkout: Path) -> None:
    oldest = modules()[-1].removeprefix("kubernetes-")
    for chart in ("ringfence", "ringfence-namespace"):
        text = (checkout / "charts" / chart / "Chart.yaml").read_text()
        assert f'kubeVersion: ">={oldest}.0-0"' in text


def test_an_installed_command_takes_no_other_release_for_the_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = kubernetes(modules()[-1])
    _programs(build.cache_folder(other), *other.names)
    built = _programs(build.cache_folder(build.KUBERNETES), *build.KUBERNETES.names)
    os.utime(built, (0, 0))
    monkeypatch.setattr(assets, "SOURCES", tmp_path / "not a checkout")
    assert assets.find() == built
