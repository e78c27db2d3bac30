"""charts/ringfence on a real node, there and back: pods of images that follow our Dockerfiles."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from lab.api.real import programs
from tests.charts.cluster.rendered import CHART, SYSTEM
from tests.charts.helm import Helm, said
from tests.conftest import Run
from tests.images import archive, dockerfile
from tests.images.debian import Lacking
from tests.images.following import CHECKOUT, follow
from tests.lab.api.hollow import fresh_lab, skip_without
from tests.lab.api.real.nodes import RealLab, serving, told
from tests.testbed.waiting import ending, eventually, patience

pytestmark = [pytest.mark.bpf, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

IMAGES = {"ringfence": "ringfence", "enforcer": "ringfence-enforcer"}
"""Dockerfile -> the image's name in the chart."""
NEXT = "0.1.1"
"""The tag of an agent's image that differs."""
PINS = f"/sys/fs/bpf/ringfence-t-{token_hex(3)}"
VALUES: dict[str, object] = {
    "tenantFile": {
        "labelKey": "client",
        "mode": "strict",
        "admins": {"groups": ["system:masters"]},
        "tenants": [
            {"name": name, "namespaces": {"suffixes": [f"-{name}"]}} for name in ("red", "blue")
        ],
    },
    "webhook": {"replicas": 1, "drainSeconds": 1},
    "controller": {"replicas": 1, "settleSeconds": 1},
    # On this machine the bpf filesystem is not the node's alone.
    "enforcer": {"pinDir": PINS},
}
DAEMONS = ("-n", SYSTEM, "daemonset/ringfence-enforcer")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Archives of both images."""
    folder = tmp_path_factory.mktemp("images")
    found = []
    for suffix, name in IMAGES.items():
        work = folder / suffix
        work.mkdir()
        try:
            built = follow(
                dockerfile.read(CHECKOUT / f"images/Dockerfile.{suffix}"), CHECKOUT, work
            )
        except Lacking as lack:
            pytest.skip(str(lack))
        found.append(folder / f"{name}.tar")
        archive.write(built, f"docker.io/library/{name}:0.1.0", found[-1])
        if suffix == "enforcer":
            found.append(folder / "next.tar")
            (built.root / "etc" / "ringfence-next").touch()
            archive.write(built, f"docker.io/library/{name}:{NEXT}", found[-1])
    return found


@pytest.fixture(scope="module")
def node(ringfence: Run, images: list[Path]) -> Iterator[RealLab]:
    """A node without Ringfence, which has the images."""
    skip_without(programs.check)
    with fresh_lab(RealLab, ringfence) as lab:
        done = lab.up("--kubelet", "--bare")
        assert done.returncode == 0, done.stderr
        for image in images:
            lab.ok("load", str(image))
        yield lab
    shutil.rmtree(PINS, ignore_errors=True)  # of a test that failed on its way out


def helm(chosen: Helm, lab: RealLab, *words: str | Path) -> subprocess.CompletedProcess[str]:
    folders = {f"HELM_{kind}_HOME": str(chosen.home / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        [str(chosen.program), *map(str, words), "--namespace", SYSTEM],
        env={**os.environ, **folders, "KUBECONFIG": str(lab.places.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=patience(300),
        check=False,
    )


def succeeds(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, said(done)
    return done.stdout


def conflist(lab: RealLab) -> Path:
    (found,) = lab.places.run.glob("cni-*/net.d/*.conflist")
    return found


def test_installed_tested_used_and_taken_away(helm4: Helm, node: RealLab) -> None:
    before = conflist(node).read_bytes()
    node.kubectl("create", "namespace", SYSTEM)
    privileged = "pod-security.kubernetes.io/enforce=privileged"
    node.kubectl("label", "namespace", SYSTEM, privileged)
    values = helm4.values(VALUES)
    waits = ("--wait", "--timeout=180s")
    succeeds(helm(helm4, node, "install", "ringfence", CHART, *values, *waits))
    assert "Succeeded" in succeeds(helm(helm4, node, "test", "ringfence"))
    assert b'"ringfence-cni"' in conflist(node).read_bytes()
    _only_the_agent_is_more_than_restricted(node)

    red, blue = node.spaces("red", "blue")
    assert "client=red" in node.kubectl("get", "namespace", red, "--show-labels")
    pods = (f"{red}/web", f"{red}/friend", f"{blue}/other")
    node.make("".join(serving(pod) for pod in pods), *pods)
    target = f"{node.ip(f'{red}/web')}:80"
    assert node.asks(f"{red}/friend", target).startswith("web sees")
    assert node.asks(f"{blue}/other", target) == ""
    observed = node.kubectl(
        *("exec", *DAEMONS, "--", "ringfence", "observe", "--verdict", "DROPPED", "--last", "20")
    )
    assert "tenant/red#wall at /etc/ringfence/tenants/tenants.yaml:" in observed
    status = node.kubectl("exec", *DAEMONS, "--", "ringfence", "status")
    assert "Enforcement       OK" in status

    _upgraded_under_traffic(helm4, node, red, blue)

    refused = helm(helm4, node, "uninstall", "ringfence")
    assert refused.returncode != 0
    assert "still runs agents" in said(refused)
    assert node.asks(f"{blue}/other", target) == "", "nothing was changed"
    _the_way_out(helm4, node)
    assert conflist(node).read_bytes() == before
    eventually(lambda: node.asks(f"{blue}/other", target), "nothing is enforced any more")
    eventually(lambda: _left(node) == ["serviceaccount/default"], "its pods have ended", 60)


def _upgraded_under_traffic(helm4: Helm, node: RealLab, red: str, blue: str) -> None:
    """To another image, and to other programs: no connection is refused, cut or let in."""
    target = f"{node.ip(f'{red}/web')}:80"
    often = ("-every", "20ms", "-wait", "5s")
    with (
        ending(node.asking(f"{red}/friend", target, *often)) as anew,
        ending(node.asking(f"{red}/friend", target, "-keep", *often)) as kept,
        ending(node.asking(f"{blue}/other", target, "-wait", "500ms")) as foreign,
    ):
        before = _agent(node)
        for changed in (
            (f"enforcer.image.tag={NEXT}",),
            ("enforcer.mapSizes={cidr_map=131072}",),
        ):
            values = [word for value in changed for word in ("--set", value)]
            words = ("--reuse-values", *values, "--wait", "--timeout=180s")
            succeeds(helm(helm4, node, "upgrade", "ringfence", CHART, *words))
            node.kubectl("rollout", "status", *DAEMONS, "--timeout=50s")
            assert _agent(node) != before
            before = _agent(node)
        for asking in (anew, kept):
            answered, asked, wrong = told(asking)
            assert answered == asked > 100, wrong
        answered, asked, _ = told(foreign)
        assert asked > 5
        assert answered == 0
    assert "Enforcement       OK" in node.kubectl("exec", *DAEMONS, "--", "ringfence", "status")


def _agent(node: RealLab) -> str:
    """The agent's pod that runs."""
    words = ("-l", "app.kubernetes.io/component=enforcer", "--field-selector=status.phase=Running")
    return node.kubectl("get", "pods", "-n", SYSTEM, *words, "-o", "name").strip()


