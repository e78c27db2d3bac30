"""The offline commands as users call them: output, exit codes, messages; never a traceback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def example(checkout: Path) -> list[str]:
    """`-c` and `-f` of the example."""
    folder = checkout / "examples" / "two-clients"
    return ["-c", str(folder / "tenants.yaml"), "-f", str(folder / "cluster.yaml")]


def reached(output: str, port: int, protocol: str = "TCP") -> set[tuple[str, str]]:
    cells = json.loads(output)["cells"]
    return {
        (cell["source"], cell["destination"])
        for cell in cells
        if cell["verdict"] == "FORWARDED" and (cell["port"], cell["protocol"]) == (port, protocol)
    }


def test_the_example_keeps_two_clients_apart(ringfence: Run, example: list[str]) -> None:
    done = ringfence("matrix", *example, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    web = reached(done.stdout, 80)
    assert ("monitoring-test01/prometheus", "app-test01/web") in web
    assert {("ingress/nginx", "app-test01/web"), ("ingress/nginx", "app-test02/web")} <= web
    for stranger in ("app-test02/web", "sandbox/visitor", "monitoring/prometheus"):
        assert (stranger, "app-test01/web") not in web
    assert ("monitoring/prometheus", "app-test01/api") in reached(done.stdout, 9090)
    pods = {cell["source"] for cell in json.loads(done.stdout)["cells"]}
    assert {(pod, "kube-system/coredns") for pod in pods} <= reached(done.stdout, 53, "UDP")
    assert {("app-test01/web", "sandbox/visitor"), ("app-test01/web", "ingress/nginx")} <= web


def test_json_is_sorted_and_has_the_agreed_fields(ringfence: Run, example: list[str]) -> None:
    answer = json.loads(ringfence("matrix", *example, "-o", "json").stdout)
    assert answer["engine"] == "evaluate"
    keys = ("source", "destination", "protocol", "port", "family")
    order = [tuple(cell[key] for key in keys) for cell in answer["cells"]]
    assert order == sorted(set(order))
    dropped = next(cell for cell in answer["cells"] if cell["verdict"] == "DROPPED")
    assert list(dropped) == [*keys, "verdict", "egress", "ingress"]
    assert dropped["egress"] == {
        "verdict": "FORWARDED",
        "reason": "NOT_ISOLATED",
        "rule": None,
        "policies": [],
    }
    assert dropped["ingress"] == {
        "verdict": "DROPPED",
        "reason": "TENANT_WALL",
        "rule": "tenant/test02#wall",
        "policies": ["app-test02/allow-ingress-namespace"],
    }


def test_without_a_tenant_file_network_policies_alone_speak(
    ringfence: Run, example: list[str]
) -> None:
    answer = json.loads(ringfence("matrix", *example[2:], "-o", "json").stdout)
    assert {cell["verdict"] for cell in answer["cells"]} == {"FORWARDED"}


@pytest.mark.parametrize(
    "command",
    [
        ["generate"],
        ["plan", "-o", "json"],
        ["plan"],
        ["matrix", "-o", "json"],
        ["matrix", "-o", "yaml"],
        ["matrix"],
        ["trace", "app-test02/web", "app-test01/web", "80/TCP"],
        ["trace", "app-test02/web", "app-test01/web", "80/TCP", "-o", "json"],
    ],
    ids=" ".join,
)
def test_two_runs_print_the_same_bytes(
    ringfence: Run, example: list[str], command: list[str]
) -> None:
    first, second = ringfence(*command, *example), ringfence(*command, *example)
    assert first.returncode == 0
    assert first.stdout == second.stdout != ""


def test_compiled_map_entries_give_the_same_cells(ringfence: Run, example: list[str]) -> None:
    ours = ringfence("matrix", *example, "-o", "json")
    maps = ringfence("matrix", *example, "-o", "json", "--engine", "maps")
    assert maps.returncode == 0
    assert json.loads(maps.stdout)["cells"] == json.loads(ours.stdout)["cells"]


def test_yaml_and_json_say_the_same(ringfence: Run, example: list[str]) -> None:
    narrow = ["--from", "app-test02/web", "--port", "80/TCP", "--external", "203.0.113.9"]
    as_json = ringfence("matrix", *example, *narrow, "-o", "json").stdout
    as_yaml = ringfence("matrix", *example, *narrow, "-o", "yaml").stdout
    assert yaml.safe_load(as_yaml) == json.loads(as_json)
    assert "ip/203.0.113.9" in as_yaml


def test_what_generate_prints_is_kept_by_plan(
    ringfence: Run, example: list[str], tmp_path: Path
) -> None:
    generated = ringfence("generate", *example)
    kinds = [document["kind"] for document in yaml.safe_load_all(generated.stdout)]
    assert kinds == ["Namespace", "NetworkPolicy"] * 3
    (tmp_path / "live.yaml").write_text(generated.stdout)
    planned = ringfence("plan", *example[:2], "-f", str(tmp_path), "-o", "json")
    changes = json.loads(planned.stdout)
    assert {change["action"] for change in changes} == {"Keep"}
    assert all(
        list(change) == ["action", "kind", "namespace", "name", "because"] for change in changes
    )


def test_generate_without_objects_takes_the_names_of_the_tenant_file(
    ringfence: Run, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(
        "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\n"
        "tenants: [{name: t, namespaces: {names: [shop]}}]\n"
    )
    printed = list(yaml.safe_load_all(ringfence("generate", "-c", file).stdout))
    assert printed[0]["metadata"]["labels"] == {
        "kubernetes.io/metadata.name": "shop",
        "ringfence.io/tenant": "t",
    }


def test_a_generated_object_reads_standard_input(ringfence: Run, example: list[str]) -> None:
    text = Path(example[3]).read_text()
    piped = ringfence("matrix", *example[:2], "-f", "-", "-o", "json", stdin=text)
    assert piped.stdout == ringfence("matrix", *example, "-o", "json").stdout


def test_trace_tells_every_stage_and_what_to_add(ringfence: Run, example: list[str]) -> None:
    done = ringfence("trace", "app-test02/web", "app-test01/api", "80/TCP", *example)
    for said in (
        'name matches suffix "-test02" of tenant test02',
        "namespace labels  client=test01, kubernetes.io/metadata.name=app-test01",
        "Egress of the source: FORWARDED (NOT_ISOLATED)",
        "kept out by tenant/test01#wall: the source belongs to tenant test02",
        "isolated by app-test01/allow-ingress-namespace",
        "no match: namespace app-test02 has client=test02, wanted client=test01",
        "Verdict: DROPPED",
        "`allowFrom: [{tenant: test02, ports: [{port: 80, protocol: TCP}]}]` at tenant test01",
    ):
        assert said in done.stdout


@pytest.mark.parametrize(
    ("source", "expect", "code"),
    [
        ("app-test02/web", "DROPPED", 0),
        ("app-test02/web", "FORWARDED", 1),
        ("ingress/nginx", "FORWARDED", 0),
        ("ingress/nginx", "DROPPED", 1),
    ],
)
def test_an_expectation_that_fails_exits_with_1(
    ringfence: Run, example: list[str], source: str, expect: str, code: int
) -> None:
    asked = ("trace", source, "app-test01/web", "80/TCP", "--expect", expect)
    assert ringfence(*asked, *example).returncode == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["matrix", "-f", "{folder}/missing.yaml"], "missing.yaml:1: cannot be read"),
        (["matrix", "-f", "{folder}/bad.yaml"], "bad.yaml:4: Pod p: status.podIP"),
        (["matrix", "-f", "{folder}/ok.yaml", "--port", "x"], '"x" is no port'),
        (["matrix", "-f", "{folder}/ok.yaml", "--from", "x/q"], "there is no pod x/q; there are"),
        (["matrix", "-f", "{folder}/ok.yaml", "--external", "x"], '"x" is no IP address'),
        (["matrix", "-f", "{folder}/ok.yaml", "--engine", "x"], 'engine "x" is not installed'),
        (["matrix", "-f", "{folder}/ok.yaml", "-c", "{folder}/none"], "none"),
        (["matrix"], "give the objects with -f PATH"),
        (["matrix", "-f", "{folder}/ok.yaml", "--context", "x"], "give one of them"),
        (["matrix", "--instead-of", "x", "--by", "pod", "-o", "json"], "leave out --by"),
        (["matrix", "-f", "x", "--exit-code"], "--exit-code needs --instead-of"),
        (["trace", "x/p", "x/q", "80", "-f", "{folder}/ok.yaml"], "there is no pod x/q"),
        (["trace", "x/p", "::1", "80", "-f", "{folder}/ok.yaml", "--family", "IPv4"], "IPv4"),
        (["plan", "-f", "{folder}/ok.yaml"], "Missing option '-c'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unreadable_input_and_bad_usage_exit_with_2_and_a_message(
    ringfence: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    head = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
    (tmp_path / "bad.yaml").write_text(head + "status: {podIP: nowhere}\n")
    (tmp_path / "ok.yaml").write_text(head.replace("{name: p}", "{name: p, namespace: x}"))
    done = ringfence(*(part.format(folder=tmp_path) for part in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bad_tenant_file_exits_with_1(ringfence: Run, example: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\nx: 1\n"
    )
    done = ringfence("matrix", "-c", tmp_path / "t.yaml", *example[2:])
    assert (done.returncode, done.stdout) == (1, "")
    assert "t.yaml:3: x:" in done.stderr


def test_warnings_do_not_disturb_the_answer(ringfence: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
    )
    done = ringfence("matrix", "-f", tmp_path, "--port", "80", "-o", "json")
    assert len(json.loads(done.stdout)["cells"]) == 2
    assert "kind v1 Secret is not known here, skipped" in done.stderr


def test_a_gate_in_ci_sees_by_the_exit_code_whether_anything_would_change(
    ringfence: Run, example: list[str], tmp_path: Path
) -> None:
    assert ringfence("plan", *example).returncode == 0
    assert ringfence("plan", *example, "--exit-code").returncode == 1
    (tmp_path / "all.yaml").write_text(ringfence("generate", *example).stdout)
    kept = ringfence("plan", *example[:2], "-f", str(tmp_path), "--exit-code")
    assert kept.returncode == 0, kept.stdout


def test_a_tenant_file_comes_from_standard_input(ringfence: Run, example: list[str]) -> None:
    good = Path(example[1]).read_text()
    assert ringfence("tenants", "check", "-", stdin=good).returncode == 0
    bad = ringfence("tenants", "check", "-", stdin="kind: TenantConfig\nx: 1\n")
    assert bad.returncode == 1
    assert '-:2: x: unknown field "x"' in bad.stdout
    both = ringfence("matrix", "-c", "-", *example[2:], "-o", "json", stdin=good)
    assert both.stdout == ringfence("matrix", *example, "-o", "json").stdout


def test_the_version_is_the_same_by_command_and_by_option(ringfence: Run) -> None:
    by_command = ringfence("version").stdout.split()
    assert by_command[0] == "ringfence"
    assert ringfence("--version").stdout.split()[-1] == by_command[1]


def test_a_shell_completes_commands(ringfence: Run, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(ringfence("completion", "bash").stdout)
    asked = f"source {script}; complete -p ringfence"
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "_ringfence_completion" in done.stdout
    assert ringfence("completion", "tcsh").returncode == 2


def test_400_pods_are_shown_on_one_screen(ringfence: Run, tmp_path: Path) -> None:
    """By tenant, as that many pods would be thousands of lines; a note says how to see them."""
    tenants = "\n".join(f"- {{name: t{n}, namespaces: {{suffixes: ['-t{n}']}}}}" for n in range(20))
    head = "apiVersion: ringfence.io/v1alpha1\nkind: TenantConfig\ntenants:\n"
    (tmp_path / "tenants.yaml").write_text(head + tenants)
    spec = "{containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}"
    pods = "\n---\n".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: a{n // 40}-t{n % 20}}}\n"
        f"spec: {spec}"
        for n in range(400)
    )
    asked = ("matrix", "-c", tmp_path / "tenants.yaml", "-f", "-")
    done = ringfence(*asked, stdin=pods)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) < 70
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "note: by tenant, as 400 pods are too many to show at once; --by pod" in done.stderr


def test_a_namespace_is_an_end_of_a_question(ringfence: Run, example: list[str]) -> None:
    asked = ("--from", "app-test02", "--to", "tenant/test01", "--port", "80")
    done = ringfence("matrix", *example, *asked, "-o", "json", "--expect", "DROPPED")
    assert done.returncode == 0, done.stderr
    pairs = {(c["source"], c["destination"]) for c in json.loads(done.stdout)["cells"]}
    own = ("app-test01/api", "app-test01/web", "monitoring-test01/prometheus")
    assert pairs == {("app-test02/web", pod) for pod in own}
    otherwise = ringfence("matrix", *example, *asked, "--expect", "FORWARDED")
    assert otherwise.returncode == 1
    assert "expected FORWARDED, but 6 of 6 are otherwise: app-test02/web -> " in otherwise.stderr
    nothing = ringfence("matrix", *example, *asked[:2], "--to", "tenant/test1")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert 'did you mean "tenant/test01"?' in nothing.stderr


def test_groups_have_the_fields_of_cells_and_count_their_pods(
    ringfence: Run, example: list[str]
) -> None:
    asked = ("matrix", *example, "--by", "tenant", "--port", "80", "-o", "json")
    cells = json.loads(ringfence(*asked).stdout)["cells"]
    (found, _) = (c for c in cells if (c["source"], c["destination"]) == ("tenant/test02",) * 2)
    assert found["verdict"] == "FORWARDED"
    (crossing, _) = (
        c for c in cells if (c["source"], c["destination"]) == ("tenant/test02", "tenant/test01")
    )
    assert crossing["ingress"]["rule"] == "tenant/test01#wall"
    assert crossing["counts"] == {"DROPPED": 3}


def test_another_tenant_file_shows_verdicts_before_and_after(
    ringfence: Run, example: list[str], tmp_path: Path
) -> None:
    former, files = Path(example[1]), example[2:]
    same = ringfence("matrix", *example, "--instead-of", former, "--exit-code")
    assert same.returncode == 0
    assert same.stdout == "nothing changes: 512 answers are the same before and after\n"
    (tmp_path / "new.yaml").write_text(former.read_text().replace("[ingress]", "[other]"))
    asked = ("matrix", "-c", tmp_path / "new.yaml", "--instead-of", former, *files)
    changed = ringfence(*asked, "--port", "80", "--exit-code")
    assert changed.returncode == 1
    assert changed.stdout.splitlines()[0] == "closed: 8 of 128 connections"
    closed = "  ingress/nginx -> app-test01/web 80/TCP: FORWARDED -> DROPPED by tenant/test01#wall"
    assert closed in changed.stdout.splitlines()
    documents = json.loads(ringfence(*asked, "--port", "80", "-o", "json").stdout)["cells"]
    assert {(c["before"], c["verdict"]) for c in documents} == {("FORWARDED", "DROPPED")}
    assert len(documents) == 8


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A kubeconfig of two clusters; behind neither address anybody answers."""
    addresses = {"one": "http://127.0.0.1:1", "two": "http://127.0.0.1:2"}
    document = {
        "clusters": [{"name": n, "cluster": {"server": at}} for n, at in addresses.items()],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "u"}} for n in addresses],
        "current-context": "one",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("command", ["plan", "matrix", "trace", "test"])
