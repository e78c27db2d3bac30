"""From nothing to enforcement and back out: no packet is lost that `plan` had not named before.

Three clients run with policies and labels of their own. Conversations between their pods go on the
whole time; what each step loses is counted.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab.names import NETNS_ROOT
from lab.topology import lab_nodes
from tests.conftest import COMMAND, Run
from tests.lab.api.conversations import Conversation, echoing, settled, unanswered
from tests.lab.api.hollow import ApiLab, fresh_lab
from tests.testbed.waiting import eventually

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
SPACES = {
    "shop-acme": "{client: acme}",
    "db-acme": "{client: acme}",
    "shop-globex": "{client: globex}",
    "app-initech": "{client: initech}",
    "monitoring": "{team: ops}",
}
PODS = ("shop-acme/web", "db-acme/db", "shop-globex/web", "app-initech/api", "app-initech/db")
PROMETHEUS = "monitoring/prometheus"
POLICIES = """\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-acme, namespace: db-acme}
spec:
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {matchLabels: {client: acme}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: customers-and-metrics, namespace: shop-acme}
spec:
  podSelector: {}
  ingress:
  - from: [{namespaceSelector: {matchLabels: {client: globex}}}]
  - from: [{namespaceSelector: {matchLabels: {team: ops}}}]
