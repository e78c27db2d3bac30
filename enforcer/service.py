"""What the agent answers on its control socket: status, endpoints, flows, and "is it in force?"."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping

from enforcer.agent import Settings
from enforcer.control import Line, Request
from enforcer.feed import Feed
from enforcer.maps import CAPACITY, Maps, Table
from enforcer.state import Board, State
from enforcer.tables import AddressEntry, EndpointEntry, EndpointFlag, Tables
from generators.objects import Pod
from generators.tenants.model import Mode

DEFAULT_LAST = 20
MAX_WAIT = 600.0


class Service:
    """Answers requests from the board, the feed and the kernel's counters."""

    def __init__(self, settings: Settings, board: Board, feed: Feed, maps: Maps) -> None:
        self._settings = settings
        self._board = board
        self._feed = feed
        self._maps = maps

    def respond(self, request: Request) -> Iterable[Line]:
        """The answer lines to one request."""
        commands: Mapping[str, Callable[[Request], Iterable[Line]]] = {
            "status": lambda _: [self._status()],
            "endpoints": lambda _: [{"endpoints": endpoint_list(self._board.state)}],
            "wait": lambda asked: [self._wait(asked)],
            "flows": self._flows,
        }
        command = commands.get(str(request["command"]))
        if command is None:
            known = ", ".join(sorted(commands))
            return [{"error": f"no command {request['command']!r}; there are {known}"}]
        return command(request)

    def _status(self) -> Mapping[str, object]:
        state = self._board.state
        lost = self._maps.lost()
        return {
            "node": self._settings.node,
            "pid": os.getpid(),
            "ready": state.ready,
            "revision": state.revision,
            "mode": state.mode.value if state.mode is not None else None,
            "manifests": state.seen_manifests,
            "config": state.seen_config,
            "errors": dict(sorted(state.errors.items())),
            "endpoints": len(state.tables.endpoints),
            "notEnforced": not_enforced(state),
            "attached": _counts(state.attached.values()),
            "maps": {
                table.value: {"entries": entries(state.tables, table), "capacity": CAPACITY[table]}
                for table in Table
            },
            "flows": {"read": self._feed.count, "lost": lost.events},
            "pinDir": str(self._settings.pin_dir),
        }

    def _wait(self, request: Request) -> Mapping[str, object]:
        manifests, config = request.get("manifests"), request.get("config")
        timeout = request.get("timeout")
        seconds = min(float(timeout), MAX_WAIT) if isinstance(timeout, int | float) else 0.0

        def settled(state: State) -> bool:
            return (
                state.seen_manifests == manifests
                and config in (None, state.seen_config)
                and (state.ready or bool(state.errors))
            )

        state = self._board.wait(settled, seconds)
        if state is None:
            seen = self._board.state
            return {
                "error": f"not in force after {seconds:g} s; the agent has seen "
                f"manifests {seen.seen_manifests} and config {seen.seen_config}"
            }
        awaited = {"manifests", "datapath"} | ({"config"} if config is not None else set())
        errors = [error for source, error in sorted(state.errors.items()) if source in awaited]
        if errors:
            return {"error": "\n".join(errors)}
        return {"revision": state.revision, "notEnforced": not_enforced(state)}

    def _flows(self, request: Request) -> Iterator[bytes]:
        last = request.get("last", DEFAULT_LAST)
        count = last if isinstance(last, int) else DEFAULT_LAST
        if request.get("follow"):
            yield from (line.data if line is not None else b"" for line in self._feed.follow(count))
        else:
            yield from (line.data for line in self._feed.last(count))


def entries(tables: Tables, table: Table) -> int:
    """How many entries a map has."""
    held: Mapping[Table, int] = {
        Table.POLICY: len(tables.policy),
        Table.RANGES: len(tables.ranges),
        Table.CIDRS: len(tables.cidrs),
        Table.SERVICES: len(tables.services),
        Table.ADDRESSES: len(tables.addresses),
        Table.ENDPOINTS: len(tables.endpoints),
    }
    return held[table]


def not_enforced(state: State) -> list[Mapping[str, str]]:
    """The local pods that are not enforced, and why."""
    found: list[Mapping[str, str]] = []
    for key, reason in sorted(state.unenforced.items()):
        namespace, _, name = key.partition("/")
        found.append({"namespace": namespace, "pod": name, "reason": reason})
    return found


def endpoint_list(state: State) -> list[Mapping[str, object]]:
    """The endpoints in force, by id."""
    found = [
        _endpoint(state, ifindex, entry, state.pods[ifindex])
        for ifindex, entry in state.tables.endpoints.items()
        if ifindex in state.pods
    ]
    return sorted(found, key=lambda e: str(e["id"]).zfill(10))


def _endpoint(state: State, ifindex: int, entry: EndpointEntry, pod: Pod) -> Mapping[str, object]:
    address = next(iter((*entry.ip4, *entry.ip6)), "")
    labels = [f"k8s:{key}={value}" for key, value in sorted(pod.labels.items())]
    return {
        "id": entry.endpoint,
        "namespace": pod.namespace,
        "pod": pod.name,
        "tenant": state.tenants.get(pod.namespace),
        "identity": state.tables.addresses.get(address, AddressEntry(0)).identity,
        "policy": {
            "ingress": _enforcement(entry, EndpointFlag.ISOLATED_INGRESS, state.mode),
            "egress": _enforcement(entry, EndpointFlag.ISOLATED_EGRESS, None),
        },
        "labels": [*labels, f"k8s:io.kubernetes.pod.namespace={pod.namespace}"],
        "ipv6": next(iter(entry.ip6), None),
        "ipv4": next(iter(entry.ip4), None),
        "status": "not-ready" if pod.key in state.unenforced else "ready",
        "ifindex": ifindex,
        "attached": state.attached.get(ifindex),
        "group": entry.group,
        "wall": entry.wall,
        "generation": entry.generation,
    }


def _enforcement(entry: EndpointEntry, isolated: EndpointFlag, wall: Mode | None) -> str:
    if isolated in entry.flags:
        return "Enabled"
    if wall is None or EndpointFlag.WALL not in entry.flags:
        return "Disabled"
    return "Disabled (Audit)" if EndpointFlag.WALL_AUDIT in entry.flags else "Enabled"


def _counts(values: Iterable[str]) -> Mapping[str, int]:
    listed = list(values)
    return {value: listed.count(value) for value in sorted(set(listed))}
