"""Grants that tenants agree on by themselves, where the tenant file says `grants: self-service`.

Each side writes its word into an annotation of one of its namespaces:

    kubectl annotate namespace shop-test01 ringfence.io/grants='test01 from test02:5432/TCP'
    kubectl annotate namespace app-test02 ringfence.io/grants='test02 to test01'

The first name says whose word it is: admission takes it from that tenant's members alone, and it
counts only in a namespace that the record gives to that tenant, so no move and no forged label lets
it speak for another. Pure; `with_consents` gives the tenant file as if it said so itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter

from generators.labels import GRANTS_ANNOTATION
from generators.objects import Namespace
from generators.tenants.model import LAST_PORT, Grant, Port, Tenant, TenantConfig, all_ports

MOST_WORDS = 16
"""Consents in one namespace, and ports in one consent."""
LONGEST = 1_024
"""Characters of all of them together: the record keeps them, and has room for every tenant."""
MOST_PORTS = 64
"""Of one tenant's words about another, from all its namespaces: walls hold them on every node."""
_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_WORD = re.compile(rf"(?P<own>{_NAME}) +(?P<side>from|to) +(?P<other>{_NAME})(:(?P<ports>\S+))?")
_PORT = re.compile(
    r"(?P<first>\d{1,5})(-(?P<last>\d{1,5}))?(/(?P<protocol>TCP|UDP|SCTP))?|(?P<all>TCP|UDP|SCTP)"
)
"""A bare number is TCP's; a bare protocol is all of its ports."""
FORM = '"OWN from OTHER" or "OWN to OTHER", each with or without :PORT[-PORT][/PROTOCOL][+...]'


class Side(StrEnum):
    """Whether the other may enter us, or we it."""

    FROM = "from"
    TO = "to"


class UnclearConsent(ValueError):
    """The annotation says nothing that can be understood; nothing of it counts."""


@dataclass(frozen=True, slots=True)
class Consent:
    """One side's word. No ports = all."""

    tenant: str
    side: Side
    other: str
    ports: tuple[Port, ...] = ()

    def __str__(self) -> str:
        ports = "+".join(map(str, self.ports))
        return f"{self.tenant} {self.side} {self.other}" + (f":{ports}" if ports else "")


