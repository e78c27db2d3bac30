"""The CNI side of the agent's process, put together: socket, configuration, namespaces.

The socket always exists, so that a node that runs the plugin itself needs no directories; only the
node's configuration and the file of namespaces do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from enforcer.agent.attachments import Attachments
from enforcer.agent.settings import AgentSettings
from enforcer.agent.state import Board
from enforcer.agent.supervise import Report
from enforcer.cni import install, namespaces
from enforcer.cni.plugin import Plugin
from enforcer.cni.server import cni_server
from generators.errors import RingfenceError


class HalfPlaces(RingfenceError):
    """Only one of the plugin's two directories was given."""

    exit_code = 2

    def __init__(self) -> None:
        super().__init__("--cni-conf-dir and --cni-bin-dir go together; give both, or neither")


def places(
    conf_dir: Path | None, bin_dir: Path | None, run_dir: Path
) -> install.PluginPlaces | None:
    """The plugin's places on the node; None without directories. One alone is an error."""
    if conf_dir is None and bin_dir is None:
        return None
    if conf_dir is None or bin_dir is None:
        raise HalfPlaces
    return install.PluginPlaces(conf_dir.absolute(), bin_dir.absolute(), run_dir.absolute())


@contextmanager
def running(
    settings: AgentSettings,
    pins: Path,
    board: Board,
    attachments: Attachments,
    report: Report,
) -> Iterator[None]:
    """Answer CNI calls, and keep the plugin on the node, until the block ends."""
    strictness = namespaces.Strictness(board, configured=settings.config is not None)
    plugin = Plugin(pins, board, attachments, settings.start_mode, strictness.is_strict)
    found = places(settings.cni_conf_dir, settings.cni_bin_dir, settings.run_dir)
    stop = threading.Event()
    with ExitStack() as stack:
        server = cni_server(settings.run_dir, plugin.answer)
        server.start()
        stack.callback(server.stop)
        if found is not None:
            joined = install.PluginKeeper(found, report)
            written = namespaces.NamespaceKeeper(found.namespaces, strictness, board, report)
            written.start()  # first: what it writes is asked for as soon as the plugin is there
            joined.start()
            for run, wake in ((joined.run, joined.wake), (written.run, None)):
                start(stack, stop, run, wake)
        yield


def start(
    stack: ExitStack,
    stop: threading.Event,
    run: Callable[[threading.Event], None],
    wake: Callable[[], None] | None = None,
) -> None:
    """Run something in a thread that ends with the stack; `wake` has it look at `stop` at once."""
    thread = threading.Thread(target=run, args=(stop,), daemon=True)
    thread.start()
    stack.callback(thread.join)
    if wake is not None:
        stack.callback(wake)
    stack.callback(stop.set)
