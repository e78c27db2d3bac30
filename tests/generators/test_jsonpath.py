"""`-o jsonpath=...`: each answer here is kubectl's own, recorded with its client 1.32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from generators.documents.jsonpath import JsonPathError, parse

Run = Callable[..., CompletedProcess[str]]

DOCUMENT = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "m", "labels": {"a.b/c": "x", "z": "q"}},
    "rows": [
        {"n": "a", "p": [1, 2], "w": 1.5, "ok": True, "no": None},
        {"n": "b", "p": [3], "w": 2, "ok": False},
        {"n": "c d", "p": [4], "q": {"k": "v"}},
    ],
}


@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("plain", "plain"),
        ("{.kind}", "ConfigMap"),
        ("{$.kind}", "ConfigMap"),
        ("{.nothing}", ""),
        ("{.metadata.name}{'-'}{.kind}", "m-ConfigMap"),
        ('{.metadata.name}{"\\t"}{.kind}\\n', "m\tConfigMap\\n"),
        ('{"a}b"}', "a}b"),
        ("{1.5}{2}{true}", "1.52true"),
        ("{.rows[*].n}", "a b c d"),
        ("{.rows[0].n}{.rows[-1].n}", "ac d"),
        ("{.rows[0:2].n}", "a b"),
        ("{.rows[::2].n}", "a c d"),
        ("{.rows[1:1].n}", ""),
        ("{.rows[0,2].n}", "a c d"),
        ("{.rows[0]['n','p']}", "a [1,2]"),
        ("{.rows[0].no}", "null"),
        ("{.rows[0].ok}", "true"),
        ("{.rows[*].p[*]}", "1 2 3 4"),
        ("{.rows.n}", ""),
        ("{..n}", "a b c d"),
        ("{.metadata.labels}", '{"a.b/c":"x","z":"q"}'),
        ("{.metadata.labels.a\\.b/c}", "x"),
        ("{.metadata.labels['a\\.b/c']}", "x"),
        ('{range .rows[*]}{.n}{"\\n"}{end}', "a\nb\nc d\n"),
        ("{range .rows[*]}{.n}", "abc d"),
        ("{range .rows[*]}{.n}:{range .p[*]}{@},{end};{end}|", "a:1,2,;b:3,;c d:4,;|"),
        ("{range .nothing[*]}{.n}{end}|", "|"),
        ('{.rows[?(@.n=="b")].p[0]}', "3"),
        ("{.rows[?(@.n=='b')].n}", "b"),
        ('{.rows[?(@.n=="c d")].q.k}', "v"),
        ('{.rows[?(@.n=="x)y")].n}', ""),
        ('{.rows[?(@.n!="b")].n}', "a c d"),
        ("{.rows[?(@.ok)].n}", "a b"),
        ("{.rows[?(@.ok==true)].n}", "a"),
        ("{.rows[?(@.p[0]>=3)].n}", "b c d"),
    ],
)
def test_a_template_prints_what_kubectl_prints(template: str, printed: str) -> None:
    assert parse(template).render(DOCUMENT) == printed


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.rows[0", "unterminated array"),
        ("{.a", "unclosed action"),
        ("{#}", "unrecognized character in action: U+0023 '#'"),
        ("{.rows[abc]}", "invalid array index abc"),
        ('{.rows[?(@.n=="b"].n}', "unterminated filter"),
        ('{"abc}', "unterminated quoted string"),
        ('{"\\x"}', 'unquote string "\\x" error invalid syntax'),
        ("{foo}", "unrecognized identifier foo"),
        ("{end}", "not in range, nothing to end"),
        ('{.rows[?(@.n=~"b")].n}', "unrecognized character in action: U+007E '~'"),
        ('{.rows[?(@.n<>"b")].n}', "unrecognized filter operator <>"),
        ("{1.2.3}", "cannot parse number 1.2.3"),
    ],
)
def test_a_bad_template_is_refused_in_kubectls_words(template: str, said: str) -> None:
    with pytest.raises(JsonPathError) as error:
        parse(template)
    assert str(error.value) == f"error parsing jsonpath {template}, {said}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{.rows[5].n}", "array index out of bounds: index 5, length 3"),
        ("{.rows[0:9].n}", "array index out of bounds: index 8, length 3"),
        ("{.rows[2:1]}", "starting index 2 is greater than ending index 1"),
        ("{.rows[?(@.w>1)].n}", "incompatible types for comparison"),
        ("{.rows[?(@.p==1)].n}", "invalid type for comparison"),
        ("{.rows[?(@.p[*]==1)].n}", "can only compare one element at a time"),
        ("{.metadata[0]}", "dict is not array or slice"),
    ],
)
def test_a_template_that_does_not_fit_the_answer_says_where(template: str, said: str) -> None:
    with pytest.raises(JsonPathError) as error:
        parse(template).render(DOCUMENT)
    assert str(error.value) == f'error executing jsonpath "{template}": {said}'


def test_an_answer_that_is_a_list_has_items_as_in_kubectl_and_none_as_in_cilium() -> None:
    listed = [{"tenant": "a"}, {"tenant": "b"}]
    assert parse("{.items[*].tenant}").render(listed) == "a b"
    assert parse("{[*].tenant}").render(listed) == "a b"


def test_an_empty_list_hides_no_later_one() -> None:
    """kubectl 1.32 to 1.37 prints nothing here."""
    rows = {"rows": [{"p": []}, {"p": [1]}]}
    assert parse("{.rows[*].p[*]}").render(rows) == "1"


def test_commands_take_it(ringfence: Run, checkout: Path, tmp_path: Path) -> None:
    folder = checkout / "examples" / "two-clients"
    given = ["-c", str(folder / "tenants.yaml"), "-f", str(folder / "cluster.yaml")]
    listing = ["tenants", "list", *given, "-o"]
    template = '{range .items[*]}{.tenant}{"\\n"}{end}'
    assert ringfence(*listing, f"jsonpath={template}").stdout == "test01\ntest02\n"
    (tmp_path / "t").write_text(template)
    assert ringfence(*listing, f"jsonpath-file={tmp_path / 't'}").stdout == "test01\ntest02\n"
    found = ringfence(*listing, "jsonpath-as-json={.items[*].tenant}").stdout
    assert json.loads(found) == ["test01", "test02"]
    for wrong, said in {
        "jsonpath={.items": "error parsing jsonpath {.items, unclosed action",
        "jsonpath=": "template format specified but no template given",
        "jsonpath-file=/nowhere": "No such file or directory",
        "xml": 'unable to match a printer for "xml", allowed formats are: table, wide, name, json',
    }.items():
        done = ringfence(*listing, wrong)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    done = ringfence(*listing, "jsonpath={.items[7]}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('ringfence: error executing jsonpath "{.items[7]}": array index')
