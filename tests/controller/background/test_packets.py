"""The example pair of policies, by packets: a hollow node enforces what they make."""

from __future__ import annotations

import pytest

from tests.conftest import Run, lacking
from tests.controller.background.ground import Ground, started
from tests.controller.background.test_changing_existing import EXAMPLES, PAIR
from tests.lab.api.hollow import joined
from tests.lab.builders import namespace, pod
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.timeout(240)]
SPACES = ("shop-test01", "shop-test02", "ingress")


def test_no_packet_of_another_client_enters_what_the_policies_isolate(
    bare: Ground, ringfence: Run
) -> None:
    if lacking():
        pytest.skip(lacking())
    controller = started(bare)
    with joined(ringfence, bare.plane) as lab:
        for name in SPACES:
            lab.make(namespace(name))
        for name in SPACES:
            lab.make(pod(f"{name}/web"))
        lab.make(pod("shop-test02/other"))
        for name in (*(f"{each}/web" for each in SPACES), "shop-test02/other"):
            lab.ready(name)
        lab.becomes("FORWARDED", "shop-test01/web", "shop-test02/web")
        for policy in PAIR:
            bare.apply((EXAMPLES / f"{policy}.yaml").read_text())
        lab.becomes("DROPPED", "shop-test01/web", "shop-test02/web")
        lab.becomes("FORWARDED", "shop-test02/other", "shop-test02/web")
        lab.becomes("FORWARDED", "ingress/web", "shop-test02/web")
        lab.becomes("FORWARDED", "shop-test02/web", "shop-test01/web")
        lab.make(namespace("late-test02"))
        eventually(lambda: bool(bare.networks("late-test02")), "isolated before its first pod")
        lab.make(pod("late-test02/web"), "late-test02/web")
        lab.becomes("DROPPED", "shop-test01/web", "late-test02/web")
        lab.becomes("FORWARDED", "shop-test02/web", "late-test02/web")
        bare.drop(PAIR[1])
        lab.becomes("FORWARDED", "shop-test01/web", "shop-test02/web")
    assert controller.ended() is None
