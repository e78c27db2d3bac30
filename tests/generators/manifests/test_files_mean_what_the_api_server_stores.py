"""What kubectl and the API server take is read as it would be stored; the rest is refused.

One table, asked twice: of our reader, and of `kubectl create --dry-run=server`, whose answer is the
object with the server's defaults. What is compared is what our reader makes of either.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from generators.documents.json import mappings
from generators.errors import InputError
from generators.kube.client import Client
from generators.manifests import Documents, read_bytes
from generators.manifests.kinds import SERVED
from tests.testbed.plane import ControlPlane

POLICY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
SLICE = (
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
    "metadata: {name: e, labels: {kubernetes.io/service-name: s}}\n"
)
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
STREAM = [json.dumps({**MAP, "metadata": {"name": name}}) for name in ("c", "d")]


def container(port: str) -> str:
    return f"{POD}spec: {{containers: [{{name: c, image: x, ports: [{port}]}}]}}\n"


def map_of(text: str) -> str:
    return f'{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "c"}}, {text}}}'


TAKEN: dict[str, str | bytes] = {
    "policy without spec": POLICY,
    "policy of a null spec": f"{POLICY}spec: null\n",
    "policy of an empty spec": f"{POLICY}spec: {{}}\n",
    "policy without podSelector": f"{POLICY}spec: {{policyTypes: [Ingress]}}\n",
    "policy of a null podSelector": f"{POLICY}spec: {{podSelector: null, egress: [{{}}]}}\n",
    "null rule": f"{POLICY}spec: {{podSelector: {{}}, ingress: [null]}}\n",
    "null egress rule": f"{POLICY}spec: {{podSelector: {{}}, egress: [null]}}\n",
    "null port": f"{POLICY}spec: {{podSelector: {{}}, ingress: [{{ports: [null]}}]}}\n",
    "null lists": f"{POLICY}spec: {{podSelector: {{}}, policyTypes: null, ingress: null}}\n",
    "null label": f"{POLICY}spec: {{podSelector: {{matchLabels: {{a: null}}}}}}\n",
    "null value": (
        f"{POLICY}spec: {{podSelector: {{matchExpressions: "
        "[{key: a, operator: In, values: [null, b]}]}}\n"
    ),
    "null labels of its own": POLICY.replace("{name: p}", "{name: p, labels: {a: null}}"),
    "service without spec of ports": f"{SERVICE}spec: {{ports: [{{port: 80}}]}}\n",
    "service of target 0": f"{SERVICE}spec: {{ports: [{{port: 80, targetPort: 0}}]}}\n",
    "service of target ''": f"{SERVICE}spec: {{ports: [{{port: 80, targetPort: ''}}]}}\n",
    "service of protocol ''": f"{SERVICE}spec: {{ports: [{{port: 80, protocol: ''}}]}}\n",
    "service of type ''": f"{SERVICE}spec: {{type: '', ports: [{{port: 80}}]}}\n",
    "service of no address": f"{SERVICE}spec: {{clusterIP: '', ports: [{{port: 80}}]}}\n",
    "service of null fields": (
        f"{SERVICE}spec: {{type: null, selector: null, ports: [{{port: 80, name: null}}]}}\n"
    ),
    "headless": f"{SERVICE}spec: {{clusterIP: None, selector: {{a: b}}}}\n",
    "named target": f"{SERVICE}spec: {{ports: [{{port: 80, targetPort: web}}]}}\n",
    "container of protocol ''": container("{containerPort: 80, protocol: ''}"),
    "container of a null name": container("{containerPort: 80, name: null}"),
    "phase ''": f"{container('{containerPort: 80}')}status: {{phase: '', podIPs: [{{ip: ''}}]}}\n",
    "slice of no ports": f"{SLICE}endpoints: [{{addresses: [10.0.0.1]}}]\n",
    "slice of null conditions": (
        f"{SLICE}ports: [{{port: 80, name: null}}]\n"
        "endpoints: [{addresses: [10.0.0.1], conditions: {ready: null}}]\n"
    ),
    "namespace of a null label": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {a: null}}\n"
    ),
    "node of no ranges": "apiVersion: v1\nkind: Node\nmetadata: {name: x}\nspec: {podCIDR: ''}\n",
    "list of no items": "apiVersion: v1\nkind: List\nitems: []\n---\n" + json.dumps(MAP),
    "stream of JSON": "\n".join(STREAM),
    "stream of JSON without a break": "".join(STREAM),
    "JSON, then YAML": f"{STREAM[0]}\n---\n{POLICY}",
    "character in two halves": map_of(r'"data": {"a": "\ud83d\ude00"}'),
    "half a character": map_of(r'"data": {"a": "\ud83d x"}'),
    "escaped backslashes": map_of(r'"data": {"a": "\\ud83d\\ude00 \/ \u0041\t"}'),
    "white space of others": map_of('"data": {"a": "\u2028\u0085\x7f"}'),
    "tabs between tokens": map_of('\t"data":\t{"a":\t"b"}'),
    "UTF-16": POLICY.encode("utf-16"),
    "UTF-16 the other way round": codecs.BOM_UTF16_BE + POLICY.encode("utf-16-be"),
    "UTF-8 with a mark": codecs.BOM_UTF8 + POLICY.encode(),
}
REFUSED: dict[str, tuple[str, str]] = {
    "null peer": (
        f"{POLICY}spec: {{podSelector: {{}}, ingress: [{{from: [null]}}]}}\n",
        "must specify a peer",
    ),
    "null type": (f"{POLICY}spec: {{podSelector: {{}}, policyTypes: [null]}}\n", 'value: ""'),
    "policy of protocol ''": (
        f"{POLICY}spec: {{podSelector: {{}}, ingress: [{{ports: [{{protocol: ''}}]}}]}}\n",
        'Unsupported value: ""',
    ),
    "service of target '0'": (
        f"{SERVICE}spec: {{ports: [{{port: 80, targetPort: '0'}}]}}\n",
        "must contain at least one letter",
    ),
    "misspelt podSelector": (f"{POLICY}spec: {{podSelectr: {{}}}}\n", 'unknown field "'),
    "policy of a former group": (
        POLICY.replace("networking.k8s.io/v1", "extensions/v1beta1"),
        'no matches for kind "NetworkPolicy" in version "extensions/v1beta1"',
    ),
    "policy of a former version": (
        POLICY.replace("networking.k8s.io/v1", "networking.k8s.io/v1beta1"),
        'no matches for kind "NetworkPolicy" in version "networking.k8s.io/v1beta1"',
    ),
    "policy of no group": (
        POLICY.replace("networking.k8s.io/v1", "v1"),
        'no matches for kind "NetworkPolicy" in version "v1"',
    ),
    "pod of a group": (
        POD.replace("v1", "apps/v1", 1),
        'no matches for kind "Pod" in version "apps/v1"',
    ),
    "misspelt kind": (
        POLICY.replace("NetworkPolicy", "NetworkPolicys"),
        'no matches for kind "NetworkPolicys" in version "networking.k8s.io/v1"',
    ),
}


def meaning(data: bytes) -> Documents:
    """What our reader makes of it, without what a server adds to any object."""
    found = read_bytes(data, "in.yaml")
    return replace(
        found,
        namespaces=tuple(replace(n, uid="") for n in found.namespaces),
        policies=tuple(replace(p, uid="") for p in found.policies),
        pods=tuple(replace(p, uid="", created="", phase="", annotations={}) for p in found.pods),
        services=tuple(replace(s, cluster_ips=()) for s in found.services),
    )


@pytest.mark.parametrize("name", TAKEN)
def test_our_reader_takes_it(name: str) -> None:
    text = TAKEN[name]
    assert read_bytes(text if isinstance(text, bytes) else text.encode(), "in.yaml") != Documents()


@pytest.mark.parametrize("name", REFUSED)
def test_our_reader_refuses_it_in_the_servers_words(name: str) -> None:
    text, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        read_bytes(text.encode(), "in.yaml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("in.yaml:")


NO_YAML_AFTER_JSON = "invalid character '-' in numeric literal"
"""What the kubectl of 1.30 says; that of 1.36 reads on."""


@pytest.fixture
def stored(api: ControlPlane, tmp_path: Path) -> Callable[[str | bytes], str]:
    """What the server would store of a file, as JSON; raises with what kubectl says."""

    def ask(text: str | bytes) -> str:
        file = tmp_path / "in.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        done = api.try_kubectl("create", "--dry-run=server", "-o", "json", "-f", str(file))
        if done.returncode:
            if NO_YAML_AFTER_JSON in done.stderr:
                pytest.skip("kubectl of this release reads no YAML after JSON")
            raise AssertionError(done.stderr)
        return done.stdout

    return ask


@pytest.mark.cluster
@pytest.mark.parametrize("name", TAKEN)
def test_a_real_api_server_means_the_same(stored: Callable[[str | bytes], str], name: str) -> None:
    text = TAKEN[name]
    data = text if isinstance(text, bytes) else text.encode()
    assert meaning(data) == meaning(stored(text).encode())


@pytest.mark.cluster
@pytest.mark.parametrize("name", REFUSED)
def test_a_real_api_server_refuses_it_too(stored: Callable[[str | bytes], str], name: str) -> None:
    text, words = REFUSED[name]
    with pytest.raises(AssertionError) as caught:
        stored(text)
    assert words in str(caught.value)


@pytest.mark.cluster
@pytest.mark.parametrize("api_version", SERVED)
def test_the_kinds_are_those_that_a_real_api_server_serves(
    api: ControlPlane, api_version: str
) -> None:
    path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    with Client.connect(str(api.kubeconfig())) as client:
        resources = mappings(client.read(path), "resources")
    served = {str(item["kind"]) for item in resources if "/" not in str(item["name"])}
    assert served <= SERVED[api_version]
    # Older servers lack the last two.
    assert SERVED[api_version] - served <= {"IPAddress", "ServiceCIDR"}
