"""`python -m tests.testbed up | build | PROGRAM | releases`: the testbed for a person.

`up` prints the path of an admin's kubeconfig and runs a control plane until Ctrl-C; `build` only
makes its programs; `helm`, `helm3`, `hubble`, `krew`, `kyverno`, `promtool` and `libcni` print the
folder of that program, built where it is missing; `node` makes what real nodes of a lab need;
`releases` runs tests on other releases of Kubernetes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from generators.errors import RingfenceError
from lab.api import assets
from tests.testbed import build, debian, releases
from tests.testbed.plane import ControlPlane

PRODUCTS = {
    "build": build.KUBERNETES,
    "helm": build.HELM,
    "helm3": build.HELM3,
    "hubble": build.HUBBLE,
    "krew": build.KREW,
    "kyverno": build.KYVERNO,
    "libcni": build.LIBCNI,
    "promtool": build.PROMTOOL,
}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _up(kubeconfig: Path | None) -> None:
    # `kill` ends it like Ctrl-C does: both run the context manager's end. SIGINT may be ignored at
    # the start, as it is for whatever a shell runs in the background.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    with ControlPlane(say=_say) as plane:
        path = plane.kubeconfig()
        if kubeconfig is not None:
            kubeconfig.touch(mode=0o600)
            kubeconfig.write_text(path.read_text())
            path = kubeconfig.resolve()
        programs = build.ensure(build.KUBERNETES, _say)
        _say(
            f"testbed: {build.kubernetes_release()} at {plane.url}; Ctrl-C ends it and forgets all"
        )
        _say(f"testbed: KUBECONFIG={path} {programs / 'kubectl'} get namespaces")
        _say("testbed: run a controller as its ServiceAccount (README, In a cluster), not as admin")
        print(path, flush=True)
        signal.pause()


def _node() -> None:
    """The control plane, too: a lab with real nodes asks for all of it at once."""
    for package in assets.DEBIAN:
        debian.unpacked(package, assets.unpacked(package), _say)
    for product in (build.KUBERNETES, *assets.of_real_nodes()):
        print(build.ensure(product, _say))


def main() -> int:
    """Run the sub-command that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a control plane until Ctrl-C")
    up.add_argument("--kubeconfig", type=Path, help="also write the admin's kubeconfig here")
    commands.add_parser("build", help="find or build the control plane's programs")
    commands.add_parser("helm", help="find or build helm 4")
    commands.add_parser("helm3", help="find or build helm 3")
    commands.add_parser("hubble", help="find or build the hubble command line")
    commands.add_parser("krew", help="find or build krew, which installs plugins of kubectl")
    commands.add_parser("kyverno", help="find or build Kyverno's engine, which answers questions")
    commands.add_parser("promtool", help="find or build promtool, which tests alerts")
    commands.add_parser(
        "libcni", help="find or build the library of container runtimes, as a command"
    )
    commands.add_parser("node", help="find or build all that real nodes of a lab need")
    others = commands.add_parser("releases", help="run tests on the oldest and newest API server")
    others.add_argument("series", nargs="*", help="1.30 for one of them; without: all")
    others.add_argument("--pytest", nargs=argparse.REMAINDER, default=[], help="its arguments")
    chosen = parser.parse_args()
    try:
        if chosen.command == "up":
            _up(chosen.kubeconfig)
        elif chosen.command == "node":
            _node()
        elif chosen.command == "releases":
            return releases.check(chosen.series, chosen.pytest, _say)
        else:
            print(build.ensure(PRODUCTS[chosen.command], _say))
    except RingfenceError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("testbed: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