def test_the_cluster_is_kubectl_s_and_an_error_names_it(
    ringfence: Run, example: list[str], nowhere: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    expected = nowhere.with_name("expected.yaml")
    expected.write_text(
        "apiVersion: ringfence.io/v1alpha1\nkind: ReachabilityTest\n"
        "tests: [{from: a, to: b, expect: DROPPED}]\n"
    )
    words = {"trace": ["a/b", "c/d", "80"], "test": [str(expected)]}.get(command, [])
    monkeypatch.setenv("KUBECONFIG", str(nowhere))
    for option, server in (((), "http://127.0.0.1:1"), (("--context", "two"), "127.0.0.1:2")):
        done = ringfence(command, *words, *example[:2], *option)
        assert done.returncode == 3
        assert f"{server})" in done.stderr
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(nowhere.parent))
    (nowhere.parent / ".kube").mkdir()
    nowhere.rename(nowhere.parent / ".kube" / "config")
    at_home = ringfence(command, *words, *example[:2])
    assert "(API server http://127.0.0.1:1)" in at_home.stderr


def test_a_watch_prints_rows_and_no_documents(ringfence: Run, example: list[str]) -> None:
    done = ringfence("tenants", "list", *example, "-w", "-o", "json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave out -o json" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("plan", "matrix", "trace", "test", "tenants init", "controller run"),
        *("webhook serve", "namespace label", "enforcer run", "lab up"),
    ],
)
def test_every_command_that_talks_to_a_cluster_takes_a_context(
    ringfence: Run, command: str
) -> None:
    told = ringfence(*command.split(), "--help").stdout
    assert "--kubeconfig" in told
    assert "--context" in told


