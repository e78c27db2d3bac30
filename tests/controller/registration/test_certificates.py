"""Certificates of the webhook: made, rotated under load, replaced when they are wrong."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from cryptography import x509

from generators.certificates import CLOCK_SKEW, issue, new_authority
from generators.documents.json import Document, mapping, strings
from generators.kube.client import Client, DryRun
from generators.kube.errors import KubeError
from generators.kube.resources import NAMESPACES, SECRETS
from tests.controller.cluster import SYSTEM, Cluster
from tests.testbed.waiting import eventually, patience
from webhook.kept import SECRET_NAME
from webhook.registration.rotation import Lifetimes, RotationStep, next_step

HOSTS = ("webhook.ringfence-system.svc",)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TIMES = Lifetimes(authority=300 * 86400, leaf=60 * 86400, propagate=120)


def trusted(_: str) -> bool:
    return True


def untrusted(_: str) -> bool:
    return False


def step(
    data: dict[str, str], after_days: float, trust: Callable[[str], bool] = trusted
) -> RotationStep:
    return next_step(data, HOSTS, NOW + timedelta(days=after_days), TIMES, trust)


@pytest.fixture(scope="module")
def first() -> RotationStep:
    return step({}, 0)


def issuer_is_newest(found: RotationStep) -> bool:
    try:
        found.kept.certificate.verify_directly_issued_by(found.kept.authorities[0])
    except Exception:
        return False
    return True


def test_the_first_step_makes_everything(first: RotationStep) -> None:
    assert first.why == "no CA with its key"
    assert issuer_is_newest(first)
    names = first.kept.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == list(HOSTS)
    assert first.kept.certificate.not_valid_before_utc == NOW - CLOCK_SKEW


def test_nothing_changes_before_two_thirds_of_a_life(first: RotationStep) -> None:
    assert step(first.kept.data(), 39).why == ""


def test_a_leaf_is_renewed_by_the_same_authority(first: RotationStep) -> None:
    renewed = step(first.kept.data(), 41)
    assert renewed.why == "the certificate is due for renewal"
    assert renewed.kept.authorities == first.kept.authorities
    assert renewed.kept.leaf != first.kept.leaf


def test_a_new_authority_is_registered_before_its_leaf_is_served(first: RotationStep) -> None:
    leaf_day = step(first.kept.data(), 180)
    grown = step(leaf_day.kept.data(), 201)
    assert grown.why == "the CA is due for renewal"
    assert len(grown.kept.authorities) == 2
    assert grown.kept.leaf == leaf_day.kept.leaf
    waiting = step(grown.kept.data(), 202, untrusted)
    assert waiting.why == ""
    switched = step(waiting.kept.data(), 203)
    assert switched.why == "the new CA is trusted everywhere"
    assert issuer_is_newest(switched)
    assert len(switched.kept.authorities) == 2
    dropped = step(switched.kept.data(), 301)
    assert [a for a in dropped.kept.authorities if a == first.kept.authorities[0]] == []


def broken(first: RotationStep, **parts: bytes) -> dict[str, str]:
    encoded = {
        name.replace("_", "."): base64.b64encode(part).decode() for name, part in parts.items()
    }
    return first.kept.data() | encoded


def test_what_cannot_be_served_is_replaced_at_once(first: RotationStep) -> None:
    other = step({}, 0).kept
    expired = issue(new_authority(NOW - timedelta(days=9), 1), HOSTS, NOW - timedelta(days=9), 1)
    rows = {
        "key of another": broken(first, tls_key=other.leaf.key),
        "no certificate": broken(first, tls_crt=b"nothing"),
        "encoded wrongly": first.kept.data() | {"tls.crt": "%%%"},
        "leaf of another CA": broken(first, tls_crt=other.leaf.certificate, tls_key=other.leaf.key),
        "expired": broken(first, tls_crt=expired.certificate, tls_key=expired.key),
    }
    for row, data in rows.items():
        fixed = step(data, 1, untrusted)
        assert fixed.why, row
        assert issuer_is_newest(fixed), row
        assert fixed.kept.authorities == first.kept.authorities, row


def test_without_the_authoritys_key_a_new_one_signs_and_the_old_stays_trusted(
    first: RotationStep,
) -> None:
    other = step({}, 0).kept
    fixed = step(first.kept.data() | {"ca.key": other.data()["ca.key"]}, 1, untrusted)
    assert fixed.kept.authorities[1:] == first.kept.authorities
    assert issuer_is_newest(fixed)


def test_a_clock_that_jumps_ahead_switches_no_leaf_that_is_not_trusted_yet(
    first: RotationStep,
) -> None:
    grown = step(first.kept.data(), 299, untrusted)
    assert grown.why == "the certificate has expired"
    assert issuer_is_newest(grown)
    older = step(step(first.kept.data(), 30).kept.data(), 41, untrusted)
    assert older.why == ""


def test_a_clock_that_is_an_hour_behind_changes_nothing(first: RotationStep) -> None:
    assert step(first.kept.data(), -1 / 24).why == ""


def test_what_was_made_while_the_clock_was_ahead_is_replaced_at_once(first: RotationStep) -> None:
    """No API server takes a certificate that is not valid yet: nothing can be lost."""
    back = step(first.kept.data(), -9, untrusted)
    assert back.why == "the CA is not valid yet"
    assert issuer_is_newest(back)
    assert back.kept.certificate.not_valid_before_utc == NOW - timedelta(days=9) - CLOCK_SKEW
    assert back.kept.authorities[1:] == first.kept.authorities
    assert step(back.kept.data(), -9, untrusted).why == ""
    renewed = step(first.kept.data(), 41)
    leaf = step(renewed.kept.data(), 32, untrusted)
    assert leaf.why == "the certificate is not valid yet"
    assert leaf.kept.authorities == first.kept.authorities


def test_other_hosts_need_another_leaf(first: RotationStep) -> None:
    moved = next_step(first.kept.data(), ("10.0.0.1",), NOW, TIMES, untrusted)
    assert moved.why == "the certificate is not for 10.0.0.1"


# --- in a cluster -------------------------------------------------------------------------------


class Load(threading.Thread):
    """Somebody who creates namespaces all the time; each must be labelled by the webhook."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.good = 0
        self.bad: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            document: Document = {"metadata": {"name": f"annas-{self.good}"}}
            try:
                made = self.client.create(NAMESPACES, document, manager="test", dry_run=DryRun.ALL)
            except KubeError as error:
                self.bad.append(str(error))
                continue
            if strings(mapping(made, "metadata"), "labels").get("client") == "test01":
                self.good += 1
            else:
                self.bad.append("not labelled")
            time.sleep(0.01)

    def stop(self) -> None:
        self.stopping.set()
        self.join(patience(10))


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_rotation_every_few_seconds_loses_no_admission(fresh: Cluster) -> None:
    day = 86400
    controller = fresh.controller(
        *("--certificate-days", str(6 / day), "--authority-days", str(24 / day)),
        *("--propagate-seconds", "2"),
    )
    webhook = fresh.webhook()
    eventually(controller.in_force, "in force")
    load = Load(fresh.as_user("anna", "team-test01"))
    load.start()
    try:
        eventually(lambda: renewals(controller.metrics(), "the CA") >= 2, "new CAs", 90)
    finally:
        load.stop()
    assert load.bad == []
    assert load.good > 50
    assert renewals(controller.metrics(), "the certificate") >= 3
    assert len(webhook.events("certificate_loaded")) >= 5
    # Our own edits of the configuration are no gap in admission.
    assert len(controller.events("admission_in_force")) == 1


