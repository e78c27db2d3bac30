"""`observe --field-mask`: the fields that are named, and nothing that flows never have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

from enforcer.datapath.flows import DropReason, EventFlag, ForwardReason
from enforcer.observe.filters import BadFilter
from enforcer.observe.mask import LEAVES, mask, masked
from generators.reachability.verdicts import Verdict
from tests.enforcer.answers.flowlines import Line, line
from tests.enforcer.datapath.test_flow_shape import DROP, flow_of

Run = Callable[..., "CompletedProcess[str]"]

TCP = {"source_port": 60556, "destination_port": 8082, "flags": {"SYN": True}}


@pytest.mark.parametrize(
    ("values", "flow"),
    [
        (("verdict",), {"verdict": "DROPPED"}),
        (
            ("verdict,node_name", "Type"),
            {"verdict": "DROPPED", "node_name": "node1", "Type": "L3_L4"},
        ),
        (("source.pod_name",), {"source": {"pod_name": "web-0"}}),
        (("source.ID", "source.identity"), {"source": {"ID": 12, "identity": 15194}}),
        (("l4",), {"l4": {"TCP": TCP}}),
        (("l4.TCP.flags.SYN",), {"l4": {"TCP": {"flags": {"SYN": True}}}}),
        (("l4.TCP.flags", "l4.TCP.flags.SYN"), {"l4": {"TCP": {"flags": {"SYN": True}}}}),
        (("l4.UDP.source_port", "interface"), {}),
    ],
)
def test_a_mask_keeps_what_it_names(values: tuple[str, ...], flow: Line) -> None:
    whole = line()
    expected = {"flow": flow, "node_name": "node1", "time": whole["time"]}
    assert masked(whole, mask(values)) == expected


def test_losses_are_told_whatever_the_mask() -> None:
    lost: Line = {"lost_events": {"source": "PERF_EVENT_RING_BUFFER", "num_events_lost": 1}}
    assert masked(lost, mask(["verdict"])) == lost


@pytest.mark.parametrize("path", ["", "colour", "source.colour", "labels", "source.labels.app"])
def test_a_field_that_flows_never_have_is_refused(path: str) -> None:
    with pytest.raises(BadFilter, match=r"--field-mask .*flows have no such field; "):
        mask([path])


def test_every_field_that_we_write_can_be_named() -> None:
    records = [
        replace(DROP, protocol=protocol, direction=direction, verdict=verdict, reason=reason)
        for protocol in (1, 6, 17, 58, 132)
        for direction in type(DROP.direction)
        for verdict, reason in (
            (Verdict.DROPPED, DropReason.POLICY_DENIED),
            (Verdict.FORWARDED, ForwardReason.POLICY_ALLOWED),
        )
    ]
    records.append(replace(DROP, tcp_flags=255, ifindex=1, rule=1, flags=EventFlag.REPLY))
    written = {path for record in records for path in _leaves(flow_of(record))}
    assert written <= LEAVES


def _leaves(value: Mapping[str, object], start: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _leaves(item, f"{start}{key}.")
        else:
            yield f"{start}{key}"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "flows.json"
    path.write_text(f"{json.dumps(line())}\n{json.dumps(line('FORWARDED'))}\n")
    return path


def test_json_and_yaml_say_the_same_and_other_forms_refuse_a_mask(
    ringfence: Run, recorded: Path
) -> None:
    asked = ("observe", "--input-file", str(recorded), "--field-mask", "verdict,source.ID")
    told = [json.loads(text) for text in ringfence(*asked, "-o", "json").stdout.splitlines()]
    assert [item["flow"] for item in told] == [
        {"verdict": verdict, "source": {"ID": 12}} for verdict in ("DROPPED", "FORWARDED")
    ]
    assert list(yaml.safe_load_all(ringfence(*asked, "-o", "yaml").stdout)) == told
    for form in ("compact", "dict", "table"):
        refused = ringfence(*asked, "-o", form)
        assert refused.returncode == 2
        assert f"--field-mask leaves too little for -o {form}" in refused.stderr
