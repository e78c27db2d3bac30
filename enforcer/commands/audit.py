"""`ringfence audit report`: what would be dropped, as a table or as grants for the tenant file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from enforcer.commands.options import ask, run_dir_option
from enforcer.commands.printing import emit, no_headers_option, picked, table
from generators.documents.json import integer, mapping, mappings, text
from generators.output import TABLE, output_option, structured

Json = Mapping[str, object]
GRANTABLE = ("TCP", "UDP", "SCTP")
HEADS = ("WORKLOAD", "DIRECTION", "PEER", "TENANT", "PORT", "PROTO", "REFUSED BY", "AT", "FLOWS")
FIELDS = ("subject", "direction", "peer", "peerTenant", "port", "protocol", "by", "source", "flows")
COUNTED = ("POD", "DIRECTION", "REASON", "REFUSED BY", "PACKETS", "BYTES")
COUNTED_FIELDS = ("pod", "direction", "reason", "by", "packets", "bytes")


@click.group()
def audit() -> None:
    """What is only reported, where a tenant file or a namespace says `audit`."""


@audit.command("report")
@click.option("--grants", is_flag=True, help="Print the grants of a tenant file that would let in.")
@run_dir_option
@output_option
@no_headers_option
def report(run_dir: Path, grants: bool, output: str, no_headers: bool) -> None:
    """List what would be dropped: who, whom, which port, and who would refuse."""
    found = ask(run_dir, {"command": "audit"})
    flows, totals = mappings(found.get("flows")), mappings(found.get("totals"))
    if grants:
        form = "yaml" if output == TABLE else output
        click.echo(structured(granting(flows), form), nl=False)
        return

    def listed() -> str:
        if not flows and not totals:
            return "No audited packet would be dropped.\n"
        seen = table((*HEADS, "LAST SEEN"), _rows(flows), headers=not no_headers)
        exact = table(COUNTED, picked(totals, COUNTED_FIELDS), headers=not no_headers)
        return f"{seen}{_missing(found)}\n{exact}"

    emit(output, found, listed)


def granting(flows: Iterable[Json]) -> Json:
    """Both halves of each grant that the wall missed, as `tenants` of a tenant file.

    A port that was not told apart from others becomes every port of its protocol.
    """
    ports: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for flow in flows:
        owner, peer = text(flow.get("subjectTenant")), text(flow.get("peerTenant"))
        protocol = text(flow.get("protocol"))
        inward = flow.get("direction") == "INGRESS"
        if inward and owner and peer and owner != peer and protocol in GRANTABLE:
            ports[owner, peer].add((protocol, integer(flow.get("port")) or 0))
    tenants: dict[str, dict[str, list[Json]]] = {}
    for (owner, peer), found in sorted(ports.items()):
        listed = [
            {"protocol": protocol} | ({"port": port} if port else {})
            for protocol, port in sorted(found)
            if not port or (protocol, 0) not in found
        ]
        for tenant, side, other in ((owner, "allowFrom", peer), (peer, "allowTo", owner)):
            consents = tenants.setdefault(tenant, {}).setdefault(side, [])
            consents.append({"tenant": other, "ports": listed})
    return {"tenants": [{"name": name, **sides} for name, sides in sorted(tenants.items())]}


def _rows(flows: Iterable[Json]) -> Iterable[list[object]]:
    for flow in flows:
        yield [*(flow.get(key) for key in FIELDS), f"{text(flow.get('lastSeen'))[:19]}Z"]


def _missing(found: Json) -> str:
    """What the list cannot hold, in a line each."""
    forgotten = mapping(found, "forgotten")
    lines = [
        f"{count} flows had no room in this list ({name or 'of no tenant'})."
        for name, count in sorted(forgotten.items())
    ]
    if lost := integer(found.get("lost")):
        lines.append(
            f"{lost} events were lost since the programs were loaded: "
            "a peer may be missing above; the packets below are complete."
        )
    return "".join(f"{line}\n" for line in lines)
