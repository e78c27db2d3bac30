"""Taking, refusing and keeping files, without a server around."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from flask.testing import FlaskClient

from generators.certificates import issue, new_authority
from generators.errors import InvalidConfig
from generators.tenants.last_good import LastGood
from tests.webhook.processes import new_certificate
from tests.webhook.reviews import TENANTS
from webhook.registration.certificates import write_files
from webhook.reload import ServingCertificate, TenantFile
from webhook.serving.app import create_app
from webhook.serving.state import WebhookState, load_state
from webhook.settings import WebhookSettings

RENAMED = TENANTS.replace("name: test02", "name: red")


@pytest.fixture
def tenants(files: Path) -> TenantFile:
    return TenantFile(files / "tenants.yaml")


@pytest.fixture
def certificate(files: Path) -> ServingCertificate:
    return ServingCertificate(files / "tls.crt", files / "tls.key")


class TestTenantFile:
    def test_nothing_new_is_no_change(self, tenants: TenantFile) -> None:
        tenants.path.write_text(TENANTS)
        assert tenants.check() is None

    def test_new_content_is_taken_once(self, tenants: TenantFile) -> None:
        tenants.path.write_text(RENAMED)
        changed = tenants.check()
        assert changed is not None
        assert not changed.refused
        assert list(tenants.config.tenants) == ["red", "test01"]
        assert tenants.check() is None

    @pytest.mark.parametrize(
        "bad",
        [b"", b"[]", b"{", b"a: 1\na: 2", b"\xff\xfe", TENANTS.encode() * 2, b"x" * 5_000_000],
        ids=["empty", "list", "broken", "duplicate key", "not UTF-8", "twice", "5 MB"],
    )
    def test_a_bad_one_is_refused_once_and_the_last_good_one_stays(
        self, tenants: TenantFile, bad: bytes
    ) -> None:
        good = tenants.config
        tenants.path.write_bytes(bad)
        changed = tenants.check()
        assert changed is not None
        assert changed.refused
        assert tenants.problem is not None
        assert str(tenants.path) in tenants.problem
        assert tenants.config is good
        assert tenants.check() is None

    def test_the_old_content_heals_it(self, tenants: TenantFile) -> None:
        tenants.path.write_text("{")
        tenants.check()
        tenants.path.write_text(TENANTS)
        tenants.check()
        assert tenants.problem is None

    def test_a_folder_in_its_place_is_refused(self, tenants: TenantFile) -> None:
        tenants.path.unlink()
        tenants.path.mkdir()
        changed = tenants.check()
        assert changed is not None
        assert changed.refused

    def test_a_bad_one_at_the_start_is_an_error(self, files: Path) -> None:
        (files / "tenants.yaml").write_text("kind: x")
        with pytest.raises(InvalidConfig):
            TenantFile(files / "tenants.yaml", LastGood(files / "nothing"))

    @pytest.mark.parametrize("broken", ["kind: x", None], ids=["broken", "missing"])
    def test_a_start_goes_on_with_the_last_good_one(self, files: Path, broken: str | None) -> None:
        path, kept = files / "tenants.yaml", LastGood(files / "state")
        TenantFile(path, kept)
        path.write_text(RENAMED)
        TenantFile(path, kept)
        path.unlink()
        if broken is not None:
            path.write_text(broken)
        again = TenantFile(path, kept)
        assert list(again.config.tenants) == ["red", "test01"]
        assert again.problem is not None
        assert str(path) in again.problem
        refused = again.check()
        assert refused is not None
        assert refused.refused, "the log says it once"
        assert again.check() is None
        path.write_text(TENANTS)
        taken = again.check()
        assert taken is not None
        assert not taken.refused
        assert not again.problem
        assert kept.path.read_text() == TENANTS


class TestServingCertificate:
    def test_half_a_renewal_is_waited_out(
        self, certificate: ServingCertificate, files: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        new_certificate(other)
        kept = certificate.context
        (files / "tls.key").write_bytes((other / "tls.key").read_bytes())
        changed = certificate.check()
        assert changed is not None
        assert changed.refused
        assert certificate.context is kept
        (files / "tls.crt").write_bytes((other / "tls.crt").read_bytes())
        changed = certificate.check()
        assert changed is not None
        assert not changed.refused
        assert certificate.context is not kept
        assert certificate.problem is None

    def test_one_that_is_expired_already_is_not_taken(
        self, certificate: ServingCertificate, files: Path
    ) -> None:
        past = datetime.now(UTC) - timedelta(days=10)
        authority = new_authority(past, 30)
        write_files(files, authority.pem, issue(authority, ("localhost",), past, 1))
        kept = certificate.context
        certificate.check()
        assert certificate.context is kept
        assert "already expired" in str(certificate.problem)

    def test_an_encrypted_key_is_refused_without_a_question(
        self, certificate: ServingCertificate, files: Path
    ) -> None:
        key = serialization.load_pem_private_key((files / "tls.key").read_bytes(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
        (files / "tls.key").write_bytes(locked)
        changed = certificate.check()
        assert changed is not None
        assert changed.refused


class TestReadiness:
    def test_an_expired_certificate_is_not_ready(self, files: Path) -> None:
        past = datetime.now(UTC) - timedelta(days=10)
        authority = new_authority(past, 30)
        write_files(files, authority.pem, issue(authority, ("localhost",), past, 1))
        settings = WebhookSettings(files / "tenants.yaml", files / "tls.crt", files / "tls.key")
        answer = create_app(load_state(settings)).test_client().get("/readyz")
        assert answer.status_code == 503
        assert "[-]certificate expired at " in answer.text

    def test_draining_is_not_ready_and_alive(
        self, client: FlaskClient, state: WebhookState
    ) -> None:
        state.draining.begin()
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200

    def test_a_refused_file_is_ready_and_said(
        self, client: FlaskClient, state: WebhookState
    ) -> None:
        state.tenants.path.write_text("{")
        state.tenants.check()
        answer = client.get("/readyz")
        assert answer.status_code == 200
        assert f"[!]config refused, {state.tenants.config.digest} stays in force" in answer.text
