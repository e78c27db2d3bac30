"""The agent's process: its parts put together, from the first look at the machine to SIGTERM."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from enforcer.agent.attachments import Attachments
from enforcer.agent.collector import Collector
from enforcer.agent.delays import Bootstrap
from enforcer.agent.loop import Agent, AgentParts
from enforcer.agent.neighbourhood import Neighbourhood
from enforcer.agent.own_addresses import addresses, tunnels
from enforcer.agent.settings import AgentSettings, exclusive
from enforcer.agent.state import Board
from enforcer.agent.watcher import Watcher
from enforcer.answers import access_log, scrape
from enforcer.answers.control import control_server
from enforcer.answers.counts import Counts, TenantsOf
from enforcer.answers.journal import EndpointLog
from enforcer.answers.metrics import Observed
from enforcer.answers.service import AgentService, Sources
from enforcer.cni.running import running as answering_cni
from enforcer.cni.running import start as start_thread
from enforcer.datapath import attach, loader
from enforcer.datapath.flows import FlowReader
from enforcer.datapath.maps import Maps
from enforcer.http import envoy
from enforcer.http.proxy import Proxy
from enforcer.observe.audited import Audited
from enforcer.observe.contexts import Contexts
from enforcer.observe.feed import Feed
from enforcer.sources.supply import Supply
from enforcer.sources.tenants import AgentTenants
from generators.process import logs, memory, signals
from generators.tenants.last_good import LastGood

if TYPE_CHECKING:
    from generators.kube.client import Client

log = logging.getLogger("ringfence.enforcer")

EVENTS_OF_A_SENDER = 1000
"""Per second: the excess is counted, and hides no other flows."""


def run(
    settings: AgentSettings,
    scraped_at: tuple[str, int] | None = None,
    contexts: Contexts | None = None,
) -> None:
    """Enforce until SIGTERM or SIGINT; what is in force then stays in force.

    Removed pins are not the end: the process restarts with programs of its own.
    """
    logs.configure()
    memory.share_arenas()
    try:
        _enforce(settings, scraped_at, contexts)
    except attach.PinsGone as error:
        logs.event(log, "begins_anew", logging.ERROR, error=str(error))
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  the same command


def _enforce(
    settings: AgentSettings, scraped_at: tuple[str, int] | None, contexts: Contexts | None
) -> None:
    stop = threading.Event()
    supply = _supply(settings)
    with ExitStack() as stack:
        stack.enter_context(exclusive(settings))
        bootstrap = Bootstrap()
        pins = loader.ensure_loaded(settings.pin_dir, settings.map_sizes)
        bootstrap.reached("programs")
        maps = stack.enter_context(Maps.open(pins))
        maps.idle_tcp = settings.tcp_idle_seconds
        maps.share_events(EVENTS_OF_A_SENDER)
        reader = stack.enter_context(FlowReader.open(pins))
        board = Board()
        audited = Audited(settings.run_dir)
        feed = Feed(board, settings.node, lambda: maps.lost().events, contexts, audited)
        counts = Counts(maps, TenantsOf(board))
        told = board.state
        attachments = Attachments(settings.run_dir)
        proxy = _proxy(stack, settings, pins, feed, lambda: agent.wake())
        agent = Agent(
            settings,
            AgentParts(
                supply,
                maps,
                pins,
                board,
                attachments,
                Collector(maps.collect, counts.forget, told.tally, told.delays),
                proxy,
            ),
        )

        def end() -> None:
            stop.set()
            agent.wake()

        signals.on_end(end)
        journal = EndpointLog(board, bootstrap)
        sources = Sources(settings, board, feed, maps, counts, journal)
        server = control_server(settings.run_dir, AgentService(sources).respond)
        if scraped_at is not None:
            scrape.serve(Observed(board, maps, counts, feed, bootstrap), *scraped_at)
        threading.Thread(target=journal.run, args=(stop,), daemon=True).start()
        reading = threading.Thread(target=feed.run, args=(reader, stop))
        reading.start()
        stack.callback(reading.join)
        stack.callback(stop.set)
        server.start()
        stack.callback(server.stop)
        stack.enter_context(answering_cni(settings, pins, board, attachments, agent.report))
        start_thread(stack, threading.Event(), proxy.run)
        for look in _lookouts(settings, agent, board, pins, maps):
            start_thread(stack, threading.Event(), look)
        logs.event(log, "agent_started", node=settings.node, pins=str(pins))
        agent.run(stop)
        logs.event(log, "agent_stopped", revision=board.state.revision)


def _proxy(
    stack: ExitStack, settings: AgentSettings, pins: Path, feed: Feed, changed: Callable[[], None]
) -> Proxy:
    """The proxy of HTTP rules, and its access log as flows."""
    proxy = Proxy(settings.run_dir, pins, settings.envoy or envoy.find(), changed)
    stack.callback(proxy.close)
    stack.enter_context(access_log.listening(proxy.directory, feed.add_requests))
    return proxy


def _lookouts(
    settings: AgentSettings, agent: Agent, board: Board, pins: Path, maps: Maps
) -> Iterator[Callable[[threading.Event], None]]:
    """What looks out for changes on the node, each in a thread of its own until told to stop."""
    yield addresses(agent.have_addresses, agent.report).run
    yield tunnels(
        lambda own: maps.lead_to_tunnels({*own, *settings.tunnel_ports}), agent.report
    ).run
    neighbourhood = Neighbourhood(
        pins, lambda: board.state.attached, agent.have_neighbours, agent.report
    )
    neighbourhood.look()
    yield neighbourhood.run
    if settings.manifests is None:
        yield _notices(settings, board)
    if settings.watch_interfaces:
        yield Watcher(pins, settings.watch_interfaces, agent.look_around, agent.report).run


def _supply(settings: AgentSettings) -> Supply:
    """Manifests where a directory is given, else an API server; what is not used is not loaded."""
    tenants = AgentTenants(settings.config, LastGood(settings.run_dir))
    if settings.manifests is not None:
        from enforcer.sources.manifests import ManifestSupply

        return ManifestSupply(settings.manifests, tenants)
    from enforcer.sources.api import ApiSupply

    return ApiSupply(_client(settings), settings.node, tenants, settings.system_namespace)


def _notices(settings: AgentSettings, board: Board) -> Callable[[threading.Event], None]:
    """Reports to the API server what found no room, until stopped."""
    from enforcer.agent.notices import Notices

    return Notices(board, _client(settings), settings.node).run


def _client(settings: AgentSettings) -> Client:
    from generators.kube.client import Client

    return Client.connect(settings.kubeconfig, user_agent="ringfence-enforcer")
