"""Who is meant by a text: a pod, a workload, a namespace, a tenant, labels; and what is near."""

from __future__ import annotations

import pytest

from generators.cluster import Cluster, from_objects
from generators.manifests import with_workloads
from generators.objects import Selector
from generators.reachability.ends import BadQuestion, named_ends, one_end
from generators.selectors import BadSelector, parse, text
from tests.generators.builders import TENANTS, config, documents, namespace, pod

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop-blue}
spec: {template: {metadata: {labels: {app: web, tier: front}}, spec: {containers: []}}}
"""
OWNED = """
apiVersion: v1
kind: Pod
metadata:
  name: db-%d
  namespace: shop-red
  labels: {app: db}
  ownerReferences: [{kind: StatefulSet, name: db, controller: true}]
"""


@pytest.fixture(scope="module")
def shop() -> Cluster:
    objects = documents(
        *(namespace(name) for name in ("shop-blue", "shop-red", "ingress", "empty")),
        WEB,
        pod("shop-blue/cache"),
        *(OWNED % number for number in range(2)),
        pod("ingress/nginx"),
        pod("sandbox/visitor"),
    )
    return from_objects(with_workloads(objects), config(TENANTS))


@pytest.mark.parametrize(
    ("meant", "found"),
    [
        ("shop-blue/cache", ["shop-blue/cache"]),
        ("shop-blue/deployment/web", ["shop-blue/deployment/web"]),
        ("shop-blue/deploy/web", ["shop-blue/deployment/web"]),
        ("shop-red/statefulset/db", ["shop-red/db-0", "shop-red/db-1"]),
        ("shop-red/sts/db", ["shop-red/db-0", "shop-red/db-1"]),
        ("shop-blue", ["shop-blue/cache", "shop-blue/deployment/web"]),
        ("tenant/blue", ["shop-blue/cache", "shop-blue/deployment/web"]),
        ("shared/ingress", ["ingress/nginx"]),
        ("tenant/-", ["sandbox/visitor"]),
        ("app=db", ["shop-red/db-0", "shop-red/db-1"]),
        ("shop-blue:app=web,tier=front", ["shop-blue/deployment/web"]),
        ("shop-blue:tier", ["shop-blue/deployment/web"]),
        ("app in (web,nginx)", ["ingress/nginx", "shop-blue/deployment/web"]),
        ("shop-blue:!tier", ["shop-blue/cache"]),
        ("ip/192.0.2.1", ["ip/192.0.2.1"]),
        ("192.0.2.1", ["ip/192.0.2.1"]),
        ("2001:db8::1", ["ip/2001:db8::1"]),
    ],
)
def test_a_text_means_these_pods(shop: Cluster, meant: str, found: list[str]) -> None:
    assert sorted(named_ends(shop, meant)) == found


@pytest.mark.parametrize(
    ("meant", "said"),
    [
        ("shop-blu", 'there is no namespace or address shop-blu; there are: .*did you mean "shop'),
        ("shop-blue/web", 'did you mean "shop-blue/deployment/web"'),
        ("tenant/blu", 'did you mean "tenant/blue"'),
        ("shop-red/sts/dbs", 'did you mean "shop-red/statefulset/db"'),
        ("empty", "empty has no pod with an address"),
        ("app=nobody", "no pod has labels app=nobody"),
        ("nowhere:app=web", "there is no namespace nowhere"),
        ("app==", "no pod has labels"),
        ("app=(", "is no label selector"),
    ],
)
def test_what_means_nothing_says_what_is_near(shop: Cluster, meant: str, said: str) -> None:
    with pytest.raises(BadQuestion, match=said):
        named_ends(shop, meant)


def test_a_workload_is_one_end_and_a_namespace_is_not(shop: Cluster) -> None:
    assert one_end(shop, "shop-red/statefulset/db")[0] == "shop-red/db-0"
    with pytest.raises(BadQuestion, match=r"shop-blue is 2 pods, ask about one of them"):
        one_end(shop, "shop-blue")


@pytest.mark.parametrize(
    "written", ["app=web", "a!=b,c", "!old", "env in (a,b),x=y", "env notin (a,b)", "k8s.io/app=x"]
)
def test_selectors_read_as_they_are_written(written: str) -> None:
    assert text(parse(written)) == written


@pytest.mark.parametrize("written", ["", "a=b=c", "a in b", "a,,b", "-a", "a=(b)"])
def test_what_is_no_selector(written: str) -> None:
    with pytest.raises(BadSelector, match="is no label selector"):
        parse(written)
    assert parse("a") != Selector()
