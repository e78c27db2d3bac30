"""Our plugin run as a runtime would run it, before the node's configuration names it.

VERSION says whether it speaks the versions of the list that it is to join; a CHECK for no pod, in
each of them, whether this node can run it with just this entry. A list may name several versions,
and the runtime chooses among them, so all of them must work.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from enforcer.cni import conflist
from enforcer.cni.conflist import BadConflist, PluginEntry

SECONDS = 1
"""How long the plugin may look for the agent in a trial."""
DEADLINE = 30.0
CONTAINER = "ringfence-trial"


def attempt(program: Path, text: str, entry: PluginEntry, where: str) -> None:
    """BadConflist unless the plugin can be run as part of the list `text`."""
    spoken = _spoken(program, where)
    wanted = conflist.versions(text)
    strange = [version for version in wanted if version not in spoken]
    if strange:
        raise BadConflist(
            f"{where}: cniVersion {', '.join(strange)} is not one of those that ringfence-cni "
            f"speaks ({', '.join(spoken)}); write one of them there, or install a newer ringfence"
        )
    head = {"name": conflist.network(text), **entry.fields, "timeoutSeconds": SECONDS}
    for version in wanted:
        _run(program, "CHECK", {**head, "cniVersion": version, "prevResult": {}}, where)


def _spoken(program: Path, where: str) -> tuple[str, ...]:
    said = _run(program, "VERSION", {}, where)
    try:
        return tuple(map(str, json.loads(said)["supportedVersions"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BadConflist(
            f"{where}: {program} does not report its versions ({said.strip()!r}); "
            "is it the program of this agent?"
        ) from error


def _run(program: Path, command: str, config: Mapping[str, object], where: str) -> str:
    """What the plugin prints; BadConflist where it fails."""
    environment = {
        "PATH": os.defpath,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": CONTAINER,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(program.parent),
    }
    try:
        done = subprocess.run(
            [program],
            input=json.dumps(config),
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadConflist(f"{where}: {program} cannot be run here ({error})") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise BadConflist(
            f"{where}: {program} fails a trial {command}, so it is not installed: {said}"
        )
    return done.stdout
