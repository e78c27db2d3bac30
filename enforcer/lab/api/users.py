"""What a user does to a lab on an API server: kubectl's work, by kubectl.

`lab apply` and `lab delete` go to the API server as whoever asks (impersonation), so what RBAC,
admission and validation say is printed as they say it. What may surprise: a pod is refused until
its namespace has a ServiceAccount, which takes a moment after the namespace was made; `apply` asks
again instead of leaving that to the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from enforcer.lab.admission import Requester
from enforcer.lab.api import assets
from enforcer.lab.changes import Report
from enforcer.lab.names import Places
from generators.errors import MachineLacks, Refused
from generators.kube.client import Client
from generators.kube.resources import PODS
from generators.live import POLICY_INPUTS, read_live, wanted_live
from generators.plan import Action, plan
from generators.tenants.model import TenantConfig

RACE = "error looking up service account"
SETTLE_SECONDS = 30.0
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


def settle(places: Places, config: TenantConfig | None) -> None:
    """Return when every pod runs and the controller has nothing left to do, within limits.

    A pod may be waiting for something that the lab knows nothing of, so being late is no error.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    with Client.connect(str(places.kubeconfig), user_agent="ringfence-lab") as client:
        while time.monotonic() < deadline:
            if _generated(places, config) and _all_run(client):
                return
            time.sleep(POLL_SECONDS)


def _generated(places: Places, config: TenantConfig | None) -> bool:
    if config is None:
        return True
    live = read_live(str(places.kubeconfig), POLICY_INPUTS)
    namespaces = {namespace.name: namespace for namespace in live.namespaces}
    changes = plan(wanted_live(config, live), namespaces, live.policies)
    return all(change.action is Action.KEEP for change in changes)


def _all_run(client: Client) -> bool:
    from enforcer.lab.api.workload import assigned

    pods = [item for document in client.list_all(PODS) if (item := assigned(document))]
    return all(item.ready or item.pod.terminal for item in pods)


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
    said = done.stderr.splitlines()
    warnings = [line for line in said if line.startswith("Warning:")]
    errors = [line for line in said if not line.startswith("Warning:")]
    if done.returncode != 0 and not errors:
        raise Refused(f"kubectl ended with {done.returncode} and said nothing")
    if done.returncode == 0:
        return Report(lines=lines, warnings=said)
    return Report(lines=lines, warnings=warnings, errors=errors)
