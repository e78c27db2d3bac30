"""What goes wrong while the cluster is busy: each fault lasts seconds and is over when it returns.

None of them touches a generated object, so none of them is a reason for a Warning.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from http import HTTPStatus

from tests.generators.kube.proxy import refusal
from tests.lab.builders import namespace
from tests.soak.ground import NODES, Ground, tenants
from tests.testbed.waiting import eventually

TIMEOUT = refusal(HTTPStatus.GATEWAY_TIMEOUT, "Timeout")
READS = ("GET",)


class Faults:
    """All of them, by name."""

    def __init__(self, ground: Ground, chance: random.Random) -> None:
        self._ground = ground
        self._chance = chance
        self._files = 0
        self.all: dict[str, Callable[[], None]] = {
            "connections reset": self._resets,
            "requests answered by 504": self._refusals,
            "writes carried out and answered by 504": self._late_answers,
            "connections half open": self._half_open,
            "tenant file changed": self._another_file,
            "tenant file broken for a moment": self._broken_file,
            "API server killed": self._api_server_killed,
            "API server frozen": self._api_server_frozen,
            "leader frozen": self._leader_frozen,
            "standby killed": self._standby_killed,
            "webhook killed": self._webhook_killed,
            "agent of node 2 killed": self._agent_killed,
        }

    def _resets(self) -> None:
        for _ in range(8):
            for proxy in self._ground.proxies:
                proxy.cut()
            time.sleep(self._chance.uniform(0.2, 2))

    def _refusals(self) -> None:
        """A third of everything."""
        for proxy in self._ground.proxies:
            proxy.answer = lambda _: TIMEOUT if self._chance.random() < 0.3 else None
        time.sleep(15)
        for proxy in self._ground.proxies:
            proxy.answer = lambda _: None

    def _late_answers(self) -> None:
        """Half of the controller's writes: it must not take its own work for somebody else's."""
        proxy = self._ground.proxies[0]
        proxy.late = lambda method, _: (
            TIMEOUT if method not in READS and self._chance.random() < 0.5 else None
        )
        self._another_file()
        time.sleep(20)
        proxy.late = lambda _, __: None

    def _half_open(self) -> None:
        for proxy in self._ground.proxies:
            proxy.freeze()
        time.sleep(10)

    def _another_file(self) -> None:
        self._files += 1
        self._write(tenants(self._files))

    def _broken_file(self) -> None:
        self._write("labelKey: [")
        time.sleep(5)
        self._write(tenants(self._files))

    def _api_server_killed(self) -> None:
        self._ground.plane.stop_apiserver()
        time.sleep(self._chance.uniform(1, 8))
        self._ground.plane.start_apiserver()

    def _api_server_frozen(self) -> None:
        server = self._ground.plane.child("kube-apiserver")
        server.pause()
        time.sleep(self._chance.uniform(5, 40))
        server.resume()

    def _leader_frozen(self) -> None:
        """Long enough for the other one to lead; both then think that they do."""
        leader = self._ground.leader()
        if leader is None:
            return
        os.kill(leader.pid, signal.SIGSTOP)
        time.sleep(25)
        os.kill(leader.pid, signal.SIGCONT)

    def _standby_killed(self) -> None:
        controllers = self._ground.controllers
        old = self._ground.standby()
        old.kill()
        controllers[controllers.index(old)] = self._ground.controller()

    def _webhook_killed(self) -> None:
        self._ground.webhook.kill()
        time.sleep(2)
        self._ground.webhook = self._ground.cluster.webhook()

    def _agent_killed(self) -> None:
        pid = self._ground.agent(NODES).get("pid")
        if isinstance(pid, int):
            os.kill(pid, signal.SIGKILL)
        applied = lambda: self._ground.lab.apply(namespace("still-there")).returncode == 0  # noqa: E731
        eventually(applied, "the lab starts what was killed", poll=1)

    def _write(self, text: str) -> None:
        """As an editor does it: a new file in place of the old one."""
        file = self._ground.cluster.tenants
        beside = file.with_suffix(".new")
        beside.write_text(text)
        beside.replace(file)
