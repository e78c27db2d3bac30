"""Makes all files of a release in one folder; the same commit gives the same bytes.

    .venv/bin/python -m tools.release dist/release --helm PROGRAM --url https://.../v0.1.0

What a person does with them is in docs/release.md. `--url` is where the files will lie (the krew
manifest names it), `--registry` where the images will (install.yaml names it).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tools.release.charts import packed, write_layout
from tools.release.krew import manifest
from tools.release.manifests import install_manifest
from tools.release.single import PLATFORMS, archive, single_file

CHECKOUT = Path(__file__).parents[2]
SUMS = "SHA256SUMS"


def main() -> None:
    """Make the release; the folder must not be there, or hold a release."""
    parser = argparse.ArgumentParser(prog="python -m tools.release")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--helm", required=True, type=Path, help="the program, for install.yaml")
    parser.add_argument("--url", default="https://example.com/ringfence", help="of these files")
    parser.add_argument("--registry", default="", help="of the images, before their names")
    parser.add_argument("--platform", action="append", choices=[*PLATFORMS], help="not all")
    chosen = parser.parse_args()
    folder: Path = chosen.folder.resolve()
    if folder.exists() and any(folder.iterdir()) and not (folder / SUMS).exists():
        sys.exit(f"release: {folder} holds something else; name another folder")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # Whatever writes times takes this one: that of the commit.
    os.environ["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct").strip()
    if run("git", "status", "--porcelain").strip():
        say("some files are not committed: this is no release of the commit")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    make(part, project["version"], chosen)
    say(SUMS)
    (part / SUMS).write_text("".join(sums(part)))
    # Whole, or not at all.
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def make(folder: Path, version: str, chosen: argparse.Namespace) -> None:
    """Every file but the checksums."""
    say("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    say("charts")
    for chart in sorted(path.parent for path in (CHECKOUT / "charts").glob("*/Chart.yaml")):
        write_layout(folder / "oci" / chart.name, packed(chart, folder))
    say("install.yaml")
    (folder / "install.yaml").write_text(
        install_manifest(chosen.helm, CHECKOUT / "charts/ringfence", chosen.registry)
    )
    say("SBOM")
    run(
        *(Path(sys.executable).with_name("cyclonedx-py"), "requirements", "requirements.lock"),
        *("--pyproject", "pyproject.toml", "--output-reproducible", "--mc-type", "application"),
        *("--output-file", folder / f"ringfence-{version}.cdx.json"),
    )
    archives = {}
    for name in chosen.platform or PLATFORMS:
        say(f"command for {name}")
        command = single_file(wheel, CHECKOUT / "requirements.lock", PLATFORMS[name])
        archives[name] = archive(folder / f"ringfence-{version}-{name}.tar.gz", command, CHECKOUT)
    say("krew manifest")
    (folder / "ringfence.krew.yaml").write_text(manifest(version, chosen.url, archives))
    for name in ("CHANGELOG.md", "SECURITY.md", "LICENSE"):
        shutil.copyfile(CHECKOUT / name, folder / name)


def sums(folder: Path) -> Iterator[str]:
    """A line for each file, as `sha256sum --check` reads it."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name != SUMS:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield f"{digest}  {path.relative_to(folder)}\n"


def run(*command: str | Path) -> str:
    """What a program prints, run in the checkout; ends the release where it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"release: {command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def say(what: str) -> None:
    """Progress, to stderr."""
    print(f"release: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
