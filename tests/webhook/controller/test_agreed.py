"""What the controller makes of recorded consents, and which tenants it looks at again."""

from __future__ import annotations

from collections.abc import Mapping

from generators.tenants.consents import Consent, parse_consents
from generators.tenants.load import parse_tenants
from webhook.controller.agreed import AgreedTenants

FILE = b"""\
apiVersion: ringfence.io/v1alpha1
kind: TenantConfig
grants: self-service
tenants:
  - {name: blue, namespaces: {prefixes: [blue-]}}
  - {name: red, namespaces: {prefixes: [red-]}}
  - {name: green, namespaces: {prefixes: [green-]}}
"""


class Recorded:
    """The part of the record's writer that is asked."""

    def __init__(self) -> None:
        self.consents: Mapping[str, tuple[Consent, ...]] = {}

    def say(self, **said: str) -> None:
        self.consents = {f"{name}-a": parse_consents(text) for name, text in said.items()}


def test_only_tenants_whose_grants_changed_are_looked_at() -> None:
    recorded, file = Recorded(), parse_tenants(FILE, "tenants.yaml")
    agreed = AgreedTenants(lambda: file, recorded)
    assert agreed.moved() == frozenset()
    recorded.say(blue="blue from red")
    assert agreed.moved() == frozenset()
    recorded.say(blue="blue from red", red="red to blue")
    assert agreed.moved() == {"blue"}
    assert agreed.moved() == frozenset()
    assert agreed.config is agreed.config
    recorded.say(blue="blue from red", red="red to blue", green="green to red")
    assert agreed.moved() == frozenset()
    recorded.say(red="red to blue")
    assert agreed.moved() == {"blue"}
