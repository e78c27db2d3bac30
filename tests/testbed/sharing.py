"""Files whose tests share what takes long to start run in one process, which starts it once.

An API server takes ten seconds of a core to start and some percent of one as long as it is there;
each process of `make test` that comes to a test with the fixture would have one of its own.
"""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # none upstream

__all__ = ["FileScheduling", "together"]

SHARED = {
    "api": (
        "tests/charts/",
        "tests/enforcer/agent/test_api_server.py",
        "tests/generators/isolation/test_walls.py",
        "tests/generators/kube/",
        "tests/generators/manifests/",
        "tests/lab/api/test_coming_and_going.py",
        "tests/release/test_release.py",
        "tests/testbed/test_node.py",
        "tests/testbed/test_plane.py",
    ),
    "guarded_cluster": (
        "tests/controller/registration/test_labels_that_passed_admission.py",
        "tests/controller/test_identity.py",
        "tests/controller/test_one_text.py",
        "tests/controller/test_policies_in_force.py",
        "tests/controller/test_synchronization.py",
        "tests/controller/test_threats.py",
        "tests/controller/test_tools.py",
    ),
    "real": ("tests/lab/api/real/",),
}
"""Fixture of a session -> files and folders of those that use it."""


def together(path: str) -> str:
    """The name that a file has in common with those that run in the same process: often its own."""
    found = (name for name, places in SHARED.items() if path.startswith(places))
    return next(found, path)


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """A file goes to one process, and so do files that share."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid.partition("::")[0])
