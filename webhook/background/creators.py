"""Which kinds the API server sends to the webhook, so that it notes who makes their objects.

Asked by the controller before it believes what triggers say of their creators.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from generators.documents.json import Document, items, mappings
from generators.kube.client import Client
from generators.kube.errors import Forbidden, NotFound
from generators.kube.resources import MUTATING_WEBHOOKS, Resource
from webhook.policies.webhooks import CHANGING
from webhook.registration import configuration as registration

_Sent = tuple[str, str, str, str]


def registered(client: Client, kinds: frozenset[Resource]) -> frozenset[Resource]:
    """Those of the kinds of which every object that is made or changed is seen."""
    try:
        live = client.get(MUTATING_WEBHOOKS, registration.NAME)
    except (NotFound, Forbidden):
        return frozenset()
    sent = set(_sent(live))
    return frozenset(
        kind
        for kind in kinds
        if all((kind.group, kind.version, kind.plural, each.value) in sent for each in CHANGING)
    )


def _sent(configuration: Document) -> Iterator[_Sent]:
    """(group, version, resource, operation), of the webhooks for policies."""
    for webhook in mappings(configuration, "webhooks"):
        if not registration.is_for_policies(webhook):
            continue
        for rule in mappings(webhook, "rules"):
            fields = ("apiGroups", "apiVersions", "resources", "operations")
            yield from product(*(map(str, items(rule, field)) for field in fields))
