"""`ringfence report`: the auditor's file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

Run = Callable[..., "CompletedProcess[str]"]
CHECKOUT = Path(__file__).resolve().parents[3]
EXAMPLE = CHECKOUT / "examples" / "two-clients"
FILES = ("-c", str(EXAMPLE / "tenants.yaml"), "-f", str(EXAMPLE / "cluster.yaml"))
PAGE = CHECKOUT / "docs" / "example-report.html"
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def undated(text: str) -> str:
    return DATE.sub("DATE", text)


def test_the_example_in_docs_is_what_the_command_writes_today(ringfence: Run) -> None:
    """Made anew by docs/proof.md's command, in the checkout; only its date may differ."""
    example = Path("examples/two-clients")
    files = ("-c", example / "tenants.yaml", "-f", example / "cluster.yaml")
    done = ringfence("report", *files, cwd=CHECKOUT)
    assert done.returncode == 0, done.stderr
    assert undated(done.stdout) == undated(PAGE.read_text())


def test_an_open_pair_is_named_and_exits_with_1(ringfence: Run, tmp_path: Path) -> None:
    text = (EXAMPLE / "tenants.yaml").read_text()
    (tmp_path / "tenants.yaml").write_text(re.sub("(?m)^mode: .*", "mode: audit", text))
    files = ("-c", str(tmp_path / "tenants.yaml"), "-f", str(EXAMPLE / "cluster.yaml"))
    done = ringfence("report", *files, "-o", "json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"]["apart"] is False
    opened = {(p["source"], p["destination"]) for p in found["matrix"] if p["open"]}
    assert {("test01", "test02"), ("test02", "test01")} <= opened
    assert found["exceptions"]["mode"] == "audit"


def test_what_a_node_said_counts_under_the_same_tenant_file_only(
    ringfence: Run, tmp_path: Path
) -> None:
    objects = tmp_path / "node.yaml"
    objects.write_text("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
    files = (*FILES, "-f", str(objects), "-o", "json")
    before = json.loads(ringfence("report", *files).stdout)
    assert [(n["node"], n["asked"], n["apart"]) for n in before["nodes"]] == [("n1", False, None)]
    assert any("kernel of node n1" in text for text in before["notChecked"])
    said = {"node": "n1", "tenantFile": before["tenantFile"]["digest"], "drifted": 0}
    said |= {"apart": True, "agrees": True, "classes": 7}
    proof = tmp_path / "proof.json"
    for change, code, apart in (({}, 0, True), ({"apart": False}, 1, False)):
        proof.write_text(json.dumps(said | change))
        done = ringfence("report", *files, "--proof", str(proof))
        assert (done.returncode, json.loads(done.stdout)["nodes"][0]["apart"]) == (code, apart)
    proof.write_text(json.dumps(said | {"tenantFile": "another"}))
    done = ringfence("report", *files, "--proof", str(proof))
    assert json.loads(done.stdout)["nodes"][0]["why"] == "asked under another tenant file"
    assert done.returncode == 1


def test_a_proof_that_is_none_is_refused(ringfence: Run, tmp_path: Path) -> None:
    (tmp_path / "proof.json").write_text("[]")
    done = ringfence("report", *FILES, "--proof", str(tmp_path / "proof.json"))
    assert done.returncode == 2
    assert "it names no node" in done.stderr


def test_hostile_texts_stay_texts() -> None:
    from enforcer.report.page import page

    evil = "<script>alert(1)</script>"
    pair = {"source": evil, "destination": evil, "permitted": [evil], "open": False}
    found = page(
        {
            "date": evil,
            "version": evil,
            "source": evil,
            "tenantFile": {"digest": evil, "mode": evil},
            "verdict": {
                "apart": True,
                "agrees": True,
                "classes": 1,
                **dict.fromkeys(
                    ("tenants", "openPairs", "grants", "quarantined", "nodesProven", "nodes"), evil
                ),
            },
            "matrix": [pair],
            "notChecked": [evil],
            "exceptions": {"grants": [{"from": evil}]},
        }
    )
    assert "<script" not in found
    assert "&lt;script&gt;" in found
