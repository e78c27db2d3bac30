"""An application with policies for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.webhook.policies.application import Webhook


@pytest.fixture
def webhook(files: Path) -> Webhook:
    return Webhook(files)