"""
TALKS = {
    "within acme": ("shop-acme/web", "db-acme/db"),
    "metrics": (PROMETHEUS, "shop-acme/web"),
    "granted": ("shop-globex/web", "shop-acme/web"),
    "stray": ("shop-globex/web", "app-initech/api"),
    "within initech": ("app-initech/db", "app-initech/api"),
}
STRAY = frozenset({"stray"})


def _cluster() -> str:
    text = "".join(
        f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n"
        for name, labels in SPACES.items()
    )
    for key in (*PODS, PROMETHEUS):
        namespace, name = key.split("/")
        text += (
            f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
            "spec: {containers: [{name: main, image: example/main:1.0,"
            " ports: [{containerPort: 80}]}]}\n"
        )
    return text + POLICIES


class Walk:
    """A lab, its tenant file, and the conversations in it."""

    def __init__(self, lab: ApiLab, run: Run, folder: Path) -> None:
        self.lab = lab
        self._run = run
        self.file = folder / "tenants.yaml"
        self._stack = ExitStack()
        self.talks: dict[str, Conversation] = {}
        self._passing = frozenset(TALKS)

    @contextmanager
    def talking(self) -> Iterator[None]:
        held = self.lab.held()
        with self._stack as stack:
            for pod in sorted({destination for _, destination in TALKS.values()}):
                stack.enter_context(echoing(held[pod]))
            for name, (source, destination) in TALKS.items():
                talk = self.talks[name] = Conversation(held[source], held[destination])
                stack.callback(talk.end)
                talk.start()
            yield

    def step(self, act: Callable[[], object]) -> tuple[frozenset[str], frozenset[str]]:
        """Conversations that lost anything while and after `act`, and those that get answers."""
        before = unanswered(self.talks)
        act()
        passing = frozenset(name for name, passes in settled(self.talks).items() if passes)
        after = unanswered(self.talks)
        return frozenset(n for n in TALKS if after[n] > before[n]), passing

    def planned(self, text: str) -> tuple[frozenset[str], str]:
        """The conversations that `plan` says are cut by a tenant file, and all it says."""
        newer = self.file.with_name("newer.yaml")
        newer.write_text(text)
        kubeconfig = ("--kubeconfig", self.lab.places.kubeconfig)
        said = self._run("plan", "-c", newer, *kubeconfig).stdout
        pairs = set(re.findall(r"^cut: (\S+) -> (\S+) ", said, re.MULTILINE))
        return frozenset(n for n, pair in TALKS.items() if pair in pairs), said

    def follow(self, text: str) -> None:
        self.file.write_text(text)
        self.lab.ok("apply", "-c", self.file)

    def change(self, text: str) -> frozenset[str]:
        """Put a tenant file in force; who gets answers. What it cuts, `plan` has named."""
        named, said = self.planned(text)
        cut, passing = self.step(lambda: self.follow(text))
        assert cut & self._passing <= named, said
        self._passing = passing
        return passing

    def move(self, namespace: str, tenant: str) -> tuple[frozenset[str], frozenset[str]]:
        """An admin gives a namespace to another tenant by its label; as `step`."""

        def act() -> None:
            label = ("label", "--overwrite", "namespace", namespace, f"client={tenant}")
            self.lab.kubectl(*label, "--as", "ada", "--as-group", "system:masters")
            eventually(lambda: self._policy_names(namespace, tenant), f"{namespace} is {tenant}'s")
            self.lab.ok("apply", "-c", self.file)  # waits for the nodes

        cut, self._passing = self.step(act)
        return cut, self._passing

    def _policy_names(self, namespace: str, tenant: str) -> bool:
        policy = ("get", "networkpolicy", "allow-ingress-namespace", "-n", namespace, "-o", "json")
        return f'"client": "{tenant}"' in self.lab.kubectl(*policy)

    def uninstall(self) -> None:
        """As docs/operations.md and docs/install.md say: nodes, admission, what is kept."""
        kubeconfig = ("--kubeconfig", str(self.lab.places.kubeconfig))
        for node in lab_nodes(self.lab.places, 2):
            here = node.places
            self._end(here.enforcer)
            inside = ("nsenter", f"--net={NETNS_ROOT / here.netns}", str(COMMAND))
            pins = ("--pin-dir", str(here.pins))
            cni = ("--cni-conf-dir", str(here.cni_conf), "--cni-bin-dir", str(here.cni_bin))
            subprocess.run([*inside, "enforcer", "uninstall", *pins, *cni], check=True)
        for part in ("unregister", "forget"):
            if part == "forget":
                self._end("controller")
            assert self._run("controller", part, *kubeconfig).returncode == 0
        self._end("webhook")

    def _end(self, process: str) -> None:
        pid = self.lab.pid(process)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), f"{process} has ended")

    def isolated(self) -> set[str]:
        listed = self.lab.kubectl("get", "networkpolicies", "-A", "-o", "json")
        items = [item["metadata"] for item in json.loads(listed)["items"]]
        return {m["namespace"] for m in items if m["name"] == "allow-ingress-namespace"}


@pytest.fixture
def walk(programs: None, ringfence: Run, tmp_path: Path) -> Iterator[Walk]:
    with fresh_lab(ApiLab, ringfence) as lab:
        done = lab.up("--api-server", "--nodes", "2")
        assert done.returncode == 0, done.stderr
        lab.make(_cluster(), *PODS, PROMETHEUS)
        made = Walk(lab, ringfence, tmp_path)
        with made.talking():
            yield made


def test_a_running_cluster_is_adopted_and_left_without_a_packet_lost_that_no_plan_named(
    walk: Walk, ringfence: Run
) -> None:
    everyone = frozenset(TALKS)
    assert walk.step(lambda: None) == (frozenset(), everyone)

    # init: what runs today, as a tenant file.
    kubeconfig = ("--kubeconfig", walk.lab.places.kubeconfig)
    audit = ringfence("tenants", "init", "--from-label", "client", *kubeconfig).stdout
    named, said = walk.planned(audit)
    assert named == frozenset()
    assert "would be cut once audit ends: shop-globex/web -> app-initech/api 80/TCP" in said

    # audit: nothing is cut, nothing that isolates is written, what would be cut is reported.
    assert walk.change(audit) == everyone
    assert walk.isolated() == set()
    folders = [p for p in sorted(walk.lab.places.run.glob("enforcer-*")) if p.is_dir()]
    reports = [ringfence("audit", "report", "--run-dir", folder).stdout for folder in folders]
    told = "".join(reports)
    stray = [line for line in told.split("\n") if line.startswith("app-initech/api")]
    assert any("shop-globex/web" in x and "tenant/initech#wall" in x for x in stray), told
    assert "shop-acme" not in told

    # strict: what plan names, and nothing else.
    strict = audit.replace("mode: audit", "mode: strict")
    assert walk.planned(strict)[0] == STRAY
    assert walk.change(strict) == everyone - STRAY
    assert walk.isolated() == SPACES.keys() - {"monitoring"}

    # a namespace moves to another client, and back: for a moment its own pods may miss each other.
    its_own = STRAY | {"within initech"}
    for tenant, passing in (("globex", everyone), ("initech", everyone - STRAY)):
        lost, passes = walk.move("app-initech", tenant)
        assert (passes, lost - its_own) == (passing, frozenset())

    # a client comes; a grant; a client leaves.
    more = strict.replace(
        "tenants:\n", 'tenants:\n  - {name: umbra, namespaces: {suffixes: ["-umbra"]}}\n'
    )
    assert walk.change(more) == everyone - STRAY
    granted = _granted(more)
    assert walk.change(granted) == everyone
    left = more[: more.index('  - name: "initech"')]
    assert "tenant initech leaves the file" in walk.planned(left)[1]
    assert walk.change(left) == everyone - STRAY
    assert "app-initech" in walk.isolated()

    # back out: audit opens everything again, and removes what isolates.
    assert walk.change(audit) == everyone
    assert walk.isolated() == set()

    # gone: the policies that were there before are nobody's business but the next engine's.
    assert walk.step(walk.uninstall) == (frozenset(), everyone)
    listed = walk.lab.kubectl("get", "networkpolicies", "-A", "-o", "name")
    assert sorted(listed.split()) == [
        "networkpolicy.networking.k8s.io/customers-and-metrics",
        "networkpolicy.networking.k8s.io/from-acme",
    ]
    configurations = "validatingwebhookconfigurations,mutatingwebhookconfigurations"
    assert "ringfence" not in walk.lab.kubectl("get", configurations, "-o", "name")


def _granted(text: str) -> str:
    """Tenant globex may enter initech."""
    initech, globex = '  - name: "initech"\n', '  - name: "globex"\n'
    consent = "    allowFrom: [{tenant: globex}]\n"
    given = text.replace(initech, initech + consent)
    assert "    allowTo:\n" in given[given.index(globex) :]
    at = given.index("    allowTo:\n", given.index(globex)) + len("    allowTo:\n")
    return given[:at] + "      - {tenant: initech}\n" + given[at:]
