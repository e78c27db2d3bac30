"""Which API server and identity: the order of looking, and words for what is unusable."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from generators.errors import InputError, MachineLacks
from generators.kube import config
from generators.kube.config import Kubeconfig, ServiceAccount, access_for, chosen, find
from lab.api.plane import authority_named


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod sees."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(authority_named("test").pem)
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return tmp_path


def test_the_flag_beats_the_environment_beats_the_home_beats_the_pod(
    pod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(find(), ServiceAccount)
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    (tmp_path / "home" / ".kube" / "config").touch()
    assert find() == Kubeconfig("~/.kube/config")
    monkeypatch.setenv("KUBECONFIG", "/from/environment")
    assert find() == Kubeconfig("/from/environment")
    assert find("/from/flag") == Kubeconfig("/from/flag")


def test_a_context_goes_with_whichever_kubeconfig_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert chosen(None, None) is None
    assert chosen("/flag", None) == "/flag"
    assert chosen("/flag", "x") == Kubeconfig("/flag", "x")
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert find(chosen(None, "x")) == Kubeconfig("/a:/b", "x")


def _of_contexts(path: Path, current: str, *names: str) -> str:
    """A kubeconfig with a cluster a context, of the same name."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": n, "cluster": {"server": f"https://{n}.example"}} for n in names],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "u"}} for n in names],
        "current-context": current,
    }
    path.write_text(json.dumps(document))
    return str(path)


def test_the_context_that_is_asked_for_and_else_the_first_current_one(tmp_path: Path) -> None:
    """Of several files kubectl takes the current context of the first that has one."""
    files = ":".join(
        (
            _of_contexts(tmp_path / "none", "", "a"),
            _of_contexts(tmp_path / "first", "b", "b", "c"),
            _of_contexts(tmp_path / "second", "d", "d"),
            str(tmp_path / "missing"),
        )
    )
    assert Kubeconfig(files).load().host == "b.example"
    assert Kubeconfig(files, "c").load().host == "c.example"
    assert Kubeconfig(files, "d").load().host == "d.example"
    with pytest.raises(InputError, match='no context "nowhere"; there are: a, b, c, d;'):
        Kubeconfig(files, "nowhere").load()


def test_without_any_the_message_says_how_to_get_one() -> None:
    with pytest.raises(MachineLacks, match="no API server is configured; give --kubeconfig FILE"):
        find()


def test_a_pod_s_token_is_read_anew_each_time(pod: Path) -> None:
    source = ServiceAccount("10.96.0.1", "443", pod)
    assert source.load().authorization == "Bearer first"
    (pod / "token").write_text("second\n")
    assert source.load().authorization == "Bearer second"
    assert source.lifetime < 300


def test_a_pod_without_its_files_is_told_so(pod: Path) -> None:
    (pod / "ca.crt").write_text("no certificate")
    with pytest.raises(MachineLacks, match="ServiceAccount is unusable"):
        ServiceAccount("10.96.0.1", "443", pod).load()


def test_an_ipv6_service_address_is_bracketed(pod: Path) -> None:
    access = ServiceAccount("fd00::1", "6443", pod).load()
    assert (access.host, access.port) == ("fd00::1", 6443)


def _kubeconfig(path: Path, cluster: dict[str, object], user: dict[str, object]) -> Kubeconfig:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document))
    return Kubeconfig(str(path))


def test_token_server_name_and_base_path_are_understood(tmp_path: Path) -> None:
    cluster: dict[str, object] = {
        "server": "https://api.example:8443/k8s/one/",
        "tls-server-name": "kubernetes",
    }
    access = _kubeconfig(tmp_path / "config", cluster, {"token": "secret"}).load()
    assert access.origin == "https://api.example:8443/k8s/one"
    assert access.server_name == "kubernetes"
    assert access.authorization == "Bearer secret"
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED


def test_a_proxy_of_the_environment_is_used_unless_excepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    outside = _kubeconfig(tmp_path / "a", {"server": "https://api.example"}, {"token": "t"})
    inside = _kubeconfig(tmp_path / "b", {"server": "https://api.inside.example"}, {"token": "t"})
    assert outside.load().proxy == "http://proxy.example:3128"
    assert inside.load().proxy == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "no such file", id="missing"),
        pytest.param("{", "not a usable kubeconfig", id="broken YAML"),
        pytest.param("", "not a usable kubeconfig", id="empty"),
        pytest.param("[]", "not a usable kubeconfig", id="a list"),
        pytest.param("clusters: []", "not a usable kubeconfig", id="no context"),
        pytest.param(
            '{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c"}}],'
            '"clusters": [{"name": "c", "cluster": {"server": "ftp://x"}}]}',
            "not the address of an API server",
            id="strange server",
        ),
    ],
)
def test_an_unusable_kubeconfig_is_named_with_the_reason(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        Kubeconfig(str(path)).load()
    assert str(caught.value).startswith(f"{path}:1: ")


def test_an_address_without_port_gets_the_one_of_its_scheme() -> None:
    assert access_for("https://api.example").port == 443
    assert access_for("http://[::1]").port == 80