def _left(node: RealLab) -> list[str]:
    return node.kubectl("get", "all,serviceaccounts,secrets", "-n", SYSTEM, "-o", "name").split()


def _only_the_agent_is_more_than_restricted(node: RealLab) -> None:
    """What Pod Security would say; the root of each container cannot be written."""
    stricter = ("pod-security.kubernetes.io/enforce=restricted", "--overwrite", "--dry-run=server")
    warned = node.try_kubectl("label", "namespace", SYSTEM, *stricter).stderr
    named = {
        line.split()[1] for line in warned.splitlines() if line.startswith("Warning: ringfence-")
    }
    assert named
    assert all(name.startswith("ringfence-enforcer-") for name in named)
    for part in ("webhook", "controller", "enforcer"):
        kind = "daemonset" if part == "enforcer" else "deployment"
        code = "open('/etc/x', 'w')"
        where = ("exec", "-n", SYSTEM, f"{kind}/ringfence-{part}", "--")
        done = node.try_kubectl(*where, "/opt/ringfence/bin/python", "-c", code)
        assert "Read-only file system" in done.stderr, part


def _the_way_out(helm4: Helm, node: RealLab) -> None:
    """As the refusal and NOTES print it."""
    succeeds(helm(helm4, node, "rollback", "ringfence", "1"))
    reuse = ("--reset-then-reuse-values", "--set", "enforcer.remove=true")
    succeeds(helm(helm4, node, "upgrade", "ringfence", CHART, *reuse))
    node.kubectl("rollout", "status", *DAEMONS, "--timeout=50s")
    succeeds(helm(helm4, node, "uninstall", "ringfence"))
