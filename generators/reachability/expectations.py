"""Expected reachability: a file that says who must and must not reach whom, and how that stands.

`ringfence test` reads and runs it. An expectation about groups holds for each pair of their pods;
it fails by the first that is otherwise, with the rule that decided. An expectation without a match
fails too: a misspelt namespace must not be a passing test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from generators.cluster import Cluster
from generators.documents.yaml import documents
from generators.errors import InputError, Problem
from generators.manifests.fields import Cursor, Report
from generators.manifests.files import Files
from generators.objects import Origin
from generators.reachability.classes import Answers, named
from generators.reachability.ends import BadQuestion, named_ends
from generators.reachability.matrix import PortProtocol, declared_ports, service_ports
from generators.reachability.matrix import questions as ask
from generators.reachability.protocols import port_text
from generators.reachability.verdicts import Cell, Verdict, decided_by, meets
from generators.tenants.model import API_VERSION

KIND = "ReachabilityTest"


@dataclass(frozen=True, slots=True)
class ExpectedReach:
    """One source, one destination, one port of a file; `port` None: every declared one."""

    name: str
    source: str
    destination: str
    port: PortProtocol | None
    expected: Verdict
    origin: Origin


@dataclass(frozen=True, slots=True)
class Result:
    """How an expectation stands: `cell` is the first answer that is otherwise."""

    expectation: ExpectedReach
    asked: int
    cell: Cell | None = None
    problem: str = ""
    """Why it could not be asked."""

    @property
    def ok(self) -> bool:
        """Whether every answer is the expected one."""
        return self.cell is None and not self.problem

    def __str__(self) -> str:
        it, cell = self.expectation, self.cell
        title = f"{it.origin} {it.name}".strip()
        if cell is None:
            port = "" if it.port is None else f" {it.port}"
            return f"{title}: {it.source} -> {it.destination}{port}: {self.problem or 'ok'}"
        asked = port_text(cell.port, cell.protocol)
        return (
            f"{title}: {cell.source} -> {cell.destination} {asked} ({cell.family}): expected "
            f"{it.expected.value}, found {cell.verdict.value} by {decided_by(cell)}"
        )

    def document(self) -> dict[str, object]:
        """As `ringfence test -o json` prints it."""
        it, cell = self.expectation, self.cell
        port = None if it.port is None else str(it.port)
        actual = None if self.problem else it.expected.value
        return {
            "file": it.origin.file,
            "line": it.origin.line,
            "name": it.name,
            "source": cell.source if cell else it.source,
            "destination": cell.destination if cell else it.destination,
            "port": port_text(cell.port, cell.protocol) if cell else port,
            "expected": it.expected.value,
            "actual": cell.verdict.value if cell else actual,
            "rule": decided_by(cell) if cell else None,
            "ok": self.ok,
            "message": "" if self.ok else str(self),
        }


def read_expectations(paths: Sequence[str]) -> tuple[ExpectedReach, ...]:
    """All expectations of files and folders; InputError with every defect of them.

    Of a folder only documents of this kind count; it may lie among manifests.
    """
    problems: list[Problem] = []
    found: list[ExpectedReach] = []
    files = Files(problems)
    for path in paths:
        for file, data in files.contents(path):
            report = Report(file)
            for root in documents(data, file):
                cursor = Cursor(root, "", report)
                if cursor.string("kind") == KIND or file == path:
                    found += _expectations(cursor)
            problems += report.problems
    if problems:
        raise InputError(problems)
    return tuple(found)


def _expectations(root: Cursor) -> Iterator[ExpectedReach]:
    root.only("apiVersion", "kind", "metadata", "tests")
    if (root.string("apiVersion"), root.string("kind")) != (API_VERSION, KIND):
        root.fail("not a file of expectations", f"write apiVersion: {API_VERSION}, kind: {KIND}")
        return
    if root.child("tests") is None:
        root.fail("tests: Required value", "add tests: [{from: ..., to: ..., expect: DROPPED}]")
    for item in root.children("tests"):
        item.only("name", "from", "to", "port", "ports", "expect")
        expected = _verdict(item)
        sources, destinations = _texts(item, "from"), _texts(item, "to")
        given = [*([at] if (at := item.child("port")) else []), *item.children("ports")]
        ports: list[PortProtocol | None] = [p for at in given if (p := _port(at)) is not None]
        origin = Origin(root.report.file, item.line)
        for source in sources:
            for destination in destinations:
                for port in ports or [None]:
                    name = item.string("name")
                    yield ExpectedReach(name, source, destination, port, expected, origin)


def _texts(item: Cursor, key: str) -> list[str]:
    at = item.child(key)
    if at is None:
        item.fail(
            f"{key}: Required value", f"add {key}: tenant/T, NS, NS/deployment/NAME or NS/POD"
        )
        return []
    listed = at.items() if isinstance(at.field.value, tuple) else [at]
    return [each.source_text() for each in listed]


def _port(at: Cursor) -> PortProtocol | None:
    try:
        return PortProtocol.parse(at.source_text())
    except BadQuestion as error:
        at.fail(str(error), "for example 80/TCP")
        return None


def _verdict(item: Cursor) -> Verdict:
    at = item.child("expect")
    if at is None:
        item.fail("expect: Required value", "add expect: FORWARDED, DROPPED, AUDIT or REDIRECTED")
    elif at.field.value not in tuple(Verdict):
        at.fail(f"{at.shown()} is no verdict", "write FORWARDED, DROPPED, AUDIT or REDIRECTED")
    else:
        return Verdict(at.text())
    return Verdict.DROPPED


def run(cluster: Cluster, expectations: Iterable[ExpectedReach]) -> Iterator[Result]:
    """How each stands, in order; pairs that nothing tells apart are asked about once."""
    answers = Answers(cluster)
    for expectation in expectations:
        try:
            yield _result(cluster, answers, expectation)
        except BadQuestion as error:
            yield Result(expectation, 0, problem=str(error))


def _result(cluster: Cluster, answers: Answers, it: ExpectedReach) -> Result:
    ports = (it.port,) if it.port is not None else _meant_ports(cluster, it)
    asked = ask(cluster, ports, (), it.source, it.destination)
    itself = len(asked.sources) == len(asked.destinations) == 1
    count = 0
    for question in asked:
        if question.source == question.destination and not itself:
            continue
        count += 1
        cell = answers.cell(question)
        if not meets(cell.verdict, it.expected.value):
            return Result(it, count, named(question, cell))
    if not count:
        return Result(it, 0, problem="nothing was asked: no declared port, or no common address")
    return Result(it, count)


def _meant_ports(cluster: Cluster, it: ExpectedReach) -> Sequence[PortProtocol]:
    """Without a port: what must pass does where the destination listens, what must not nowhere."""
    if it.expected is Verdict.DROPPED:
        return ()
    ends = named_ends(cluster, it.destination)
    if called := service_ports(cluster, ends):
        return called
    own = declared_ports(cluster, [pod for pod in cluster.pods if pod.key in ends])
    if not own:
        raise BadQuestion(f"{it.destination} declares no port; give one with port")
    return own
