"""Several reflectors begin, end and answer as one."""

from __future__ import annotations

import pytest

from generators.checks import Check, bridged, failed
from generators.kube.copies import check_of
from generators.kube.reflector import ReflectorStats


def stats(
    *, synced: bool = True, connected: bool = True, forbidden: bool = False
) -> ReflectorStats:
    return ReflectorStats("pods", synced, connected, forbidden, 3, 41.7, {}, {}, {})


@pytest.mark.parametrize(
    ("found", "check"),
    [
        (stats(), None),
        (stats(connected=False), bridged("pods", "nothing received from the API server for 42 s")),
        (stats(synced=False, connected=False), failed("pods", "not synced")),
        (
            stats(connected=False, forbidden=True),
            failed("pods", "RBAC does not allow watching it (403)"),
        ),
    ],
    ids=["current", "away", "never complete", "forbidden"],
)
def test_a_copy_says_what_is_wrong_with_it(found: ReflectorStats, check: Check | None) -> None:
    assert check_of(found) == check
