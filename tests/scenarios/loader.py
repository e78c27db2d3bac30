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
    then:                                            what happens next, and what holds afterwards
      - {what: WORDS, apply: [OBJECT, ...], delete: [KIND NS/NAME, ...], reaches: ..., ...}
    realPackets: true                                also played by real packets in a lab
    record: true                                     tenants by the record in ConfigMaps, nothing
                                                     generated: what an enforcer sees

Any engine can be asked for the cells of a moment's questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from generators.addresses import Family
from generators.cluster import Cluster, from_objects, from_record
from generators.manifests import Documents, read, read_bytes
from generators.objects import CiliumPolicy
from generators.reachability.ends import ends, external, one_end
from generators.reachability.matrix import PortProtocol, single_question
from generators.reachability.packets import Question, is_hairpin
from generators.reachability.reference import Evaluator
from generators.tenants.load import load_tenants
from generators.tenants.model import TenantConfig

HERE = Path(__file__).parent
KIND = "Scenario"
_BUT = "everyone but "
_CLUSTER_SCOPED = ("Namespace", "Node", "CiliumClusterwideNetworkPolicy")

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


class Step(TypedDict):
    """One item of `then`."""

    what: str
    apply: NotRequired[list[dict[str, object]]]
    delete: NotRequired[list[str]]
    reaches: list[Reach]
    verdicts: NotRequired[list[ExpectedCell]]


class Said(TypedDict):
    """The document of kind Scenario."""

    externals: NotRequired[list[str]]
    reaches: list[Reach]
    verdicts: NotRequired[list[ExpectedCell]]
    then: NotRequired[list[Step]]
    realPackets: NotRequired[bool]
    record: NotRequired[bool]


@dataclass(frozen=True, slots=True)
class Moment:
    """The cluster at one point of a scenario, and what is expected of it."""

    what: str
    documents: Documents
    cluster: Cluster
    externals: tuple[str, ...]
    reaches: tuple[Reach, ...]
    verdicts: tuple[ExpectedCell, ...]

    def expected(self) -> Mapping[Question, bool]:
        """Every question that the file answers, and whether the connection passes."""
        found: dict[Question, bool] = {}
        everyone = [*ends(self.cluster), *self.externals]
        evaluator = Evaluator(self.cluster)
        for reach in self.reaches:
            allowed = self._sources(reach["from"], everyone) | {reach["to"]}
            for question in self._questions(reach, everyone):
                # What comes back to the caller itself is never part of pass and fail.
                if not any(is_hairpin(packet) for packet in evaluator.packets(question)):
                    found[question] = question.source in allowed
        return found

    def _questions(self, reach: Reach, everyone: list[str]) -> Iterator[Question]:
        wanted = PortProtocol.parse(reach["port"])
        target, families = one_end(self.cluster, reach["to"])
        for source in everyone:
            if source.startswith("ip/") and target.startswith("ip/"):
                continue
            for common in sorted(families & one_end(self.cluster, source)[1]):
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


@dataclass(frozen=True, slots=True)
class Scenario:
    """One file: its first moment, and what happens next."""

    path: Path
    config: TenantConfig | None
    said: Said
    moments: tuple[Moment, ...]

    @property
    def cluster(self) -> Cluster:
        """The cluster at first."""
        return self.moments[0].cluster


def paths() -> list[Path]:
    """All scenario files."""
    return sorted(p for p in HERE.glob("*.yaml") if not p.name.endswith(".tenants.yaml"))


def tenants_beside(path: Path) -> Path:
    """Where a scenario's tenant file is."""
    return path.with_suffix(".tenants.yaml")


def said_in(path: Path) -> Said:
    """What a file expects, without reading its objects."""
    found = (d for d in yaml.safe_load_all(path.read_text()) if d["kind"] == KIND)
    return cast("Said", next(found))


def load(path: Path) -> Scenario:
    """Read one file, with the tenant file beside it if there is one."""
    tenants = tenants_beside(path)
    config = load_tenants(tenants) if tenants.exists() else None
    said = said_in(path)
    documents = read([str(path)])
    moments = [_moment(said, "at first", documents, config, said["reaches"], said.get("verdicts"))]
    for step in said.get("then", []):
        documents = changed(documents, step)
        found = _moment(
            said, step["what"], documents, config, step["reaches"], step.get("verdicts")
        )
        moments.append(found)
    return Scenario(path, config, said, tuple(moments))


def _moment(
    said: Said,
    what: str,
    documents: Documents,
    config: TenantConfig | None,
    reaches: list[Reach],
    verdicts: list[ExpectedCell] | None,
) -> Moment:
    make = from_record if said.get("record", False) else from_objects
    return Moment(
        what=what,
        documents=documents,
        cluster=make(documents, config),
        externals=tuple(external(address) for address in said.get("externals", [])),
        reaches=tuple(reaches),
        verdicts=tuple(verdicts or ()),
    )


def changed(documents: Documents, step: Step) -> Documents:
    """The documents with a step's objects in place of their old ones, without those deleted."""
    applied = read_bytes(yaml.safe_dump_all(step.get("apply", [])).encode(), step["what"])
    gone = set(step.get("delete", []))
    found = {}
    for one in fields(Documents):
        if one.name == "warnings":
            continue
        old = {_name(item): item for item in getattr(documents, one.name)}
        new = {_name(item): item for item in getattr(applied, one.name)}
        found[one.name] = tuple(item for key, item in {**old, **new}.items() if key not in gone)
        gone -= old.keys()
    assert not gone, f"the step deletes {gone}, which is not there"
    return replace(documents, **found)


def _name(item: object) -> str:
    kind, name = type(item).__name__, getattr(item, "name", "")
    if isinstance(item, CiliumPolicy):
        kind = item.kind.value
    home = "" if kind in _CLUSTER_SCOPED else f"{getattr(item, 'namespace', '')}/"
    return f"{kind} {home}{name}"
