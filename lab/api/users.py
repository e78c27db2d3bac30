"""What a user does to a lab on an API server: kubectl's work, by kubectl.

`lab apply` and `lab delete` go to the API server as the acting user (impersonation), so the answers
of RBAC, admission and validation are printed unchanged. A pod is refused until its namespace has a
ServiceAccount, which takes a moment after the namespace was made; `apply` asks again instead of
leaving that to the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from enforcer.answers import control
from enforcer.datapath import loader
from enforcer.datapath.kernel import KernelError
from enforcer.datapath.maps import Maps
from generators.documents.json import strings
from generators.errors import MachineLacks, Refused
from generators.isolation.plan import Action, plan
from generators.kube.client import Client
from generators.kube.errors import NotFound
from generators.kube.resources import CONFIG_MAPS, PODS
from generators.labels import RECORD_NAMESPACE
from generators.live import POLICY_INPUTS, read_live, wanted_live
from generators.tenants.model import TenantConfig
from lab.admission import Requester
from lab.api import assets
from lab.api.workload import Assigned, assigned
from lab.backing import Report
from lab.names import NodePlaces, Places
from lab.parts import LabFailed
from lab.topology import LabNode, lab_nodes
from webhook.kept import STATUS_NAME

RACE = "error looking up service account"
NOT_WORTH_SAYING = "last-applied-configuration annotation which is required"
"""kubectl, about a namespace that API servers make themselves (kube-system); it adds what lacks."""
SETTLE_SECONDS = 30.0
AGENT_SECONDS = 10.0
"""How long an agent is given to read the tenant file before the rest is looked at again."""
POLL_SECONDS = 0.1
UNCHANGED = " unchanged"


def kubectl() -> Path:
    """The kubectl to use: that of the control plane's programs, else the one on PATH."""
    folder = assets.find()
    found = folder / "kubectl" if folder is not None else shutil.which("kubectl")
    if not found:
        raise MachineLacks("there is no kubectl", "install it, or " + assets.HOW)
    return Path(found)


def environment(places: Places) -> Mapping[str, str]:
    """So that kubectl finds the lab, and leaves nothing behind that the lab does not remove."""
    own = {"KUBECONFIG": str(places.kubeconfig), "KUBECACHEDIR": str(places.run / "kubectl-cache")}
    return os.environ | own


def apply(places: Places, paths: Sequence[str], requester: Requester) -> Report:
    """Apply files, folders and standard input; each object is taken or refused by itself."""
    done_by_object: dict[str, str] = {}
    given = sys.stdin.read() if "-" in paths else None
    deadline = time.monotonic() + SETTLE_SECONDS
    arguments = ("apply", "--recursive", *_files(paths))
    while True:
        done = _run(places, arguments, requester, given)
        for line in done.stdout.splitlines():
            name = line.partition(" ")[0]
            if name not in done_by_object or not line.endswith(UNCHANGED):
                done_by_object[name] = line
        if RACE not in done.stderr or time.monotonic() > deadline:
            return _report(done, list(done_by_object.values()))
        time.sleep(POLL_SECONDS)


def make(places: Places, text: str) -> None:
    """Apply objects of the lab's own; LabFailed with kubectl's words where one is refused."""
    done = _run(places, ("apply", "--filename", "-"), Requester(), text)
    if done.returncode != 0:
        raise LabFailed(f"objects of the lab cannot be applied: {done.stderr.strip()}")


def delete(
    places: Places, what: Sequence[str], paths: Sequence[str], requester: Requester
) -> Report:
    """Delete files' objects, or `KIND [NS/]NAME...`; returns when they are gone."""
    given = sys.stdin.read() if "-" in paths else None
    if paths:
        done = _run(places, ("delete", "--recursive", *_files(paths)), requester, given)
        return _report(done, done.stdout.splitlines())
    report = Report()
    for name in what[1:]:
        namespace, slash, own = name.rpartition("/")
        scope = ("--namespace", namespace) if slash else ()
        done = _run(places, ("delete", what[0], own, *scope), requester, None)
        one = _report(done, done.stdout.splitlines())
        report.lines += one.lines
        report.errors += one.errors
    return report


