"""The tenant file of all webhook tests, its State, and a Flask client of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from generators.certificates import issue, new_authority
from generators.tenants.load import parse_tenants
from generators.tenants.model import TenantConfig
from tests.webhook.reviews import TENANTS
from webhook.registration.certificates import write_files
from webhook.serving.app import create_app
from webhook.serving.state import WebhookState, load_state
from webhook.settings import WebhookSettings


@pytest.fixture(scope="session")
def config() -> TenantConfig:
    return parse_tenants(TENANTS.encode(), "tenants.yaml")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with tenants.yaml, tls.crt, tls.key and ca.crt."""
    (tmp_path / "tenants.yaml").write_text(TENANTS)
    now = datetime.now(UTC)
    authority = new_authority(now, 30)
    write_files(tmp_path, authority.pem, issue(authority, ("127.0.0.1", "localhost"), now, 30))
    return tmp_path


@pytest.fixture
def state(files: Path) -> WebhookState:
    return load_state(WebhookSettings(files / "tenants.yaml", files / "tls.crt", files / "tls.key"))


@pytest.fixture
def client(state: WebhookState) -> FlaskClient:
    return create_app(state).test_client()
