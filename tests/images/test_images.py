"""The Dockerfiles keep to rules, and what they make runs as the charts run it.

There is no container engine here: following.py takes each step in folders that hold exactly the
Debian packages that the step names.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from urllib.request import urlopen

import pytest
import yaml

from lab import netns
from tests.images import dockerfile
from tests.images.debian import Lacking
from tests.images.dockerfile import Dockerfile
from tests.images.following import Built, follow
from tests.testbed.processes import free_ports
from tests.testbed.waiting import ended, ending, eventually, patience

CHECKOUT = Path(__file__).resolve().parents[2]
FILES = {
    path.suffix[1:]: dockerfile.read(path)
    for path in sorted((CHECKOUT / "images").glob("Dockerfile.*"))
}
needs_root = [pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> Dockerfile:
    return FILES[request.param]


def test_there_is_a_file_for_each_image_of_the_chart() -> None:
    values = yaml.safe_load((CHECKOUT / "charts/ringfence/values.yaml").read_text())
    images = {values["image"]["repository"], values["enforcer"]["image"]["repository"]}
    assert images == {"ringfence", "ringfence-enforcer"}
    assert set(FILES) == {"ringfence", "enforcer"}


def test_the_base_is_one_argument_without_a_host_and_never_latest(file: Dockerfile) -> None:
    assert {stage.base for stage in file.stages} == {"${BASE}"}
    assert re.fullmatch(r"[a-z]+:[0-9]+-slim", file.arguments["BASE"])


def test_every_debian_package_is_pinned_and_leaves_no_lists(file: Dockerfile) -> None:
    pinned = 0
    for stage in file.stages:
        for run in (i.text for i in stage.all("RUN") if "apt-get" in i.text):
            match = re.match(
                r"apt-get update && apt-get install -y --no-install-recommends ([^&]+) "
                r"&& rm -rf /var/lib/apt/lists/\*( &&|$)",
                run,
            )
            assert match is not None, run
            assert [word for word in match[1].split() if "=" not in word] == []
            pinned += len(match[1].split())
    assert pinned >= 2


def test_every_python_package_is_pinned_by_hash_or_is_ours(file: Dockerfile) -> None:
    for stage in file.stages:
        for run in stage.all("RUN"):
            for command in re.findall(r"pip install [^&]+", run.text):
                assert "--require-hashes" in command or "--no-deps --no-index" in command


def test_nothing_is_fetched_by_other_means(file: Dockerfile) -> None:
    for stage in file.stages:
        names = {i.name for i in stage.instructions}
        assert names <= {"ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT"}
        words = " ".join(i.text for i in stage.instructions)
        assert not re.search(r"\b(curl|wget|git|sudo|chmod 777)\b", words)


def test_what_is_shipped_has_a_numeric_user_and_no_compiler(file: Dockerfile) -> None:
    (user,) = file.last.all("USER")
    assert re.fullmatch(r"\d+:\d+", user.text)
    (entry,) = file.last.all("ENTRYPOINT")
    assert entry.words == ["ringfence"]
    left_out = ("gcc", "pip", "bpfcc", "headers")
    assert not any(word in run.text for run in file.last.all("RUN") for word in left_out)


def test_every_file_that_is_copied_exists(file: Dockerfile) -> None:
    for stage in file.stages:
        for copy in stage.all("COPY"):
            if not copy.flags:
                assert [n for n in copy.words[:-1] if not (CHECKOUT / n).exists()] == []


def test_all_that_the_wheel_holds_is_copied(file: Dockerfile) -> None:
    """A package that is left out is left out of the wheel without a word."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    (stage,) = (s for s in file.stages if any("hatchling" in r.text for r in s.all("RUN")))
    copied = {name for copy in stage.all("COPY") for name in copy.words[:-1]}
    assert {*wheel["packages"], *wheel["force-include"]} <= copied