def renewals(metrics: dict[str, float], why: str) -> float:
    name = f'ringfence_controller_certificate_renewals_total{{why="{why}'
    return sum(value for key, value in metrics.items() if key.startswith(name))


def secret(cluster: Cluster) -> Document:
    return cluster.admin.get(SECRETS, SECRET_NAME, SYSTEM)


def foreign_key(cluster: Cluster) -> None:
    other = next_step({}, ("127.0.0.1",), datetime.now(UTC), Lifetimes(), untrusted).kept
    live = secret(cluster)
    data = strings(live, "data") | {"tls.key": other.data()["tls.key"]}
    cluster.admin.update(SECRETS, live | {"data": data}, manager="test")


def emptied(cluster: Cluster) -> None:
    data = {"tls.crt": "", "tls.key": ""}
    cluster.admin.update(SECRETS, secret(cluster) | {"data": data}, manager="test")


def deleted(cluster: Cluster) -> None:
    cluster.admin.delete(SECRETS, SECRET_NAME, SYSTEM)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_secret_that_is_wrong_is_replaced_and_admission_goes_on(fresh: Cluster) -> None:
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    for spoil in (foreign_key, emptied, deleted):
        served = (fresh.certificates / "tls.crt").read_bytes()
        spoil(fresh)
        eventually(partial(replaced, fresh, served), spoil.__name__, 30)
        eventually(lambda: admitted(fresh), f"admission after {spoil.__name__}")
    assert controller.ready()


def made_when_the_clock_said(cluster: Cluster, now: datetime) -> None:
    """What a controller under that clock would have left."""
    data = next_step({}, ("127.0.0.1",), now, Lifetimes(), untrusted).kept.data()
    cluster.admin.update(SECRETS, secret(cluster) | {"data": data}, manager="test")


@pytest.mark.cluster
@pytest.mark.timeout(120)
@pytest.mark.parametrize("days", [90, -90], ids=["back", "ahead"])
def test_after_a_jump_of_the_clock_admission_goes_on(fresh: Cluster, days: int) -> None:
    """Nothing can move the wall clock for one process: time namespaces leave it alone, and it
    belongs to the whole machine. But a process learns of a jump only from what it reads that was
    dated before it, and that is the Secret alone; leadership and waiting go by the steady clock.
    So the clock stays and the dates jump, below a controller and an API server that run.
    """
    controller = fresh.controller()
    fresh.webhook()
    eventually(controller.in_force, "in force")
    made_when_the_clock_said(fresh, datetime.now(UTC) + timedelta(days=days))
    why = "not valid yet" if days > 0 else "expired"
    renewed = "certificates_renewed"
    eventually(lambda: any(why in str(e["why"]) for e in controller.events(renewed)), why, 30)
    eventually(lambda: admitted(fresh), "admission")
    served = x509.load_pem_x509_certificate((fresh.certificates / "tls.crt").read_bytes())
    assert served.not_valid_before_utc < datetime.now(UTC) < served.not_valid_after_utc
    assert controller.ready()


def replaced(cluster: Cluster, before: bytes) -> bool:
    return (cluster.certificates / "tls.crt").read_bytes() != before


def admitted(cluster: Cluster) -> bool:
    document: Document = {"metadata": {"name": "annas"}}
    anna = cluster.as_user("anna", "team-test01")
    with contextlib.suppress(KubeError):
        made = anna.create(NAMESPACES, document, manager="test", dry_run=DryRun.ALL)
        return strings(mapping(made, "metadata"), "labels").get("client") == "test01"
    return False
