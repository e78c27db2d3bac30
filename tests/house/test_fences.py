"""One module imports each fenced library, also where it does so by name while it runs.

import-linter proves the same for import statements; `import_module("bcc")` it cannot see.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

FENCES = {
    "bcc": ("enforcer/datapath/compilation.py",),
    "cerberus": ("generators/tenants/schema.py",),
    "pyroute2": ("enforcer/datapath/iproute.py",),
    "re2": ("generators/http.py", "generators/kyverno/language/regexes.py"),
    "rstr": ("generators/kyverno/language/regexes.py",),
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Top-level names of all that is imported, by statement or by `import_module`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name.partition(".")[0] for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module.partition(".")[0]


@pytest.fixture(scope="module")
def imports(checkout: Path) -> Mapping[str, set[str]]:
    """File -> what it imports."""
    packages = ("generators", "webhook", "enforcer", "lab")
    return {
        str(path.relative_to(checkout)): {*imported(ast.parse(path.read_text()))}
        for package in packages
        for path in (checkout / package).rglob("*.py")
    }


@pytest.mark.parametrize("library", FENCES)
def test_library_is_imported_by_its_own_module_only(
    imports: Mapping[str, set[str]], library: str
) -> None:
    importers = {path for path, names in imports.items() if library in names}
    assert importers == set(FENCES[library])


@pytest.mark.parametrize(
    "line",
    [
        "import bcc",
        "from bcc.table import x",
        "import_module('bcc')",
        "i.import_module('bcc.libbcc')",
    ],
)
def test_every_way_to_import_is_seen(line: str) -> None:
    assert "bcc" in imported(ast.parse(line))


@pytest.mark.parametrize(
    ("start", "without"),
    [
        pytest.param(
            "from generators.cli import root; root()",
            [*FENCES, "yaml", "generators.objects", "enforcer.policy.tables"],
            id="any command",
        ),
        pytest.param(
            "import lab.session",
            ["bcc", "pyroute2", "cryptography", "asyncio"],
            id="the lab's commands",
        ),
    ],
)
def test_what_is_slow_to_import_waits_until_it_is_used(start: str, without: list[str]) -> None:
    asked = f"{start}; import sys; print({{*{[*without]}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
