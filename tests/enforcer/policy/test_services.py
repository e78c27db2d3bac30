"""Which Services an address stands for or stands behind, as Services, slices and pods change."""

from __future__ import annotations

from enforcer.policy.services import Calls, Serving
from generators.objects import (
    EndpointSlice,
    Pod,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)

SHOP, PODS = "10.96.0.1", ("10.0.0.1", "10.0.0.2")
TCP_80, TCP_8080 = frozenset({("TCP", 80)}), frozenset({("TCP", 8080)})


def service(name: str, address: str = SHOP) -> Service:
    return Service("shop", name, cluster_ips=(address,), ports=(ServicePort(80),))


def sliced(name: str, *addresses: str) -> EndpointSlice:
    endpoints = tuple(SliceEndpoint((address,)) for address in addresses)
    return EndpointSlice("shop", f"{name}-1", name, endpoints=endpoints, ports=(SlicePort(8080),))


def told(calls: Calls) -> dict[str, list[Serving]]:
    calls.refresh()
    return {address: list(calls.serving(address)) for address in (SHOP, *PODS)}


def test_a_service_is_known_by_its_own_address_and_by_its_backends_with_the_ports_of_each() -> None:
    calls = Calls(lambda namespace: ())
    calls.put_service("shop/web", service("web"))
    assert told(calls) == {SHOP: [], PODS[0]: [], PODS[1]: []}, "no backend, no Service"

    both, one = sliced("web", *PODS), sliced("web", PODS[1])
    calls.put_slice("shop/web-1", both, None)
    behind = [Serving("shop/web", TCP_8080)]
    assert told(calls) == {
        SHOP: [Serving("shop/web", TCP_80)],
        PODS[0]: behind,
        PODS[1]: behind,
    }

    calls.put_slice("shop/web-1", one, both)
    assert told(calls)[PODS[0]] == []
    calls.put_service("shop/web", None)
    assert told(calls) == {SHOP: [], PODS[0]: [], PODS[1]: []}


def test_a_backend_of_several_services_names_each_in_order() -> None:
    calls = Calls(lambda namespace: ())
    for name, address in (("web", SHOP), ("api", "10.96.0.2")):
        calls.put_service(f"shop/{name}", service(name, address))
        calls.put_slice(f"shop/{name}-1", sliced(name, PODS[0]), None)
    assert [item.service for item in told(calls)[PODS[0]]] == ["shop/api", "shop/web"]


def test_without_slices_the_pods_that_a_selector_matches_stand_behind_it() -> None:
    pod = Pod("shop", "web-0", {"app": "web"}, ips=(PODS[0],))
    calls = Calls(lambda namespace: (pod,))
    calls.put_service(
        "shop/web",
        Service(
            "shop",
            "web",
            selector={"app": "web"},
            cluster_ips=(SHOP,),
            ports=(ServicePort(80, target=8080),),
        ),
    )
    assert told(calls)[PODS[0]] == [Serving("shop/web", TCP_8080)]
