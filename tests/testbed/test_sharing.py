"""No process starts an API server for a file whose like run elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.conftest import CHECKOUT
from tests.testbed.sharing import SHARED, together

USES = {
    "api": r"^def .*\bapi: ControlPlane",
    "guarded_cluster": r"\bguarded_cluster: ",
    "real": r"\breal: RealLab",
}
FILES = {str(path.relative_to(CHECKOUT)): path for path in CHECKOUT.glob("tests/**/test_*.py")}


@pytest.mark.parametrize("name", SHARED)
def test_every_file_that_uses_what_is_shared_goes_where_the_others_go(name: str) -> None:
    used = re.compile(USES[name], re.MULTILINE)
    users = [file for file, path in FILES.items() if used.search(path.read_text())]
    assert users
    assert [file for file in users if together(file) != name] == []


def test_what_is_named_exists_and_other_files_go_by_themselves() -> None:
    assert all((CHECKOUT / place).exists() for places in SHARED.values() for place in places)
    assert together("tests/bpf/test_icmp.py") == "tests/bpf/test_icmp.py"
