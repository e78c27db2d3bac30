"""`helm template CHART | ringfence matrix -f -`, as README says it: workloads, and no pods."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.charts.helm import Helm

pytestmark = pytest.mark.cluster  # the testbed has the helms

Run = Callable[..., "subprocess.CompletedProcess[str]"]
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: app-test01}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: web, ports: [{containerPort: 8080}]}]}
"""
CRON_JOB = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: app-test02}
spec:
  schedule: "0 0 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: j}]}}}}
"""


def test_a_chart_s_workloads_are_kept_apart(
    helm: Helm, ringfence: Run, checkout: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "shop"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: shop, version: 1.0.0}\n")
    (chart / "values.yaml").write_text("replicas: 3\n")
    (chart / "templates" / "web.yaml").write_text(DEPLOYMENT)
    (chart / "templates" / "nightly.yaml").write_text(CRON_JOB)
    rendered = helm.run("template", "shop", chart)
    tenants = checkout / "examples" / "two-clients" / "tenants.yaml"
    done = ringfence("matrix", "-c", tenants, "-f", "-", "-o", "json", stdin=rendered)
    assert done.returncode == 0, done.stderr
    verdicts = {
        (cell["source"], cell["destination"]): cell["verdict"]
        for cell in json.loads(done.stdout)["cells"]
    }
    web, nightly = "app-test01/deployment/web", "app-test02/cronjob/nightly"
    assert verdicts == {
        (web, web): "FORWARDED",
        (nightly, nightly): "FORWARDED",
        (web, nightly): "DROPPED",
        (nightly, web): "DROPPED",
    }
