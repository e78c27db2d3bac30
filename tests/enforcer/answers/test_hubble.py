"""Our flows in the real `hubble observe`: read without a warning, found, printed as expected."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from enforcer.observe.mask import LEAVES
from tests.enforcer.answers.conftest import Answering
from tests.enforcer.answers.hubble import Hubble, hubble_program, observing

pytestmark = [pytest.mark.bpf, pytest.mark.timeout(600)]

COMPARED = (
    *("uuid", "verdict", "source", "destination", "traffic_direction", "Summary"),
    *("source_service", "destination_service", "interface"),
)


@pytest.fixture(scope="module")
def program() -> Path:
    return hubble_program()


@pytest.fixture(scope="module")
def hubble(program: Path, answering: Answering) -> Hubble:
    return observing(program, answering.ask("observe", "--all", "-o", "json").stdout)


def test_every_flow_is_read_without_a_warning_and_says_the_same_as_ours(
    hubble: Hubble, answering: Answering
) -> None:
    told = answering.ask("observe", "--all", "-o", "json").stdout
    ours = [json.loads(line) for line in told.splitlines()]
    theirs = [json.loads(line) for line in hubble("-o", "jsonpb")]
    assert len(theirs) == len(ours) >= 8
    for our, their in zip(ours, theirs, strict=True):
        for key in COMPARED:
            assert our["flow"].get(key) == their["flow"].get(key), key
        assert our["flow"].get("drop_reason_desc") == their["flow"].get("drop_reason_desc")


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--verdict", "DROPPED"), 3),
        (("--verdict", "AUDIT"), 1),
        (("--verdict", "DROPPED", "--to-pod", "t1/a"), 2),
        (("--drop-reason-desc", "POLICY_DENIED"), 1),
        (("--drop-reason-desc", "POLICY_DENY"), 2),
        (("--from-label", "tenant:name=blue", "--verdict", "DROPPED"), 1),
        (("--namespace", "t3"), 2),
        (("--to-service", "t1/api"), 4),
        (("--from-workload", "StatefulSet/b", "--verdict", "DROPPED"), 1),
        (("--interface", "rft3"), 3),
        (("--type", "policy-verdict", "--traffic-direction", "ingress"), 2),
        (("--port", "8080", "--protocol", "tcp", "--not", "--verdict", "FORWARDED"), 4),
    ],
)
def test_its_filters_find_our_flows_and_ours_find_the_same(
    hubble: Hubble, answering: Answering, arguments: tuple[str, ...], count: int
) -> None:
    assert len(hubble("-o", "jsonpb", *arguments)) == count
    ours = answering.ask("observe", "--all", "-o", "json", *arguments).stdout.splitlines()
    assert len(ours) == count


def test_every_field_of_our_masks_is_one_of_its_own(hubble: Hubble) -> None:
    assert hubble("-o", "jsonpb", "--field-mask", ",".join(sorted(LEAVES)))


def test_it_reads_masked_flows(program: Path, answering: Answering) -> None:
    wanted = "time,uuid,verdict,event_type,source.pod_name,l4.TCP.flags"
    told = answering.ask("observe", "--all", "-o", "json", "--field-mask", wanted).stdout
    command = [str(program), "observe", "--input-file", "-", "-o", "jsonpb"]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ours, theirs = ([json.loads(x) for x in text.splitlines()] for text in (told, done.stdout))
    assert [x["flow"]["verdict"] for x in ours] == [x["flow"]["verdict"] for x in theirs]
    assert all(set(x["flow"]) <= {*wanted.split(","), "source", "l4"} for x in ours)


def test_it_prints_verdict_reason_and_policy_as_people_expect(hubble: Hubble) -> None:
    ends = ("--from-pod", "t2/b", "--to-pod", "t1/a")
    (wall,) = hubble("-o", "compact", *ends, "--verdict", "DROPPED")
    assert "t2/b" in wall
    assert wall.endswith("Policy denied by denylist DROPPED (TCP Flags: SYN)")
    (policy,) = hubble("-o", "compact", "--drop-reason-desc", "POLICY_DENIED")
    assert policy.endswith("Policy denied DROPPED (TCP Flags: SYN)")
    named = ("-o", "compact", "--print-policy-names")
    (allowed,) = hubble(*named, "--to-pod", "t1/c", "--traffic-direction", "ingress")
    assert "policy-verdict:L3-L4 INGRESS ALLOWED BY allow-web (NetworkPolicy)" in allowed
    (audited,) = hubble(*named, "--verdict", "AUDIT")
    assert "policy-verdict:none INGRESS AUDITED BY green (Tenant)" in audited
