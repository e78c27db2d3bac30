"""Certificates that somebody else makes: registered with their CA, never replaced by ours."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generators.certificates import Authority, issue, new_authority
from generators.documents.json import mapping, mappings, strings, text
from generators.kube.errors import NotFound
from generators.kube.resources import CONFIG_MAPS, SECRETS, VALIDATING_WEBHOOKS
from tests.controller.cluster import COMMAND, SYSTEM, Cluster
from tests.testbed.waiting import eventually
from webhook.kept import SECRET_NAME
from webhook.registration import configuration
from webhook.registration.issued import NotIssued, Overlap, read_issued

NOW = datetime.now(UTC)
HOST = "127.0.0.1"
NAME = "from-the-platform"


def secret(authority: Authority, host: str = HOST, days: float = 30) -> dict[str, str]:
    leaf = issue(authority, (host,), NOW, days)
    parts = {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.pem}
    return {name: base64.b64encode(part).decode() for name, part in parts.items()}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority(NOW, 90)


def test_a_good_secret_is_served_and_its_ca_trusted(authority: Authority) -> None:
    served = read_issued(secret(authority), (HOST,), NOW, "x/y")
    assert served.bundle == authority.pem


ROWS: dict[str, tuple[dict[str, str], str]] = {
    "nothing": ({"tls.crt": "", "tls.key": "", "ca.crt": ""}, "has no tls.crt, tls.key, ca.crt"),
    "no CA": ({"ca.crt": ""}, "Secret x/y has no ca.crt; wait for its issuer or add it"),
    "no base64": ({"tls.crt": "%"}, "has no tls.crt"),
    "no certificate": ({"tls.crt": "eA=="}, "holds no certificate with names"),
    "no CA certificate": ({"ca.crt": "eA=="}, "holds no certificate with names"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_secret_that_cannot_be_served_from_is_named_with_the_reason(
    authority: Authority, row: str
) -> None:
    change, message = ROWS[row]
    with pytest.raises(NotIssued, match=message.replace(".", r"\.")):
        read_issued(secret(authority) | change, (HOST,), NOW, "x/y")


def test_another_host_or_an_end_that_is_past_is_refused(authority: Authority) -> None:
    with pytest.raises(NotIssued, match=r"is not for 127\.0\.0\.1; issue it for that"):
        read_issued(secret(authority, "other.example"), (HOST,), NOW, "x/y")
    with pytest.raises(NotIssued, match="has expired; renew it"):
        read_issued(secret(authority, days=1), (HOST,), NOW + timedelta(days=2), "x/y")


def test_a_ca_that_left_stays_trusted_for_a_while(authority: Authority) -> None:
    old, new = authority.certificate, new_authority(NOW, 90).certificate
    both = Overlap().seen((old,), 0, 100).seen((new,), 50, 100)
    assert both.authorities == (new, old)
    assert both.seen((new,), 99, 100).authorities == (new, old)
    assert both.seen((new,), 101, 100).authorities == (new,)


def bundle(cluster: Cluster) -> bytes:
    """What the API server trusts the webhook for."""
    live = cluster.admin.get(VALIDATING_WEBHOOKS, configuration.NAME)
    client = mapping(mappings(live, "webhooks")[0], "clientConfig")
    return base64.b64decode(text(client, "caBundle"))


def keep(cluster: Cluster, data: dict[str, str]) -> None:
    document = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": NAME}, "data": data}
    cluster.plane.kubectl("apply", "-n", SYSTEM, "-f", "-", stdin=json.dumps(document))


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_admission_is_in_force_with_the_platform_s_certificates(
    fresh: Cluster, authority: Authority
) -> None:
    rules: list[str | Path] = [COMMAND, "controller", "rules", "--certificate-secret", NAME]
    printed = subprocess.run(rules, capture_output=True, text=True, check=True).stdout
    fresh.plane.kubectl("apply", "-f", "-", stdin=printed)
    controller = fresh.controller("--certificate-secret", NAME, "--propagate-seconds", "3600")
    eventually(lambda: "[-]certificate: there is none yet" in controller.get("/readyz")[1], "waits")
    keep(fresh, secret(authority))
    fresh.webhook()
    eventually(controller.in_force, f"admission in force: {controller.log}", 60)
    assert bundle(fresh) == authority.pem
    renewed = new_authority(NOW, 90)
    keep(fresh, secret(renewed))
    eventually(lambda: bundle(fresh) == renewed.pem + authority.pem, "both CAs", 40)
    eventually(lambda: controller.in_force() and fresh.synchronized(), "still in force")
    with pytest.raises(NotFound):
        fresh.admin.get(SECRETS, SECRET_NAME, SYSTEM)
    guard = fresh.admin.get(CONFIG_MAPS, "ringfence-guard", SYSTEM)
    assert strings(guard, "data")["unproven"] == "[]"
