"""The bytes of C and Python are the same bytes, and their numbers the same numbers."""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from enum import IntFlag

import pytest

from enforcer.datapath import detour, flows, layout, loader
from enforcer.datapath.connections import TIMEOUTS, ConnectionFlag
from enforcer.policy.tables import (
    CAPACITY,
    CIDR_PLACE_SHIFT,
    FIRST_POD_IDENTITY,
    ICMP_PORT,
    IDENTITY_HOST,
    IDENTITY_REMOTE_NODE,
    IDENTITY_UNKNOWN,
    PEER_ANY,
    PEER_CIDR,
    PEER_PLACE,
    PEER_TENANT,
    RULE_DENY,
    RULE_REDIRECT,
    SERVICE_BACKENDS,
    AddressFlag,
    CidrFlag,
    Dir,
    EndpointFlag,
)
from generators.reachability.verdicts import VERDICTS, Verdict
from tests.bpf.veth import Veth

MIRRORS: dict[str, type[ctypes.Structure]] = {
    "endpoint": layout.Endpoint,
    "address_value": layout.AddressValue,
    "policy_key": layout.PolicyKeyBytes,
    "range_key": layout.Range,
    "rule_value": layout.RuleValue,
    "range_value": layout.RangeValue,
    "cidr_key": layout.Cidr,
    "cidr_value": layout.CidrValue,
    "service_key": layout.ServiceKeyBytes,
    "service_backend": layout.ServiceBackend,
    "service_value": layout.ServiceValue,
    "ct_key": layout.ConnectionKey,
    "ct_value": layout.ConnectionValue,
    "stats_key": layout.StatsKey,
    "stats_value": layout.StatsValue,
    "flow_event": layout.FlowEvent,
    "listener_value": detour.ListenerValue,
    "proxy_value": detour.ProxyValue,
    "resident_value": detour.ResidentValue,
}

PRINT_OFFSETS = """
import json, sys
from bcc import BPF
source, names = json.load(sys.stdin)
module = BPF(text=source)
result = {}
for name in names:
    leaf = module["layout_" + name].Leaf
    fields = [f[0] for f in leaf._fields_]
    result[name] = {f: [getattr(leaf, f).offset, getattr(leaf, f).size] for f in fields}
json.dump(result, sys.stdout)
"""

C_ENUM = re.compile(r"^\t(?P<name>[A-Z][A-Z0-9_]+) = (?P<value>\d+),", re.MULTILINE)


def c_enum(header: str, name: str) -> dict[str, int]:
    text = (loader.source_dir() / "lib" / header).read_text()
    match = re.search(rf"enum {name} \{{(?P<body>[^}}]*)\}}", text)
    assert match is not None
    body = match["body"].replace("{ ", "{\n\t").strip()
    return {m["name"]: int(m["value"]) for m in C_ENUM.finditer(f"\t{body},")}


@pytest.mark.bpf
def test_every_field_of_c_has_its_mirror_at_the_same_offset() -> None:
    source = loader.expand_source(loader.source_dir())
    for name in MIRRORS:
        source += f'BPF_TABLE("array", __u32, struct {name}, layout_{name}, 1);\n'
    done = subprocess.run(
        [sys.executable, "-c", PRINT_OFFSETS],
        input=json.dumps([source, list(MIRRORS)]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name, fields in json.loads(done.stdout).items():
        mirror = MIRRORS[name]
        assert fields == {
            f: [getattr(mirror, f).offset, getattr(mirror, f).size] for f, *_ in mirror._fields_
        }, name


@pytest.mark.bpf
def test_capacities_are_those_of_the_loaded_maps(veth: Veth) -> None:
    assert veth.maps.capacity() == CAPACITY


def test_every_reason_of_c_has_its_name_in_python() -> None:
    reasons = c_enum("drop_reasons.h", "reason")
    del reasons["FORWARD_NONE"]
    first = reasons.pop("DROP_FIRST")
    forwards = {n.removeprefix("FORWARD_"): v for n, v in reasons.items() if v < first}
    drops = {n.removeprefix("DROP_"): v for n, v in reasons.items() if v >= first}
    for name in ("EP_NOT_READY", "RATE_LIMITED"):  # as Hubble spells it
        drops[f"DROP_{name}"] = drops.pop(name)
    assert forwards == {r.name: int(r) for r in flows.ForwardReason}
    assert drops == {r.name: int(r) for r in flows.DropReason}


def test_verdicts_are_numbered_alike() -> None:
    numbers = c_enum("drop_reasons.h", "verdict")
    assert {n.removeprefix("VERDICT_"): v for n, v in numbers.items()} == {
        v.value: i for i, v in enumerate(VERDICTS)
    }
    assert set(VERDICTS) == set(Verdict)


@pytest.mark.parametrize(
    ("name", "prefix", "flags"),
    [
        ("endpoint_flag", "EP_", EndpointFlag),
        ("address_flag", "ADDR_", AddressFlag),
        ("cidr_flag", "CIDR_", CidrFlag),
        ("ct_flag", "CT_", ConnectionFlag),
        ("event_flag", "EVENT_", flows.EventFlag),
    ],
)
def test_flags_have_the_same_bits(name: str, prefix: str, flags: type[IntFlag]) -> None:
    numbers = c_enum("layout.h", name)
    assert {n.removeprefix(prefix): v for n, v in numbers.items()} == {
        f.name: int(f) for f in flags
    }


def test_connections_end_at_the_same_age() -> None:
    text = (loader.source_dir() / "lib" / "conntrack.h").read_text()
    told = re.findall(r"#define CT_TIMEOUT_(\w+) \((\d+) \* CT_SECOND\)", text)
    seconds = {name: int(value) for name, value in told}
    del seconds["FRAGMENT"]
    assert seconds == TIMEOUTS


def test_directions_identities_and_peers_are_numbered_alike() -> None:
    assert c_enum("types.h", "direction") == {f"DIR_{d.name}": int(d) for d in Dir}
    assert c_enum("layout.h", "identity") == {
        "IDENTITY_UNKNOWN": IDENTITY_UNKNOWN,
        "IDENTITY_HOST": IDENTITY_HOST,
        "IDENTITY_REMOTE_NODE": IDENTITY_REMOTE_NODE,
        "IDENTITY_FIRST_POD": FIRST_POD_IDENTITY,
    }
    text = (loader.source_dir() / "lib" / "layout.h").read_text()
    assert f"#define SERVICE_BACKENDS {SERVICE_BACKENDS}\n" in text
    numbers = re.findall(r"#define (\w+) \(?(\d+)U?(?: << (\d+)\))?", text)
    defined = {name: int(value) << int(shift or 0) for name, value, shift in numbers}
    wanted = {
        "PEER_ANY": PEER_ANY,
        "PEER_TENANT": PEER_TENANT,
        "PEER_CIDR": PEER_CIDR,
        "PEER_PLACE": PEER_PLACE,
        "CIDR_PLACE_SHIFT": CIDR_PLACE_SHIFT,
        "RULE_DENY": RULE_DENY,
        "RULE_REDIRECT": RULE_REDIRECT,
        "ICMP_PORT": ICMP_PORT,
    }
    assert {name: defined[name] for name in wanted} == wanted
