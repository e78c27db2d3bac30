"""`ringfence webhook`: what it refuses at the start, and the certificates that it makes."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from generators.certificates import general_name, issue, new_authority
from tests.webhook.processes import new_certificate, prepare
from tests.webhook.reviews import TENANTS

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare(tmp_path)


def serve(folder: Path, *options: str | Path) -> list[str | Path]:
    """The command with good files; `options` come last and win."""
    return [
        *("webhook", "serve", "-c", folder / "tenants.yaml", "--listen", "127.0.0.1:0"),
        *("--tls-cert", folder / "tls.crt", "--tls-key", folder / "tls.key"),
        *options,
    ]


def test_a_bad_tenant_file_ends_the_start_with_every_problem(ringfence: Run, folder: Path) -> None:
    bad = TENANTS.replace("labelKey: client", "labelKey: a b").replace("admins:", "admin:")
    (folder / "tenants.yaml").write_text(bad)
    ended = ringfence(*serve(folder))
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert f"{folder}/tenants.yaml:3: " in ended.stderr
    assert f"{folder}/tenants.yaml:4: " in ended.stderr
    assert "Traceback" not in ended.stderr


def remove(path: Path) -> None:
    path.unlink()


def spoil(path: Path) -> None:
    path.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")


def replace(path: Path) -> None:
    """By the file of another pair."""
    other = path.parent / "other"
    other.mkdir()
    new_certificate(other)
    path.write_bytes((other / path.name).read_bytes())


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("tenants.yaml", remove),
        ("tls.crt", remove),
        ("tls.key", remove),
        ("tls.crt", spoil),
        ("tls.key", spoil),
        ("tls.crt", replace),
        ("tls.key", replace),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_unreadable_file_ends_the_start_with_its_name(
    ringfence: Run, folder: Path, name: str, harm: Callable[[Path], None]
) -> None:
    harm(folder / name)
    ended = ringfence(*serve(folder))
    assert ended.returncode == 2
    assert name in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "address", ["8443", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:8443", "a:b", "x:-1"]
)
def test_an_address_of_another_shape_is_bad_usage(
    ringfence: Run, folder: Path, address: str
) -> None:
    ended = ringfence(*serve(folder, "--listen", address))
    assert ended.returncode == 2
    assert "--listen" in ended.stderr


@pytest.mark.parametrize("option", ["--listen", "--metrics-listen"])
def test_a_port_in_use_is_said_at_once(ringfence: Run, folder: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = ringfence(*serve(folder, option, f"127.0.0.1:{taken.getsockname()[1]}"))
    assert ended.returncode == 2
    assert option in ended.stderr
    assert "Address already in use" in ended.stderr


def test_help_needs_none_of_the_heavy_libraries() -> None:
    heavy = ("flask", "gunicorn", "cryptography", "prometheus_client", "kubernetes")
    code = (
        f"import sys, webhook.commands.webhook; print([m for m in {heavy!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


class TestCertificates:
    def test_three_files_and_a_key_for_its_owner_alone(
        self, ringfence: Run, tmp_path: Path
    ) -> None:
        made = ringfence(
            *("webhook", "certificates", "--directory", tmp_path / "new" / "folder"),
            *("--host", "webhook.ringfence-system.svc", "--host", "127.0.0.1", "--host", "::1"),
        )
        assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
        folder = tmp_path / "new" / "folder"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert modes == {"ca.crt": 0o644, "tls.crt": 0o644, "tls.key": 0o600}
        leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["webhook.ringfence-system.svc"]
        assert names.get_values_for_type(x509.IPAddress) == [
            ip_address("127.0.0.1"),
            ip_address("::1"),
        ]

    def test_again_is_a_new_pair_in_the_same_place(self, ringfence: Run, tmp_path: Path) -> None:
        arguments = ("webhook", "certificates", "--directory", tmp_path, "--host", "localhost")
        first = [ringfence(*arguments).returncode, (tmp_path / "tls.crt").read_bytes()]
        assert ringfence(*arguments).returncode == first[0] == 0
        assert (tmp_path / "tls.crt").read_bytes() != first[1]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
        ssl.create_default_context().load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")

    @pytest.mark.parametrize("host", ["", "a b", "-x", "https://x", "x:443", "a..b", "x" * 300])
    def test_a_host_that_is_none_is_bad_usage(
        self, ringfence: Run, tmp_path: Path, host: str
    ) -> None:
        made = ringfence("webhook", "certificates", "--directory", tmp_path, "--host", host)
        assert made.returncode == 2
        assert "--host" in made.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_written_is_bad_usage(
        self, ringfence: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "below"
        made = ringfence("webhook", "certificates", "--directory", folder, "--host", "x")
        assert made.returncode == 2
        assert "Traceback" not in made.stderr

    def test_clocks_may_differ_by_an_hour(self) -> None:
        now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        authority = new_authority(now, 365)
        leaf = x509.load_pem_x509_certificate(issue(authority, ("x",), now, 90).certificate)
        for certificate in (authority.certificate, leaf):
            assert certificate.not_valid_before_utc == datetime(2026, 1, 1, 11, tzinfo=UTC)
        assert leaf.not_valid_after_utc == datetime(2026, 4, 1, 12, tzinfo=UTC)

    def test_only_the_authority_may_sign(self) -> None:
        now = datetime.now(UTC)
        authority = new_authority(now, 2)
        leaf = x509.load_pem_x509_certificate(issue(authority, ("x",), now, 1).certificate)
        for certificate, expected in ((authority.certificate, True), (leaf, False)):
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            assert basic.critical
            assert basic.value.ca is expected
        leaf.verify_directly_issued_by(authority.certificate)

    def test_addresses_are_no_names(self) -> None:
        assert general_name("10.0.0.1") == x509.IPAddress(ip_address("10.0.0.1"))
        assert general_name("*.example.com") == x509.DNSName("*.example.com")
