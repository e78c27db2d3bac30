"""What an API server would refuse is refused in its words, with place and fix; no traceback."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.errors import InputError
from generators.manifests import read, read_bytes

POLICY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
  - from: [%s]
    ports: [%s]
"""


def problems(text: str | bytes, file: str = "in.yaml") -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(InputError) as caught:
        read_bytes(data, file)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("peer", "path", "words"),
    [
        ("{}", "from[0]", "Required value: must specify a peer"),
        ("{podSelector: null}", "from[0]", "must specify a peer"),
        (
            "{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}",
            "from[0]",
            "Forbidden: may not specify both ipBlock and another peer",
        ),
        ("{ipBlock: {}}", "from[0].ipBlock.cidr", "Required value"),
        ("{ipBlock: {cidr: ''}}", "from[0].ipBlock.cidr", "Required value"),
        ("{ipBlock: {cidr: 10.0.0.0}}", "from[0].ipBlock.cidr", "must be a valid CIDR value"),
        ("{ipBlock: {cidr: 10.0.0.0/33}}", "from[0].ipBlock.cidr", "must be a valid CIDR value"),
        ("{ipBlock: {cidr: 10.0.0/8}}", "from[0].ipBlock.cidr", "must be a valid CIDR value"),
        ("{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}", "from[0].ipBlock.cidr", "must be a valid CIDR"),
        ("{ipBlock: {cidr: 'fe80::1%eth0/64'}}", "from[0].ipBlock.cidr", "must be a valid CIDR"),
        ("{ipBlock: {cidr: 'fd00::/129'}}", "from[0].ipBlock.cidr", "must be a valid CIDR value"),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}", "except[0]", "must be a valid CIDR value"),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}", "except[0]", "strict subset"),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/7]}}", "except[0]", "strict subset"),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}", "except[0]", "strict subset"),
        ("{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/64']}}", "except[0]", "strict subset"),
        ("{podSelectr: {}}", "from[0].podSelectr", 'unknown field "podSelectr"; did you mean'),
        ("{podSelector: []}", "podSelector", "must be an object"),
        ("{podSelector: {matchLabels: {a: -x}}}", "matchLabels.a", "a valid label must be"),
        ("{podSelector: {matchLabels: {'/a': x}}}", "matchLabels./a", "prefix part must be"),
        ("{podSelector: {matchLabels: {a b: x}}}", "matchLabels.a b", "name part must be"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}",
            "matchExpressions[0]",
            "not a valid selector operator",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}",
            "matchExpressions[0]",
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "matchExpressions[0]",
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (
            "{podSelector: {matchExpressions: [{operator: Exists}]}}",
            "matchExpressions[0]",
            "name part must be",
        ),
    ],
)
def test_bad_peers(peer: str, path: str, words: str) -> None:
    found = problems(POLICY % (peer, ""))
    assert all(p.startswith("in.yaml:8: NetworkPolicy x/p: spec.ingress[0].from") for p in found)
    assert any(path in problem and words in problem for problem in found)


@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("{port: 0}", "Invalid value: 0: must be between 1 and 65535, inclusive"),
        ("{port: 65536}", "Invalid value: 65536: must be between 1 and 65535, inclusive"),
        ("{port: 80.5}", "must be an integer"),
        ("{port: true}", "must be an integer"),
        ("{port: '80'}", "must contain at least one letter (a-z); write the number without quotes"),
        ("{port: Http}", "must contain only alpha-numeric characters"),
        ("{port: a--b}", "must not contain consecutive hyphens"),
        ("{port: -a}", "must not begin or end with a hyphen"),
        ("{port: abcdefghijklmnop}", "must be no more than 15 characters"),
        ("{protocol: tcp}", 'Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP"'),
        ("{protocol: ICMP}", "Unsupported value"),
        ("{endPort: 90}", "may not be specified when `port` is not specified"),
        ("{port: web, endPort: 90}", "may not be specified when `port` is non-numeric"),
        ("{port: 90, endPort: 80}", "must be greater than or equal to `port`"),
        ("{port: 90, endPort: 65536}", "must be between 1 and 65535, inclusive"),
        ("{prot: 80}", 'unknown field "prot"'),
        ("80", "must be an object"),
    ],
)
def test_bad_ports(port: str, words: str) -> None:
    found = problems(POLICY % ("", port))
    assert found[0].startswith("in.yaml:9: NetworkPolicy x/p: spec.ingress[0].ports[0]")
    assert words in found[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{podSelector: {}, policyTypes: [ingress]}", 'Unsupported value: "ingress"'),
        ("{podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}", "more than two policyTypes"),
        ("{podSelector: {}, ingres: []}", "unknown field \"ingres\"; did you mean 'ingress'?"),
        ("{podSelector: {}, ingress: {}}", "spec.ingress: Invalid value: {...}: must be a list"),
        ("[]", "spec: Invalid value: [...]: must be an object"),
    ],
)
def test_bad_specs(spec: str, words: str) -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: "
    assert any(words in problem for problem in problems(head + spec))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1", 2, "broken YAML"),
        ("a: 1\n\tb: 2", 2, "broken YAML"),
        ("a: 1\na: 2", 2, "key 'a' is given twice, first in line 1"),
        ("a: &x [*x]", 1, "alias *x has no finished anchor"),
        ("a: *nobody", 1, "broken YAML|no finished anchor"),
        ("[1, 2]: 3", 1, "what follows the JSON value is not JSON|not a Kubernetes object"),
        ("? [1, 2]\n: 3", 1, "a key that is a list or a mapping"),
        ("- 1\n- 2", 1, "not a Kubernetes object"),
        ("just words", 1, "not a Kubernetes object"),
        ("a: 1", 1, "no apiVersion and kind"),
        ("apiVersion: v1\nkind: Namespace\n", 1, "metadata: Required value"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: A}\n", 3, "lowercase RFC 1123 label"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n", 3, "lowercase RFC 1123 label"),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n" % ("a" * 64),
            3,
            "no more than 63",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a_b}\n", 3, "RFC 1123 subdomain"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: 10.0.0.300}\n",
            4,
            "must be a valid IP address",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {phase: running}\n",
            4,
            "Unsupported value",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"
            "spec: {containers: [{ports: [{containerPort: 70000}]}]}\n",
            4,
            "must be between 1 and 65535",
        ),
    ],
)
def test_broken_documents_name_their_line(text: str, line: int, words: str) -> None:
    found = problems(text)[0]
    assert found.startswith(f"in.yaml:{line}: ")
    assert any(word in found for word in words.split("|"))


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(POLICY % ("{}", "{port: 0}"))
    (tmp_path / "b.yaml").write_text("a: [")
    missing = tmp_path / "missing.yaml"
    with pytest.raises(InputError) as caught:
        read([str(tmp_path), str(missing)])
    text = str(caught.value)
    assert "a.yaml:8:" in text
    assert "a.yaml:9:" in text
    assert "b.yaml:" in text
    assert f"{missing}:1: cannot be read: No such file or directory" in text