def parse_consents(text: str) -> tuple[Consent, ...]:
    """What an annotation says, sorted; UnclearConsent says what is wrong and how to write it."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    if len(words) > MOST_WORDS:
        raise UnclearConsent(f"{len(words)} consents are too many; write {MOST_WORDS} at most")
    found = tuple(sorted(set(map(_consent, words)), key=str))
    if (length := len(consents_text(found))) > LONGEST:
        raise UnclearConsent(
            f"the consents have {length} characters; {LONGEST} is the most, join ports into ranges"
        )
    return found


def consents_text(consents: Iterable[Consent]) -> str:
    """The annotation that says so."""
    return ", ".join(map(str, consents))


def said_in(annotations: Mapping[str, str], tenant: str) -> tuple[Consent, ...]:
    """The words of a tenant in the annotations of its namespace; none where they are unclear."""
    try:
        said = parse_consents(annotations.get(GRANTS_ANNOTATION, ""))
    except UnclearConsent:
        return ()
    return tuple(consent for consent in said if consent.tenant == tenant)


def unusable(config: TenantConfig, consent: Consent) -> str | None:
    """Why a word can mean nothing under this tenant file, and what to do; None: it can."""
    speaker = config.tenants.get(consent.tenant)
    for name in (consent.tenant, consent.other):
        if name not in config.tenants:
            return f"{config.file} has no tenant {name}; correct the name"
    if speaker is not None and not speaker.self_service:
        where = config.place(speaker.line)
        return (
            f"tenant {consent.tenant} ({where}) may not grant by itself; ask an admin for the grant"
            f" or for `grants: self-service`"
        )
    return None


def with_consents(config: TenantConfig, said: Mapping[str, tuple[Consent, ...]]) -> TenantConfig:
    """The tenant file with what tenants say in namespaces (namespace -> its words).

    A word counts where the file leaves grants to its tenant; without any, it is the same object.
    """
    words: dict[tuple[str, Side, str], list[Grant]] = {}
    for namespace, consents in sorted(said.items()):
        for consent in consents:
            speaker = config.tenants.get(consent.tenant)
            known = consent.other in config.tenants and consent.other != consent.tenant
            if speaker is not None and speaker.self_service and known:
                key = (consent.tenant, consent.side, consent.other)
                grant = Grant(consent.other, consent.ports, objects=(namespace,))
                words.setdefault(key, []).append(grant)
    if not words:
        return config
    speaking = {tenant for tenant, _, _ in words}
    return replace(
        config,
        tenants={
            name: _saying(tenant, words) if name in speaking else tenant
            for name, tenant in config.tenants.items()
        },
    )


def by_annotations(
    config: TenantConfig, namespaces: Iterable[Namespace], tenants: Mapping[str, str]
) -> tuple[TenantConfig, tuple[str, ...]]:
    """The tenant file with what namespaces say, as if members had written it; and warnings.

    `tenants`: whose each namespace is.
    """
    said: dict[str, tuple[Consent, ...]] = {}
    warnings = []
    for namespace in namespaces:
        where = f"{namespace.origin}: Namespace {namespace.name}: {GRANTS_ANNOTATION}"
        own = []
        try:
            found = parse_consents(namespace.annotations.get(GRANTS_ANNOTATION, ""))
        except UnclearConsent as error:
            warnings.append(f"{where}: {error}")
            continue
        for consent in found:
            wrong = unusable(config, consent)
            if tenants.get(namespace.name) != consent.tenant:
                owner = tenants.get(namespace.name)
                whose = f"tenant {owner}" if owner else "no tenant"
                wrong = f"the namespace belongs to {whose}; write it into one of {consent.tenant}"
            if wrong is None:
                own.append(consent)
            else:
                warnings.append(f'{where}: "{consent}" counts for nothing: {wrong}')
        if own:
            said[namespace.name] = tuple(own)
    return with_consents(config, said), tuple(warnings)


def _saying(tenant: Tenant, words: Mapping[tuple[str, Side, str], list[Grant]]) -> Tenant:
    sides = {}
    for side, given in ((Side.FROM, tenant.allow_from), (Side.TO, tenant.allow_to)):
        grants = {grant.tenant: grant for grant in given}
        for (speaker, at, other), more in words.items():
            if (speaker, at) == (tenant.name, side):
                every = _with_room([grants[other], *more] if other in grants else more)
                grants[other] = Grant(
                    other,
                    all_ports(grant.ports for grant in every),
                    every[0].line,
                    tuple(name for grant in every for name in grant.objects),
                )
        named = [grants.pop(grant.tenant) for grant in given]
        sides[side] = (*named, *sorted(grants.values(), key=attrgetter("tenant")))
    return replace(tenant, allow_from=sides[Side.FROM], allow_to=sides[Side.TO])


def _with_room(grants: Iterable[Grant]) -> list[Grant]:
    """Those whose ports find room beside the ones before them."""
    found: list[Grant] = []
    ports: tuple[Port, ...] = ()
    for grant in grants:
        every = all_ports((*([ports] if found else []), grant.ports))
        if not found or len(every) <= max(MOST_PORTS, len(ports)):
            found.append(grant)
            ports = every
    return found


def _consent(word: str) -> Consent:
    found = _WORD.fullmatch(word)
    if found is None:
        raise UnclearConsent(f'"{word[:100]}" is no consent; write {FORM}')
    if found["own"] == found["other"]:
        raise UnclearConsent(f'"{word[:100]}": a tenant reaches itself already; leave it out')
    given = found["ports"].split("+") if found["ports"] else []
    if len(given) > MOST_WORDS:
        raise UnclearConsent(f'"{word[:100]}" has more than {MOST_WORDS} ports')
    ports = tuple(sorted({_port(text) for text in given}, key=attrgetter("protocol", "span")))
    return Consent(found["own"], Side(found["side"]), found["other"], ports)


def _port(text: str) -> Port:
    found = _PORT.fullmatch(text)
    if found is None:
        raise UnclearConsent(f'"{text[:50]}" is no port; write 5432, 8000-8010/UDP or SCTP')
    if found["all"]:
        return Port(found["all"])
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not 1 <= first <= last <= LAST_PORT:
        raise UnclearConsent(f'"{text[:50]}" is no port; they go from 1 to {LAST_PORT}, upwards')
    return Port(found["protocol"] or "TCP", first, None if last == first else last)
