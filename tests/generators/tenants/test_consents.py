"""Grants that tenants agree on by themselves: how they are written, and what they can open."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.labels import GRANTS_ANNOTATION
from generators.objects import Namespace
from generators.tenants.consents import (
    MOST_PORTS,
    Consent,
    Side,
    UnclearConsent,
    by_annotations,
    consents_text,
    parse_consents,
    said_in,
    with_consents,
)
from generators.tenants.load import parse_tenants
from generators.tenants.model import Port, TenantConfig

FILE = """\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
{grants}
tenants:
  - {{name: blue, namespaces: {{prefixes: [blue-]}}{blue}}}
  - {{name: red, namespaces: {{prefixes: [red-]}}{red}}}
  - {{name: green, namespaces: {{prefixes: [green-]}}{green}}}
"""
BOTH = {"blue-db": "blue from red:5432", "red-web": "red to blue"}


def config(
    grants: str = "grants: self-service", blue: str = "", red: str = "", green: str = ""
) -> TenantConfig:
    text = FILE.format(grants=grants, blue=blue, red=red, green=green)
    return parse_tenants(text.encode(), "tenants.yaml")


def agreed(made: TenantConfig, said: dict[str, str]) -> TenantConfig:
    return with_consents(made, {name: parse_consents(text) for name, text in said.items()})


def entered(made: TenantConfig) -> dict[str, list[tuple[str, str]]]:
    """Tenant -> who may enter it, and at which ports."""
    found = {
        name: [(g.tenant, "+".join(map(str, g.ports))) for g in made.consented(name)]
        for name in made.tenants
    }
    return {name: grants for name, grants in found.items() if grants}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", ()),
        ("blue from red", (Consent("blue", Side.FROM, "red"),)),
        ("blue to red", (Consent("blue", Side.TO, "red"),)),
        ("blue from red:5432", (Consent("blue", Side.FROM, "red", (Port("TCP", 5432),)),)),
        ("blue  from red:53/UDP", (Consent("blue", Side.FROM, "red", (Port("UDP", 53),)),)),
        ("blue from red:SCTP", (Consent("blue", Side.FROM, "red", (Port("SCTP"),)),)),
        (
            "blue from red:80+8000-8010/TCP , blue to green",
            (
                Consent("blue", Side.FROM, "red", (Port("TCP", 80), Port("TCP", 8000, 8010))),
                Consent("blue", Side.TO, "green"),
            ),
        ),
    ],
)
def test_what_an_annotation_means(text: str, meant: tuple[Consent, ...]) -> None:
    assert parse_consents(text) == meant
    assert parse_consents(consents_text(meant)) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("red", '"red" is no consent; write "OWN from OTHER" or "OWN to OTHER"'),
        ("blue from", "is no consent"),
        ("blue from red;green", "is no consent"),
        ("Blue from red", "is no consent"),
        ("blue from red,", '"" is no consent'),
        ("blue from blue", "a tenant reaches itself already"),
        ("blue from red:", "is no consent"),
        ("blue from red:0", '"0" is no port; they go from 1 to 65535'),
        ("blue from red:65536", "is no port"),
        ("blue from red:90-80", "is no port"),
        ("blue from red:http", '"http" is no port; write 5432, 8000-8010/UDP or SCTP'),
        ("blue from red:80/ICMP", "is no port"),
        ("blue from red:80+", '"" is no port'),
        (", ".join(f"blue from t{n}" for n in range(17)), "17 consents are too many"),
        ("blue from red:" + "+".join(map(str, range(1, 18))), "has more than 16 ports"),
        (
            ", ".join(f"blue from {letter * 60}" for letter in "abcdefghijklmnop"),
            "1024 is the most",
        ),
    ],
)
def test_what_cannot_be_understood_is_refused_as_a_whole(text: str, said: str) -> None:
    with pytest.raises(UnclearConsent, match=re.escape(said)):
        parse_consents(text)
    assert said_in({GRANTS_ANNOTATION: text}, "blue") == ()


def test_both_sides_open_the_ports_that_both_name() -> None:
    assert entered(agreed(config(), BOTH)) == {"blue": [("red", "5432/TCP")]}
    narrower = BOTH | {"red-web": "red to blue:5000-5432/TCP+5433"}
    assert entered(agreed(config(), narrower)) == {"blue": [("red", "5432/TCP")]}
    assert entered(agreed(config(), BOTH | {"red-web": "red to blue:80"})) == {}


@pytest.mark.parametrize("missing", BOTH)
def test_one_side_alone_opens_nothing(missing: str) -> None:
    made = agreed(config(), {name: text for name, text in BOTH.items() if name != missing})
    assert entered(made) == {}


@pytest.mark.parametrize(
    "file",
    [
        config(grants=""),
        config(grants="grants: file"),
        config(blue=", grants: file"),
        config(red=", grants: file"),
        config(grants="", blue=", grants: self-service"),
    ],
    ids=["default", "file", "not blue", "not red", "blue alone"],
)
def test_the_file_decides_who_may_grant_by_itself(file: TenantConfig) -> None:
    assert entered(agreed(file, BOTH)) == {}


def test_two_tenants_alone_may_be_left_to_agree() -> None:
    made = config(grants="", blue=", grants: self-service", red=", grants: self-service")
    assert entered(agreed(made, BOTH)) == {"blue": [("red", "5432/TCP")]}


def test_a_word_of_the_file_counts_as_that_side_s() -> None:
    both = ", allowFrom: [{tenant: red, ports: [{port: 80}]}]", ", allowTo: [{tenant: blue}]"
    made = config(blue=both[0], red=both[1])
    assert entered(made) == {"blue": [("red", "80/TCP")]}
    more = agreed(made, {"blue-db": "blue from red:5432"})
    assert entered(more) == {"blue": [("red", "80/TCP+5432/TCP")]}
    assert entered(agreed(made, {"blue-db": "blue from green"})) == entered(made)


def test_a_word_for_a_tenant_that_is_not_there_counts_for_nothing() -> None:
    assert entered(agreed(config(), {"a": "blue from gone", "b": "gone to blue"})) == {}


def test_who_has_many_namespaces_fills_no_wall_with_ports() -> None:
    said = {
        f"{one}-{n:02}": f"{one} {side} {other}:"
        + "+".join(str(n * 100 + 2 * i) for i in range(1, 17))
        for one, side, other in (("blue", "from", "red"), ("red", "to", "blue"))
        for n in range(20)
    }
    (grant,) = agreed(config(), said).consented("blue")
    assert len(grant.ports) == MOST_PORTS
    assert grant.objects == tuple(f"{one}-{n:02}" for one in ("blue", "red") for n in range(4))
    (wide,) = agreed(config(), said | {"blue-00": "blue from red"}).consented("blue")
    assert len(wide.ports) == MOST_PORTS, "the other side still names what it names"


def test_a_grant_names_the_namespaces_of_both_sides() -> None:
    (grant,) = agreed(config(), BOTH).consented("blue")
    assert grant.objects == ("blue-db", "red-web")


words = st.lists(
    st.builds(
        lambda own, side, other, ports: f"{own} {side} {other}{ports}",
        st.sampled_from(["blue", "red", "green", "gone"]),
        st.sampled_from(["from", "to"]),
        st.sampled_from(["violet", "blue2", "red", "green"]),
        st.sampled_from(["", ":80", ":80+443/UDP", ":TCP", ":1-65535"]),
    ).filter(lambda word: word.split()[0] != word.split()[2].partition(":")[0]),
    max_size=6,
)


@given(
    st.dictionaries(st.sampled_from(["blue-a", "blue-b", "red-a", "green-a"]), words),
    st.sets(st.sampled_from(["blue", "red", "green"])),
)
def test_nothing_opens_without_the_words_of_both(
    said: dict[str, list[str]], allowed: set[str]
) -> None:
    service = {name: ", grants: self-service" for name in allowed}
    made = config(grants="", **service)
    after = agreed(made, {name: ", ".join(texts) for name, texts in said.items()})
    spoken = {word.partition(":")[0] for texts in said.values() for word in texts}
    for owner, other in product(made.tenants, made.tenants):
        if other in {grant.tenant for grant in after.consented(owner)}:
            assert {owner, other} <= allowed
            assert {f"{owner} from {other}", f"{other} to {owner}"} <= spoken


def test_offline_a_word_counts_in_a_namespace_of_its_own_tenant() -> None:
    spaces = [
        Namespace("blue-db", annotations={GRANTS_ANNOTATION: "blue from red:5432"}),
        Namespace("red-web", annotations={GRANTS_ANNOTATION: "red to blue, green to blue"}),
        Namespace("other", annotations={GRANTS_ANNOTATION: "blue from green"}),
        Namespace("green-a", annotations={GRANTS_ANNOTATION: "green to violet, green to blue"}),
        Namespace("red-b", annotations={GRANTS_ANNOTATION: "red"}),
    ]
    owners = {"blue-db": "blue", "red-web": "red", "green-a": "green", "red-b": "red"}
    made, warnings = by_annotations(config(), spaces, owners)
    assert entered(made) == {"blue": [("red", "5432/TCP")]}
    assert [text.partition(f"{GRANTS_ANNOTATION}: ")[2][:62] for text in warnings] == [
        '"green to blue" counts for nothing: the namespace belongs to t',
        '"blue from green" counts for nothing: the namespace belongs to',
        '"green to violet" counts for nothing: tenants.yaml has no tena',
        '"red" is no consent; write "OWN from OTHER" or "OWN to OTHER",',
    ]


def test_without_a_word_it_is_the_file_itself() -> None:
    made = config()
    assert with_consents(made, {}) is made
    assert agreed(config(grants=""), BOTH).tenants == config(grants="").tenants
