"""Where the API server is and who we are to it.

As kubectl: `--kubeconfig`, else KUBECONFIG, else ~/.kube/config, else the ServiceAccount of the
pod; `--context` instead of the current context. Kubeconfigs are read by the
official library, which knows exec plugins, OIDC and merging of several files; it is imported only
then, since it costs a third of a second and 30 MB that a node agent in a pod need not pay.
Credentials are loaded again whenever the transport asks: tokens are rotated under a running
process.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit

from generators.errors import InputError, MachineLacks, Problem

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOME_CONFIG = "~/.kube/config"
HOW = (
    "give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a ServiceAccount; "
    "`make testbed` starts an API server for tests"
)


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and the credentials of one identity, as of now."""

    scheme: str
    host: str
    port: int
    base_path: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    """The name to expect in the server's certificate where it is not the host."""
    authorization: str = ""
    """Value of the Authorization header; empty with a client certificate."""
    proxy: str = ""

    @property
    def origin(self) -> str:
        """For messages."""
        return f"{self.scheme}://{self.host}:{self.port}{self.base_path}"


class Source(Protocol):
    """Something that yields the current Access."""

    @property
    def lifetime(self) -> float:
        """Seconds after which credentials are loaded again even without an error."""

    def load(self) -> Access:
        """Read everything again."""


ApiServer = str | Source | None
"""A kubeconfig, any other source, or None for what `find` finds."""


def chosen(kubeconfig: str | None, context: str | None) -> ApiServer:
    """What `--kubeconfig` and `--context` mean together; None where neither was given."""
    if not context:
        return kubeconfig or None
    return Kubeconfig(kubeconfig or _default_path() or HOME_CONFIG, context)


def _default_path() -> str:
    """The kubeconfigs of KUBECONFIG, or the one at home; empty where neither is there."""
    named = os.environ.get("KUBECONFIG", "")
    return named or (HOME_CONFIG if _at_home(HOME_CONFIG).is_file() else "")


def _at_home(path: str) -> Path:
    """With `~` written out, where who runs has a home: a container's user may have none."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises without a home


def find(wanted: ApiServer = None) -> Source:
    """The source that the command line, the environment, the home or the pod names."""
    if wanted is not None and not isinstance(wanted, str):
        return wanted
    if named := wanted or _default_path():
        return Kubeconfig(named)
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if host and (SERVICE_ACCOUNT / "token").exists():
        return ServiceAccount(host, os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    raise MachineLacks("no API server is configured", HOW)


def access_for(
    url: str,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str = "",
    authorization: str = "",
    proxy: str = "",
) -> Access:
    """An Access from a URL as kubeconfigs write it."""
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError(f"not the address of an API server: {url!r}")
    return Access(
        scheme=split.scheme,
        host=split.hostname,
        port=split.port or (443 if split.scheme == "https" else 80),
        base_path=split.path.rstrip("/"),
        tls=tls,
        server_name=server_name,
        authorization=authorization,
        proxy=proxy,
    )


@dataclass(frozen=True, slots=True)
class Fixed:
    """An Access that never changes; for tests and plain proxies."""

    access: Access
    lifetime: float = float("inf")

    def load(self) -> Access:
        """The same every time."""
        return self.access


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What the kubelet mounts into a pod; it rotates the token about every hour."""

    host: str
    port: str
    folder: Path = SERVICE_ACCOUNT
    lifetime: float = 60.0

    def load(self) -> Access:
        """Read token and authority from the mounted files."""
        try:
            token = (self.folder / "token").read_text().strip()
            tls = ssl.create_default_context(cafile=self.folder / "ca.crt")
        except (OSError, ssl.SSLError) as error:
            raise MachineLacks(f"the pod's ServiceAccount is unusable: {error}", HOW) from error
        host = f"[{self.host}]" if ":" in self.host else self.host
        return access_for(f"https://{host}:{self.port}", tls=tls, authorization=f"Bearer {token}")


class _Configuration(Protocol):
    """The fields of the official library's Configuration that its loader fills in."""

    host: str
    ssl_ca_cert: str | None
    cert_file: str | None
    key_file: str | None
    verify_ssl: bool
    tls_server_name: str | None
    api_key: dict[str, str]
    proxy: str | None
    no_proxy: str | None


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One kubeconfig, or several joined by `:` as in KUBECONFIG; its current context, or one."""

    path: str
    context: str = ""
    lifetime: float = float("inf")

    def load(self) -> Access:
        """Read it by the official library; exec plugins run again."""
        if not any(path.exists() for path in self._paths()):
            raise self._unreadable("no such file")
        configuration = self._loaded()
        try:
            return access_for(
                configuration.host,
                tls=_tls(configuration) if configuration.host.startswith("https") else None,
                server_name=configuration.tls_server_name or "",
                authorization=configuration.api_key.get("BearerToken", ""),
                proxy=_proxy(configuration),
            )
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error

    def _loaded(self) -> _Configuration:
        import yaml
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, kube_config

        load = cast(Callable[..., None], kube_config.load_kube_config)
        configuration = Configuration()
        try:
            context = self.context or self._current_context()
            if self.context and self.context not in (known := self._contexts()):
                there = ", ".join(known) or "none"
                raise self._unreadable(f'no context "{self.context}"; there are: {there}')
            load(self.path, context=context, client_configuration=configuration)
        except (ConfigException, yaml.YAMLError, OSError, TypeError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        return cast(_Configuration, configuration)

    def _paths(self) -> list[Path]:
        return [_at_home(p) for p in self.path.split(os.pathsep) if p]

    def _current_context(self) -> str | None:
        """Of several files that of the first that has one, as kubectl takes it."""
        named = (document.get("current-context") for document in self._documents())
        return next((str(name) for name in named if name), None)

    def _contexts(self) -> list[str]:
        listed = (document.get("contexts") for document in self._documents())
        entries = [entry for found in listed if isinstance(found, list) for entry in found]
        return [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]

    def _documents(self) -> Iterator[dict[str, object]]:
        import yaml

        for path in self._paths():
            document = yaml.safe_load(path.read_text()) if path.exists() else None
            if isinstance(document, dict):
                yield document

    def _unreadable(self, why: str) -> InputError:
        what = f"not a usable kubeconfig: {why}"
        return InputError([Problem(self.path, 1, "", what, "check it with `kubectl config view`")])


def _tls(configuration: _Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _proxy(configuration: _Configuration) -> str:
    from kubernetes.client.rest import should_bypass_proxies

    bypass = cast(Callable[[str, str], bool], should_bypass_proxies)
    if not configuration.proxy or bypass(configuration.host, configuration.no_proxy or ""):
        return ""
    return configuration.proxy