def settle(places: Places, config: TenantConfig | None, nodes: int) -> None:
    """Return when every pod runs, every node knows it, and the controller has nothing left to do.

    A pod may be waiting for something unknown to the lab, so being late is not an error.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    there = list(lab_nodes(places, nodes))
    names = {"", *(node.name for node in there)}
    with Client.connect(str(places.kubeconfig), user_agent="ringfence-lab") as client:
        while time.monotonic() < deadline:
            if _in_force(client, config, there) and _generated(places, config):
                pods = [item for item in _pods(client) if item.pod.node in names]
                known = all(_knows(node.places, pods) for node in there)
                if known and all(item.ready for item in pods):
                    return
            time.sleep(POLL_SECONDS)


def without_record(places: Places, nodes: int) -> list[str]:
    """What the nodes' agents report when no tenants are recorded."""
    found: set[str] = set()
    deadline = time.monotonic() + SETTLE_SECONDS
    for node in lab_nodes(places, nodes):
        status = control.ask(node.places.enforcer_run, {"command": "status"})
        while not status.get("ready") and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            status = control.ask(node.places.enforcer_run, {"command": "status"})
        errors = status.get("errors")
        if isinstance(errors, dict) and "record" in errors:
            found.add(str(errors["record"]))
    return sorted(found)


def _in_force(client: Client, config: TenantConfig | None, nodes: Sequence[LabNode]) -> bool:
    """Whether the controller has brought every namespace to this tenant file, and every node's
    agent has read it.
    """
    if config is None:
        return True
    try:
        status = strings(client.get(CONFIG_MAPS, STATUS_NAME, RECORD_NAMESPACE), "data")
    except NotFound:
        return False
    if (status.get("configDigest"), status.get("synchronized")) != (config.digest, "true"):
        return False
    request = {"command": "wait", "config": config.digest, "timeout": AGENT_SECONDS}
    return not any(control.ask(node.places.enforcer_run, request).get("error") for node in nodes)


def _generated(places: Places, config: TenantConfig | None) -> bool:
    if config is None:
        return True
    live = read_live(str(places.kubeconfig), POLICY_INPUTS)
    namespaces = {namespace.name: namespace for namespace in live.namespaces}
    changes = plan(wanted_live(config, live), namespaces, live.policies)
    return all(change.action is Action.KEEP for change in changes)


def _pods(client: Client) -> list[Assigned]:
    """The pods that should run."""
    found = [item for document in client.list_all(PODS) if (item := assigned(document))]
    return [item for item in found if not item.pod.terminal]


def _knows(node: NodePlaces, pods: Sequence[Assigned]) -> bool:
    """Whether the programs of a node can tell who the pods are, wherever they run."""
    try:
        pins = loader.find_loaded(node.pins)
        if pins is None:
            return False
        with Maps.open(pins) as maps:
            known = maps.read().addresses.keys()
    except KernelError:
        return False
    return all(ip in known for item in pods if not item.pod.host_network for ip in item.pod.ips)


def _files(paths: Sequence[str]) -> list[str]:
    return [word for path in paths for word in ("--filename", path)]


def _run(
    places: Places, arguments: Sequence[str], requester: Requester, given: str | None
) -> subprocess.CompletedProcess[str]:
    who: list[str] = []
    if requester != Requester():
        who = ["--as", requester.user]
        who += [word for group in requester.groups for word in ("--as-group", group)]
    return subprocess.run(
        [kubectl(), *arguments, *who],
        env=environment(places),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def _report(done: subprocess.CompletedProcess[str], lines: list[str]) -> Report:
    said = [line for line in done.stderr.splitlines() if NOT_WORTH_SAYING not in line]
    warnings = [line for line in said if line.startswith("Warning:")]
    errors = [line for line in said if not line.startswith("Warning:")]
    if done.returncode != 0 and not errors:
        raise Refused(f"kubectl ended with {done.returncode} and said nothing")
    if done.returncode == 0:
        return Report(lines=lines, warnings=said)
    return Report(lines=lines, warnings=warnings, errors=errors)
