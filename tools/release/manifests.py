"""install.yaml: the chart with its default values, for those who apply and do not use Helm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMESPACE = "ringfence-system"
HEAD = f"""\
# Ringfence with the chart's default values, for `kubectl apply --server-side -f install.yaml`.
# The tenant file is in ConfigMap ringfence-tenants below: put your tenants into it, here or later.
# What Helm's hooks do at an uninstall is by hand then: docs/back-out.md.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
"""


def install_manifest(helm: Path, chart: Path, registry: str) -> str:
    """All objects of an install; `registry`: of the images, empty for none."""
    command = [
        *(helm, "template", "ringfence", chart, "--namespace", NAMESPACE, "--no-hooks"),
        *("--set", f"image.registry={registry}", "--skip-tests"),
    ]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"release: {helm} template failed:\n{done.stderr}")
    return HEAD + done.stdout
