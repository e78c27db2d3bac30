"""Which answer belongs to which request on the control socket; the answers are in answers/.

An invalid request is answered with its error, and no answer can stop the agent's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from enforcer.agent.settings import AgentSettings
from enforcer.agent.state import Board, NodeState
from enforcer.answers import audit, datapath, endpoints, listing, policies, status
from enforcer.answers.control import MOST_CONNECTIONS, Line, Request
from enforcer.answers.counts import Counts
from enforcer.answers.identities import Identities
from enforcer.answers.journal import EndpointLog
from enforcer.answers.proving import prove
from enforcer.answers.request import endpoint_of, seconds
from enforcer.answers.tracing import live_trace
from enforcer.datapath.maps import Maps
from enforcer.observe.feed import REMEMBERED, Feed
from generators.documents.json import shown
from generators.errors import RingfenceError

DEFAULT_LAST = 20
MAX_WAIT = 600.0

Answer = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Sources:
    """All that answers are made of."""

    settings: AgentSettings
    board: Board
    feed: Feed
    maps: Maps
    counts: Counts
    journal: EndpointLog


class AgentService:
    """Answers requests."""

    def __init__(self, sources: Sources) -> None:
        self._of = sources
        self._commands: Mapping[str, Callable[[Request], Answer]] = {
            "status": lambda _: self._status(),
            "endpoints": lambda _: {"endpoints": endpoints.endpoint_list(self._state)},
            "endpoint": self._endpoint,
            "endpoint-log": self._endpoint_log,
            "endpoint-health": lambda asked: endpoints.endpoint_health(
                self._state, shown(asked, "endpoint")
            ),
            "identities": self._identities,
            "policies": lambda asked: policies.policy_get(self._state, shown(asked, "policy")),
            "policy-wait": self._policy_wait,
            "selectors": lambda _: policies.policy_selectors(self._state),
            "bpf": self._bpf,
            "trace": lambda asked: live_trace(
                asked, self._state, sources.maps, sources.settings.node
            ),
            "prove": lambda asked: prove(
                shown(asked, "node"),
                lambda: self._state,
                sources.maps,
                sources.settings.node,
            ),
            "audit": lambda _: self._audit(),
            "nodes": lambda _: {
                "nodes": listing.nodes(sources.settings.node, self._state, sources.feed)
            },
            "namespaces": lambda _: {
                "namespaces": listing.namespaces(sources.feed.last(REMEMBERED))
            },
            "wait": self._wait,
        }

    @property
    def _state(self) -> NodeState:
        return self._of.board.state

    def respond(self, request: Request) -> Iterable[Line]:
        """The answer lines to one request."""
        if request["command"] == "flows":
            return self._flows(request)
        if request["command"] == "bpf" and request.get("table") == "ct":
            return self._tracked(request)
        command = self._commands.get(str(request["command"]))
        if command is None:
            known = ", ".join(sorted((*self._commands, "flows")))
            return [{"error": f"no command {request['command']!r}; there are {known}"}]
        try:
            return [command(request)]
        except RingfenceError as error:
            return [{"error": str(error), "exitCode": error.exit_code}]

    def _status(self) -> Answer:
        return status.status(self._of.settings, self._state, self._of.feed, self._of.maps)

    def _endpoint(self, request: Request) -> Answer:
        return endpoints.endpoint_get(
            self._state,
            shown(request, "endpoint"),
            self._of.settings.node,
            self._of.maps.statistics(),
            self._of.maps.adoption(),
        )

    def _endpoint_log(self, request: Request) -> Answer:
        name = shown(request, "endpoint")
        lines = self._of.journal.of(name)
        if not lines:
            _, _, pod = endpoint_of(self._state, name)
            lines = self._of.journal.of(pod.key)
        return {"log": lines}

    def _identities(self, request: Request) -> Answer:
        identities = Identities(self._state)
        name = shown(request, "identity")
        return identities.one(name) if name else {"identities": identities.every()}

    def _policy_wait(self, request: Request) -> Answer:
        revision = request.get("revision")
        wanted = revision if isinstance(revision, int) else self._state.revision
        return policies.policy_wait(self._of.board, wanted, seconds(request, MAX_WAIT))

    def _bpf(self, request: Request) -> Answer:
        maps, state, name = self._of.maps, self._state, shown(request, "endpoint")
        tables: Mapping[str, Callable[[], list[Answer]]] = {
            "policy": lambda: datapath.policy_entries(maps, state, name),
            "ipcache": lambda: datapath.addresses(maps, state),
            "endpoint": lambda: datapath.endpoints(maps, state),
            "metrics": lambda: datapath.metrics(self._of.counts.totals()),
            "diff": lambda: datapath.drift(maps, lambda: self._state),
        }
        table = shown(request, "table")
        if table not in tables:
            known = ", ".join(sorted((*tables, "ct")))
            return {"error": f"no table {table!r}; there are {known}"}
        return {"entries": tables[table]()}

    def _tracked(self, request: Request) -> Iterator[Answer]:
        limit = request.get("limit")
        count = limit if isinstance(limit, int) else MOST_CONNECTIONS
        name = shown(request, "endpoint")
        try:
            yield from datapath.connections(self._of.maps, self._state, name, count)
        except RingfenceError as error:
            yield {"error": str(error), "exitCode": error.exit_code}

    def _audit(self) -> Answer:
        kinds, forgotten = self._of.feed.audited()
        return audit.report(
            self._state,
            self._of.settings.node,
            kinds,
            forgotten,
            self._of.maps.lost().events,
            self._of.maps.statistics(),
        )

    def _wait(self, request: Request) -> Answer:
        manifests, config = request.get("manifests"), request.get("config")
        patience = seconds(request, MAX_WAIT)

        def settled(state: NodeState) -> bool:
            return (
                state.seen_manifests == manifests
                and config in (None, state.seen_config)
                and (state.ready or bool(state.errors))
            )

        state = self._of.board.wait(settled, patience)
        if state is None:
            seen = self._state
            return {
                "error": f"not in force after {patience:g} s; the agent has seen "
                f"manifests {seen.seen_manifests} and config {seen.seen_config}"
            }
        awaited = {"manifests", "datapath"} | ({"config"} if config is not None else set())
        errors = [error for source, error in sorted(state.errors.items()) if source in awaited]
        if errors:
            return {"error": "\n".join(errors)}
        return {"revision": state.revision, "notEnforced": endpoints.not_enforced(state)}

    def _flows(self, request: Request) -> Iterator[bytes]:
        last = request.get("last", DEFAULT_LAST)
        count = last if isinstance(last, int) else DEFAULT_LAST
        feed = self._of.feed
        if request.get("follow"):
            yield from (line.data if line is not None else b"" for line in feed.follow(count))
        else:
            yield from (line.data for line in feed.last(count))