def test_the_context_holds_what_is_copied(file: Dockerfile) -> None:
    allowed = {
        line[1:]
        for line in (CHECKOUT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for stage in file.stages:
        for copy in stage.all("COPY"):
            for name in [] if copy.flags else copy.words[:-1]:
                assert name in allowed or name.partition("/")[0] in allowed


def test_the_locks_decide_alone_whatever_was_released_since(file: Dockerfile) -> None:
    """What an image gets is what tools/setup.sh gets: nothing is resolved."""
    text = " && ".join(run.text for stage in file.stages for run in stage.all("RUN"))
    installs = re.findall(r"pip install ([^&]*)", text)
    locks = {word for words in installs for word in words.split() if word.endswith(".lock")}
    assert locks == {"requirements.lock", "requirements-build.lock"}
    assert all("--no-deps" in words.split() for words in installs)


# --- what they make -----------------------------------------------------------------------------


def _built(name: str, factory: pytest.TempPathFactory) -> Built:
    try:
        return follow(FILES[name], CHECKOUT, factory.mktemp(name))
    except Lacking as lack:
        pytest.skip(str(lack))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _built("ringfence", tmp_path_factory)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return _built("enforcer", tmp_path_factory)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with (
        log.open("wb") as output,
        ending(subprocess.Popen(command, stdout=output, stderr=output)) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            ended(process, 30)


POD = """\
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, uid: u, annotations: {ringfence.io/interface: pod0}}
spec: {nodeName: n, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 10.9.9.9, podIPs: [{ip: 10.9.9.9}]}
"""


@pytest.fixture
def node() -> Iterator[list[str]]:
    """A network namespace with one pod's interface: what to say before a command to run there."""
    name = f"rfi-{token_hex(3)}"
    pod = f"{name}-pod"
    netns.create(name)
    netns.create(pod)
    try:
        words = f"link add pod0 type veth peer name eth0 netns {pod}"
        subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield ["nsenter", f"--net=/run/netns/{name}", "--"]
    finally:
        netns.remove(pod)
        netns.remove(name)


HELP = [
    ("webhook", "serve"),
    ("controller", "run"),
    ("controller", "verify"),
    ("controller", "unregister"),
    ("controller", "forget"),
    ("namespace", "label"),
    ("tenants", "check"),
]


class TestTheImageOfWebhookAndController:
    pytestmark = needs_root

    def test_it_has_every_command_that_the_charts_start(self, plain: Built) -> None:
        for words in HELP:
            assert "Usage:" in run(plain.start(*words, "--help"))

    def test_it_is_nobody_on_a_root_that_cannot_be_written(self, plain: Built) -> None:
        code = "import os; print(os.getuid(), os.getgid()); open('/etc/x', 'w')"
        done = subprocess.run(
            plain.start("-c", code, entry=["/opt/ringfence/bin/python"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "65532 65532\n"
        assert "Read-only file system" in done.stderr

    def test_it_serves_admission_over_tls(self, plain: Built, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        (plain.root / "data").mkdir(exist_ok=True)
        binds = {tmp_path: "/data"}
        run(
            plain.start(
                "webhook", "certificates", "--directory=/data", "--host=localhost", binds=binds
            )
        )
        file = CHECKOUT / "examples/two-clients/tenants.yaml"
        (tmp_path / "tenants.yaml").write_bytes(file.read_bytes())
        (port,) = free_ports(1)
        words = ["webhook", "serve", "--config=/data/tenants.yaml", f"--listen=127.0.0.1:{port}"]
        words += ["--tls-cert=/data/tls.crt", "--tls-key=/data/tls.key", "--drain-seconds=0"]
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

        def answers() -> bool:
            with contextlib.suppress(OSError):
                url = f"https://localhost:{port}/readyz"
                with urlopen(url, context=trust, timeout=patience(5)) as answer:
                    return bool(answer.status == 200)
            return False

        with running(plain.start(*words, binds=binds), tmp_path / "log"):
            eventually(answers, f"readyz: {tmp_path / 'log'}", 60)

    def test_no_installer_is_left(self, plain: Built) -> None:
        assert not list((plain.root / "opt/ringfence/bin").glob("pip*"))


class TestTheImageOfTheAgent:
    pytestmark = needs_root

    def test_it_has_neither_compiler_nor_headers(self, agent: Built) -> None:
        names = ("libLLVM*", "libclang*", "libbcc*", "bcc", "bpf.h", "linux-headers*")
        assert [path for name in names for path in agent.root.glob(f"usr/**/{name}")] == []
        assert not list(agent.root.glob("opt/ringfence/bin/pip*"))
        assert not (agent.root / "headers").exists()
        (brought,) = (agent.root / "opt/ringfence").rglob("datapath/programs.json")
        assert brought.stat().st_size > 100_000
        du = ["du", "--summarize", "--block-size=M", str(agent.root)]
        print("size of the image:", run(["/usr/bin/env", *du]).split()[0])

    def test_it_enforces_with_the_chart_s_rights_from_the_image_s_bytecode(
        self, agent: Built, node: list[str], tmp_path: Path
    ) -> None:
        """No capability but those of the DaemonSet."""
        assert not (agent.root / "lib/modules").exists()
        pins = Path(f"/sys/fs/bpf/ringfence-image-{token_hex(4)}")
        binds = {tmp_path / "run": "/run/ringfence", tmp_path / "manifests": "/manifests"}
        for outer, inner in binds.items():
            outer.mkdir()
            (agent.root / inner[1:]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "manifests/pod.yaml").write_text(POD)

        def inside(*words: str) -> list[str]:
            return agent.start(*words, binds=binds, capabilities=capabilities())

        def attached() -> bool:
            done = subprocess.run(inside("status", "-o", "json"), capture_output=True, check=False)
            return done.returncode == 0 and json.loads(done.stdout)["attached"] == {"tcx": 1}

        words = ["enforcer", "run", "--node-name=n", "--manifests=/manifests", f"--pin-dir={pins}"]
        try:
            with running([*node, *inside(*words)], tmp_path / "log"):
                eventually(attached, f"programs attached: {tmp_path / 'log'}", 180)
            run(inside("enforcer", "uninstall", f"--pin-dir={pins}"))
            assert not pins.exists()
        finally:
            subprocess.run(["rm", "-rf", pins], check=True)

    def test_its_cni_plugin_runs_where_there_is_nothing_else(
        self, agent: Built, tmp_path: Path
    ) -> None:
        (plugin,) = (agent.root / "opt/ringfence").rglob("cni/ringfence-cni")
        shutil.copy(plugin, tmp_path / "plugin")
        done = subprocess.run(
            ["/usr/sbin/chroot", tmp_path, "/plugin"],
            env={"CNI_COMMAND": "VERSION"},
            input=b'{"cniVersion": "1.0.0"}',
            capture_output=True,
            check=False,
        )
        assert "1.0.0" in json.loads(done.stdout)["supportedVersions"]


def capabilities() -> list[str]:
    """What the chart gives the agent, by its golden render."""
    golden = CHECKOUT / "tests/charts/cluster/golden/default.yaml"
    (daemon,) = (
        d for d in yaml.safe_load_all(golden.read_text()) if d and d["kind"] == "DaemonSet"
    )
    (container,) = daemon["spec"]["template"]["spec"]["containers"]
    found: list[str] = container["securityContext"]["capabilities"]["add"]
    return found