def test_two_objects_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    document = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: x}\n"
    (tmp_path / "a.yaml").write_text(document)
    (tmp_path / "b.yaml").write_text(f"# again\n{document}")
    with pytest.raises(InputError) as caught:
        read([str(tmp_path)])
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert f"{second}:2: Pod x/p: is given twice, first at {first}:1; keep one" in str(caught.value)


def test_a_namespace_and_a_pod_may_have_one_name() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: x}\n---\n"
    text += "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n"
    found = read_bytes(text.encode(), "f")
    assert [pod.key for pod in found.pods] == ["x/x"]
    assert [namespace.name for namespace in found.namespaces] == ["x"]


def test_a_billion_laughs_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "aliases expand it" in problems("\n".join(lines))[0]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_at_once(opening: str) -> None:
    assert "nested deeper than 100 levels" in problems(opening * 100_000)[0]


def test_text_that_is_not_utf8_is_refused_with_its_line() -> None:
    assert problems(b"a: 1\nb: \xff\n")[0].startswith("in.yaml:2: is not UTF-8 text")


@given(
    st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>%@#'\"\n\t ,?~<0.e").map(str.encode)
)
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with suppress(InputError):
        read_bytes(data, "in.yaml")


@pytest.mark.parametrize(
    ("spec", "path", "words"),
    [
        ("{ports: [{}]}", "spec.ports[0].port", "Required value"),
        ("{ports: [{port: 0}]}", "spec.ports[0].port", "must be between 1 and 65535"),
        ("{ports: [{port: web}]}", "spec.ports[0].port", "must be an integer"),
        ("{ports: [{port: 80, protocol: ICMP}]}", "spec.ports[0].protocol", "Unsupported value"),
        ("{ports: [{port: 80, targetPort: 70000}]}", "targetPort", "must be between 1 and 65535"),
        ("{ports: [{port: 80, targetPort: Http}]}", "targetPort", "must contain only"),
        ("{clusterIP: 10.96.0}", "spec.clusterIP", "must be a valid IP address"),
        ("{clusterIPs: [10.96.0.1, x]}", "spec.clusterIPs[1]", "must be a valid IP address"),
        ("{type: Cluster}", "spec.type", 'Unsupported value: "Cluster"'),
        ("{selector: {a: -}}", "spec.selector.a", "a valid label must be"),
    ],
)
def test_bad_services(spec: str, path: str, words: str) -> None:
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: x}\nspec: "
    (found,) = problems(head + spec)
    assert found.startswith("in.yaml:4: Service x/web: ")
    assert path in found
    assert words in found


@pytest.mark.parametrize(
    ("rest", "path", "words"),
    [
        ("endpoints: [{addresses: [10.0.0]}]", "addresses[0]", "must be a valid IP address"),
        ("endpoints: [{addresses: [10.0.0.1], conditions: {ready: 1}}]", "ready", "a boolean"),
        ("ports: [{port: 65536}]", "ports[0].port", "must be between 1 and 65535"),
        ("ports: [{port: 80, protocol: XYZ}]", "ports[0].protocol", "Unsupported value"),
    ],
)
def test_bad_endpoint_slices(rest: str, path: str, words: str) -> None:
    head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\n"
    (found,) = problems(head + rest)
    assert found.startswith("in.yaml:4: EndpointSlice s: ")
    assert path in found
    assert words in found


def test_slices_of_names_and_of_every_port_have_nothing_to_say() -> None:
    head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\n"
    names = "addressType: FQDN\nendpoints: [{addresses: [example.com]}]\nports: [{port: null}]"
    (found,) = read_bytes((head + names).encode(), "f").slices
    assert (found.endpoints, found.ports) == ((), ())
