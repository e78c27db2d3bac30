"""An epoch as it is written down, and what one leaves to the next."""

from __future__ import annotations

import pytest

from generators.tenants.load import parse_tenants
from generators.tenants.packed import packed, unpacked
from tests.webhook.reviews import TENANTS
from webhook.registration.epoch import Epoch, former_keys

DATA = TENANTS.encode()
CONFIG = parse_tenants(DATA, "tenants.yaml")
KEYS, UIDS = frozenset({"proof"}), frozenset({"a", "b"})
EPOCH = Epoch(
    "uid",
    3,
    "client",
    CONFIG.digest,
    "abc",
    frozenset({"a", "b"}),
    frozenset({"proof"}),
    packed(DATA),
)


def test_what_is_written_is_read_again() -> None:
    assert Epoch.parse(EPOCH.data()) == EPOCH


def test_the_file_in_force_is_kept_with_the_keys_that_it_retires() -> None:
    found = EPOCH.config("tenants.yaml")
    assert found is not None
    assert found == CONFIG.retiring(frozenset({"proof"}))


@pytest.mark.parametrize("text", ["", "!", "AAAA", packed(DATA)[:-8], packed(b"another file")])
def test_a_file_that_is_not_there_whole_is_none(text: str) -> None:
    assert unpacked(text, CONFIG.digest, "tenants.yaml") is None


def test_an_epoch_of_an_older_release_has_no_file() -> None:
    old = {k: v for k, v in EPOCH.data().items() if k in ("uid", "generation", "labelKey")}
    parsed = Epoch.parse(old | {"unproven": "[]"})
    assert parsed == Epoch("uid", 3, "client")
    assert parsed is not None
    assert parsed.config("tenants.yaml") is None


@pytest.mark.parametrize("broken", [{}, {"uid": "x"}, EPOCH.data() | {"unproven": "{}"}])
def test_anything_else_is_no_epoch(broken: dict[str, str]) -> None:
    assert Epoch.parse(broken) is None


def test_the_key_that_stops_to_be_the_tenant_label_is_retired() -> None:
    proof = parse_tenants(DATA.replace(b"labelKey: client", b"labelKey: proof"), "tenants.yaml")
    assert former_keys(EPOCH, proof) == {"client"}
    assert former_keys(EPOCH, CONFIG) == frozenset()
    assert former_keys(None, proof) == frozenset()
