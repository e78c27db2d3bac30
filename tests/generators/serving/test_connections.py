"""Who has to go and when, as values: no sockets, no clock."""

from __future__ import annotations

import ipaddress

import pytest

from generators.serving.connections import (
    Connections,
    Phase,
    ServerConnection,
    ServerLimits,
    admitted,
    source_of,
)

LIMITS = ServerLimits(connections=4, small=10, large_bytes=100)


def table(*phases: tuple[str, Phase]) -> tuple[Connections, list[ServerConnection]]:
    """Connections of these sources, in these phases, one second apart."""
    found = Connections(LIMITS)
    made = [ServerConnection(source) for source, _ in phases]
    for second, (connection, (_, phase)) in enumerate(zip(made, phases, strict=True)):
        found.add(connection, phase, float(second))
    return found, made


HEAD, IDLE, BUSY, BODY = Phase.HEAD, Phase.IDLE, Phase.BUSY, Phase.BODY


@pytest.mark.parametrize(
    ("phases", "goes"),
    [
        ((("a", HEAD), ("b", HEAD), ("b", HEAD), ("c", IDLE)), 1),
        ((("b", BODY), ("b", HEAD), ("b", Phase.NEW), ("b", Phase.NEW)), 2),
        ((("a", IDLE), ("b", HEAD), ("c", BUSY), ("c", BUSY)), 1),
        ((("a", BUSY), ("b", IDLE), ("c", IDLE), ("c", BUSY)), 1),
        ((("a", BUSY), ("b", BUSY), ("c", BUSY), ("c", BUSY)), None),
        ((("a", HEAD), ("b", HEAD)), None),
    ],
    ids=[
        "the oldest of the greediest source",
        "of its own the one that is least far",
        "an incomplete one before one that idles",
        "else who idles longest",
        "nobody who is being answered",
        "nobody while there is room",
    ],
)
def test_who_goes_when_there_are_too_many(
    phases: tuple[tuple[str, Phase], ...], goes: int | None
) -> None:
    found, made = table(*phases)
    worst = found.worst() if found.full else None
    assert worst is (None if goes is None else made[goes])


def test_one_request_has_one_clock_from_its_first_byte_to_its_thread() -> None:
    found, [one] = table(("a", Phase.HANDSHAKE))
    assert one.deadline == 0 + LIMITS.handshake_seconds
    found.move(one, HEAD, 1.0)
    assert one.deadline == 1 + LIMITS.head_seconds
    found.move(one, BODY, 2.5)
    assert one.deadline == 1 + LIMITS.request_seconds
    found.move(one, Phase.QUEUED, 4.0)
    assert one.deadline == 1 + LIMITS.request_seconds
    assert found.expired(5.9) == []
    assert found.expired(6.1) == [one]
    assert found.timed_out == {Phase.QUEUED: 1}


def test_what_a_thread_has_never_expires() -> None:
    found, _ = table(("a", BUSY))
    assert found.expired(1e9) == []


def test_large_bodies_share_a_budget_and_the_oldest_incomplete_goes() -> None:
    found, [old, new, small] = table(("a", BODY), ("b", BODY), ("b", BODY))
    assert found.weigh(old, 60) == ()
    assert found.weigh(small, 10) == ()
    assert found.weigh(new, 60) == [old]
    found.remove(old)
    assert found.large == 60
    found.move(new, Phase.QUEUED, 3.0)
    assert found.weigh(small, 90) == [small]
    found.weigh(new, 0)
    found.remove(small)
    assert found.large == 0


@pytest.mark.parametrize(
    ("host", "networks", "yes"),
    [
        ("10.0.0.5", (), True),
        ("10.0.0.5", ("10.0.0.0/24",), True),
        ("::ffff:10.0.0.5", ("10.0.0.0/24",), True),
        ("10.0.1.5", ("10.0.0.0/24", "fd00::/8"), False),
        ("fd00::1", ("10.0.0.0/24", "fd00::/8"), True),
        ("fe80::1%eth0", ("fe80::/10",), True),
    ],
)
def test_who_may_connect(host: str, networks: tuple[str, ...], yes: bool) -> None:
    assert admitted(host, map(ipaddress.ip_network, networks)) is yes


def test_one_source_is_an_ipv4_address_or_64_bits_of_ipv6() -> None:
    assert source_of("::ffff:10.0.0.5") == source_of("10.0.0.5") == "10.0.0.5"
    assert source_of("fd00:1:2:3:4::5") == source_of("fd00:1:2:3::9") != source_of("fd00::9")
