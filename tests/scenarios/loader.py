"""Scenario files: objects and who reaches whom, in one YAML that people can read and run.

    ringfence matrix -f tests/scenarios/NAME.yaml [-c tests/scenarios/NAME.tenants.yaml]

The document of kind `Scenario` (which the command skips, with a warning) says what to expect:

    externals: [ADDR, ...]                           addresses outside the cluster that take part
    reaches:
      - {to: NS/POD, port: PORT/PROTO, from: WHO}    exactly these reach it (and the pod itself);
                                                     everyone, nobody, everyone but NS/POD, a list
        family: IPv4                                 if only one family behaves like this
    verdicts:                                        single cells, with the reason
      - {from: A, to: B, port: PORT/PROTO, verdict: V, reason: R, rule: RULE}

Any engine can be asked for the cells of `questions()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from generators.addresses import Family
from generators.cluster import Cluster, from_objects
from generators.manifests import read
from generators.matrix import PortProtocol, end_of, ends, external, single_question
from generators.reachability import Question
from generators.tenants.load import load_tenants

HERE = Path(__file__).parent
_BUT = "everyone but "

# Functional syntax: `from` is a keyword.
Reach = TypedDict(
    "Reach", {"to": str, "port": str, "from": "str | list[str]", "family": NotRequired[str]}
)
ExpectedCell = TypedDict(
    "ExpectedCell",
    {
        "from": str,
        "to": str,
        "port": str,
        "verdict": str,
        "reason": NotRequired[str],
        "rule": NotRequired[str],
    },
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file: the cluster, and what is expected of it."""

    name: str
    cluster: Cluster
    externals: tuple[str, ...]
    reaches: tuple[Reach, ...]
    verdicts: tuple[ExpectedCell, ...]

    def expected(self) -> Mapping[Question, bool]:
        """Every question that the file answers, and whether the connection passes."""
        found: dict[Question, bool] = {}
        everyone = [*ends(self.cluster), *self.externals]
        for reach in self.reaches:
            allowed = self._sources(reach["from"], everyone) | {reach["to"]}
            for question in self._questions(reach, everyone):
                found[question] = question.source in allowed
        return found

    def _questions(self, reach: Reach, everyone: list[str]) -> Iterator[Question]:
        wanted = PortProtocol.parse(reach["port"])
        target, families = end_of(self.cluster, reach["to"])
        for source in everyone:
            if source.startswith("ip/") and target.startswith("ip/"):
                continue
            for common in sorted(families & end_of(self.cluster, source)[1]):
                if reach.get("family", common) == common:
                    yield Question(source, target, wanted.protocol, wanted.port, Family(common))

    @staticmethod
    def _sources(who: str | list[str], everyone: list[str]) -> set[str]:
        if isinstance(who, list):
            unknown = set(who) - set(everyone)
            assert not unknown, f"the scenario names {unknown}, which it does not have"
            return set(who)
        if who.startswith(_BUT):
            excluded = who.removeprefix(_BUT)
            assert excluded in everyone, f"the scenario names {excluded}, which it does not have"
            return set(everyone) - {excluded}
        assert who in ("everyone", "nobody"), f"{who!r} is nobody whom scenarios know"
        return set(everyone) if who == "everyone" else set()

    def question(self, cell: ExpectedCell) -> Question:
        """The question behind an expected cell."""
        wanted = PortProtocol.parse(cell["port"])
        return single_question(self.cluster, cell["from"], cell["to"], wanted)


def paths() -> list[Path]:
    """All scenario files."""
    return sorted(p for p in HERE.glob("*.yaml") if not p.name.endswith(".tenants.yaml"))


def load(path: Path) -> Scenario:
    """Read one file, with the tenant file beside it if there is one."""
    tenants = path.with_suffix(".tenants.yaml")
    config = load_tenants(tenants) if tenants.exists() else None
    cluster = from_objects(read([str(path)]), config)
    documents = yaml.safe_load_all(path.read_text())
    said = next(d for d in documents if d["kind"] == "Scenario")
    return Scenario(
        name=path.stem,
        cluster=cluster,
        externals=tuple(external(address) for address in said.get("externals", [])),
        reaches=tuple(cast("list[Reach]", said["reaches"])),
        verdicts=tuple(cast("list[ExpectedCell]", said.get("verdicts", []))),
    )
