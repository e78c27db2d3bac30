"""Files of expectations: what fails and by which rule, what cannot be asked, what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEAD = "apiVersion: ringfence.io/v1alpha1\nkind: ReachabilityTest\ntests:\n"


@pytest.fixture
def example(checkout: Path) -> list[str]:
    folder = checkout / "examples" / "two-clients"
    return ["-c", str(folder / "tenants.yaml"), "-f", str(folder / "cluster.yaml")]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(*lines: str) -> str:
        path = tmp_path / "expected.yaml"
        path.write_text(HEAD + "".join(f"- {{{line}}}\n" for line in lines))
        return str(path)

    return write


def test_expectations_that_hold_say_how_many(
    ringfence: Run, example: list[str], file: Callable[..., str]
) -> None:
    path = file(
        "name: apart, from: tenant/test02, to: tenant/test01, expect: DROPPED",
        "from: [shared/ingress, app-test01], to: app-test01/web, port: 80, expect: FORWARDED",
        "from: shared/monitoring, to: app=api, ports: [9090/TCP], expect: FORWARDED",
        "from: 192.0.2.1, to: app-test01/web, port: 80/TCP, expect: DROPPED",
    )
    done = ringfence("test", path, *example)
    assert (done.returncode, done.stdout) == (0, "5 passed, 0 failed\n"), done.stderr


def test_each_failure_is_a_line_with_the_deciding_rule(
    ringfence: Run, example: list[str], file: Callable[..., str]
) -> None:
    path = file(
        "name: open, from: tenant/test01, to: tenant/test02, port: 80, expect: FORWARDED",
        "from: app-test01, to: app-test01/web, port: 80, expect: DROPPED",
        "name: typo, from: app-test1, to: app-test01/web, port: 80, expect: DROPPED",
    )
    done = ringfence("test", path, *example)
    assert done.returncode == 1
    wall, rule, typo, summary = done.stdout.splitlines()
    assert wall == (
        f"FAIL {path}:4 open: app-test01/api -> app-test02/web 80/TCP (IPv4): "
        "expected FORWARDED, found DROPPED by tenant/test02#wall"
    )
    assert rule == (
        f"FAIL {path}:5: app-test01/api -> app-test01/web 80/TCP (IPv4): expected DROPPED, "
        "found FORWARDED by app-test01/allow-ingress-namespace#ingress[0]"
    )
    assert typo.startswith(f"FAIL {path}:6 typo: app-test1 -> app-test01/web 80/TCP: there is no")
    assert 'did you mean "app-test01"?' in typo
    assert summary == "0 passed, 3 failed"


def test_json_has_the_agreed_fields(
    ringfence: Run, example: list[str], file: Callable[..., str]
) -> None:
    path = file(
        "name: open, from: app-test01/web, to: app-test02/web, port: 80, expect: FORWARDED",
        "name: shut, from: app-test01/web, to: app-test02/web, port: 80, expect: DROPPED",
    )
    answer = json.loads(ringfence("test", path, *example, "-o", "json").stdout)
    assert answer["summary"] == {"passed": 1, "failed": 1}
    failed, passed = answer["tests"]
    assert failed | {"message": ""} == {
        "file": path,
        "line": 4,
        "name": "open",
        "source": "app-test01/web",
        "destination": "app-test02/web",
        "port": "80/TCP",
        "expected": "FORWARDED",
        "actual": "DROPPED",
        "rule": "tenant/test02#wall",
        "ok": False,
        "message": "",
    }
    assert (passed["ok"], passed["actual"], passed["rule"]) == (True, "DROPPED", None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("to: a, expect: DROPPED", "tests[0]: from: Required value"),
        ("from: a, expect: DROPPED", "tests[0]: to: Required value"),
        ("from: a, to: b", "expect: Required value; add expect: FORWARDED"),
        ("from: a, to: b, expect: allow", '"allow" is no verdict; write FORWARDED'),
        ("from: a, to: b, expect: DROPPED, port: http", '"http" is no port'),
        ("from: a, to: b, expct: DROPPED", "unknown field \"expct\"; did you mean 'expect'?"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    ringfence: Run, example: list[str], file: Callable[..., str], line: str, said: str
) -> None:
    done = ringfence("test", path := file(line), *example)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}:4: " in done.stderr
    assert said in done.stderr


def test_a_file_of_another_kind_and_an_empty_folder_are_no_passing_test(
    ringfence: Run, example: list[str], tmp_path: Path
) -> None:
    other = ringfence("test", example[3], *example)
    assert other.returncode == 2
    assert "write apiVersion: ringfence.io/v1alpha1, kind: ReachabilityTest" in other.stderr
    nothing = ringfence("test", tmp_path, *example)
    assert (nothing.returncode, nothing.stdout) == (1, "0 passed, 0 failed\n")
    assert f"no test in {tmp_path}; write kind: ReachabilityTest" in nothing.stderr