def test_who_looks_for_a_command_at_the_root_is_told_where_it_is(ringfence: Run) -> None:
    done = ringfence("get", "tenants")
    assert done.returncode == 2
    assert "No such command 'get'; there are `ringfence endpoint get`" in done.stderr
    assert "`ringfence tenants get`" in done.stderr
    assert "Did you mean 'matrix'?" in ringfence("matrx").stderr


def test_help_is_a_command_too(ringfence: Run) -> None:
    asked = ringfence("help", "tenants", "list")
    assert asked.stdout == ringfence("tenants", "list", "--help").stdout
    assert ringfence("help").stdout == ringfence("--help").stdout
    assert "has no commands of its own" in ringfence("help", "matrix", "x").stderr


def test_the_version_is_for_programs_too(ringfence: Run) -> None:
    number = json.loads(ringfence("version", "-o", "json").stdout)["version"]
    assert ringfence("version").stdout == f"ringfence {number}\n"
    assert ringfence("version", "-o", "jsonpath={.version}").stdout == number


@pytest.mark.parametrize(
    ("end", "meant"), [("test01", "tenant/test01"), ("ingress-", None), ("monitor", None)]
)
def test_an_end_that_is_a_tenant_is_told_how_to_write_it(
    ringfence: Run, example: list[str], end: str, meant: str | None
) -> None:
    done = ringfence("matrix", *example, "--from", end)
    assert done.returncode == 2
    assert (f'did you mean "{meant}"?' in done.stderr) is (meant is not None)


def test_tenants_without_a_source_asks_for_the_tenant_file_or_a_cluster(
    ringfence: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    done = ringfence("tenants", "list")
    assert done.returncode == 2
    assert "give a tenant file with -c FILE, or a live cluster" in done.stderr
