"""`ringfence policy apply`, `test`, `lint` and `convert`: Kyverno policies without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from generators.output import TABLE, output_option, structured, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generators.documents.json import ObjectKey, Value
    from generators.kyverno.model import Document
    from generators.kyverno.offline.applying import Applied, Values
    from generators.kyverno.offline.lint import LintFinding
    from generators.kyverno.offline.loading import Loaded
    from generators.kyverno.offline.testing import Case, CaseSelector
    from generators.kyverno.results import RuleResult

EXIT_NO = 1


@click.group()
def policy() -> None:
    """Ask about policies: what applies, what Kyverno policies do, whether they are right."""


@policy.command()
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@click.option(
    "-r", "--resource", "resources", multiple=True, required=True, help="Objects to apply them to."
)
@click.option(
    "--target-resource",
    "--target-resources",
    "targets",
    multiple=True,
    help="Existing objects that rules may change, clone or look up.",
)
@click.option("-f", "--values-file", help="Values of variables (kind: Values).")
@click.option("--set", "settings", help="Values of variables: name=value,name=value.")
@click.option("-u", "--userinfo", help="The requester (kind: UserInfo).")
@output_option
@click.pass_context
def apply(
    context: click.Context,
    policies: tuple[str, ...],
    resources: tuple[str, ...],
    targets: tuple[str, ...],
    values_file: str | None,
    settings: str | None,
    userinfo: str | None,
    output: str,
) -> None:
    """Print what the policies make of objects: mutated, generated, and a result for each rule."""
    from generators.documents.json import object_key_of
    from generators.kyverno.offline import applying
    from generators.kyverno.offline.loading import load_policies, load_resources

    if values_file and settings:
        raise click.UsageError("--values-file and --set exclude each other")
    loaded = load_policies(policies)
    found, warnings = load_resources(resources)
    others, more = load_resources(targets)
    for message in (*map(str, loaded.problems), *warnings, *more):
        warn([message])
    applied = applying.apply(
        loaded.policies,
        [resource.document for resource in found],
        [resource.document for resource in others],
        _values(values_file, settings),
        applying.load_requester(userinfo) if userinfo else None,
    )
    declared = [object_key_of(r.document) for r in (*found, *others) if _declares_name(r.document)]
    if output == TABLE:
        click.echo(_apply_text(loaded, len(found), applied, declared), nl=False)
    else:
        document = _apply_document(loaded, applied, declared)
        click.echo(structured(document, output), nl=False)
    outcomes = {result.outcome for result in applied.results}
    if loaded.problems or outcomes & {"fail", "error"}:
        context.exit(EXIT_NO)


def _values(file: str | None, settings: str | None) -> Values:
    from generators.kyverno.context import dotted
    from generators.kyverno.offline.applying import Values, load_values

    if file:
        return load_values(file)
    given: dict[str, Value] = {}
    for pair in settings.split(",") if settings else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f'--set: "{pair}" is not NAME=VALUE')
        given[key.strip()] = value
    return Values(everywhere=dotted(given))


def _declares_name(document: Document) -> bool:
    from generators.documents.json import labels_of
    from generators.objects import NAME_LABEL

    return NAME_LABEL in labels_of(document)


def _objects(
    applied: Applied, declared: Sequence[ObjectKey]
) -> tuple[list[Document], list[Document], list[Document]]:
    """Mutated objects as all policies left them, targets, generated objects."""
    from generators.documents.json import object_key_of
    from generators.kyverno.offline.applying import presented

    mutated = list(dict.fromkeys(object_key_of(change.after) for change in applied.mutated))
    targets = {object_key_of(change.after): change.after for change in applied.targets}
    return (
        [presented(applied.final[key], declared) for key in mutated],
        [presented(targets[key], declared) for key in sorted(targets)],
        [wanted.document for wanted in applied.generated],
    )


def _result_document(result: RuleResult) -> dict[str, object]:
    return {
        "policy": result.policy,
        "rule": result.rule,
        "resource": str(result.target or result.resource),
        "result": result.outcome.value,
        "message": result.message,
    }


def _apply_document(
    loaded: Loaded, applied: Applied, declared: Sequence[ObjectKey]
) -> dict[str, object]:
    from generators.kyverno.offline.applying import shown_results

    mutated, targets, generated = _objects(applied, declared)
    return {
        "mutated": mutated,
        "targets": targets,
        "generated": generated,
        "results": [_result_document(result) for result in shown_results(applied)],
        "problems": [str(problem) for problem in loaded.problems],
    }


def _apply_text(loaded: Loaded, count: int, applied: Applied, declared: Sequence[ObjectKey]) -> str:
    from generators.documents.writing import to_yaml
    from generators.kyverno.offline.applying import shown_results

    rules = sum(len(policy.rules) for policy in loaded.policies)
    text = [f"Applying {rules} policy rule(s) to {count} resource(s)...\n"]
    headings = ("mutated", "patched targets", "generated")
    for heading, documents in zip(headings, _objects(applied, declared), strict=True):
        if documents:
            text.append(f"\n# {heading}\n")
            text += [f"{to_yaml([document])}---\n" for document in documents]
    results = shown_results(applied)
    text.append("\n")
    for result in results:
        subject = str(result.target or result.resource)
        text.append(f"{result.outcome.value:<5} {result.policy}/{result.rule}: {subject}\n")
        text.append(f"      {result.message}\n")
    words = ("pass", "fail", "warn", "error", "skip")
    counts = {word: sum(r.outcome == word for r in results) for word in words}
    counts["error"] += len(loaded.problems)
    text.append("\n" + ", ".join(f"{word}: {n}" for word, n in counts.items()) + "\n")
    return "".join(text)


@policy.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--file-name", default="kyverno-test.yaml", show_default=True, help="Test files.")
@click.option(
    "--test-case-selector", "selector", default="", help='"policy=P,rule=R,resource=X", wildcards.'
)
@click.option("--fail-only", is_flag=True, help="Print failures only.")
@click.option("--require-tests", is_flag=True, help="Fail when there are no tests.")
@click.option("--detailed-results", is_flag=True, help="Give reasons for passed cases too.")
@output_option
@click.pass_context
def test(
    context: click.Context,
    paths: tuple[str, ...],
    file_name: str,
    selector: str,
    fail_only: bool,
    require_tests: bool,
    detailed_results: bool,
    output: str,
) -> None:
    """Run kyverno-test.yaml files, unchanged."""
    from generators.kyverno.offline.testing import find_files, run_files

    files = find_files(paths, file_name)
    report = run_files(files, _selector(selector))
    warn(report.warnings)
    cases = [case for case in report.cases if not (fail_only and case.ok)]
    passed = sum(case.ok for case in report.cases)
    failed = len(report.cases) - passed
    if output == TABLE:
        text = "".join(_case_text(case, detailed_results) for case in cases)
        click.echo(f"{text}\n{passed} passed, {failed} failed")
    else:
        tests = [_case_document(case) for case in cases]
        document = {"tests": tests, "summary": {"passed": passed, "failed": failed}}
        click.echo(structured(document, output), nl=False)
    if require_tests and not report.cases:
        warn([f"there are no tests called {file_name}"])
        context.exit(EXIT_NO)
    if failed:
        context.exit(EXIT_NO)


def _selector(text: str) -> CaseSelector:
    from generators.kyverno.offline.testing import CaseSelector

    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.strip().partition("=")
        if not equals or key not in ("policy", "rule", "resource"):
            wanted = "policy=P,rule=R,resource=X"
            raise click.UsageError(f'--test-case-selector: "{part}" is not of {wanted}')
        given[key] = value or "*"
    return CaseSelector(**given)


def _case_document(case: Case) -> dict[str, object]:
    return {
        "file": case.file,
        "policy": case.policy,
        "rule": case.rule,
        "resource": case.resource,
        "expected": case.expected,
        "actual": case.actual,
        "ok": case.ok,
        "message": case.message,
    }


def _case_text(case: Case, detailed: bool) -> str:
    line = f"{'ok  ' if case.ok else 'FAIL'} {case.policy}/{case.rule}: {case.resource}"
    if case.ok and not detailed:
        return f"{line}\n"
    told = f"expected {case.expected}, got {case.actual}: {case.message} ({case.file})"
    return f"{line}\n     {told}\n"


@policy.command()
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@output_option
@click.pass_context
def lint(context: click.Context, policies: tuple[str, ...], output: str) -> None:
    """Say what of Kyverno's and Cilium's policies is not supported, and what never matches."""
    from generators.kyverno.offline.lint import lint as find
    from generators.kyverno.offline.loading import load_policies
    from generators.manifests import lint_cilium

    cilium = lint_cilium(policies)
    findings = find(load_policies(policies), cilium.refused, cilium.overruled)
    if output == TABLE:
        click.echo("".join(f"{finding}\n" for finding in findings), nl=False)
    else:
        document = {"findings": [_finding_document(finding) for finding in findings]}
        click.echo(structured(document, output), nl=False)
    if findings:
        context.exit(EXIT_NO)


@policy.command()
@click.argument("policies", nargs=-1, required=True, metavar="POLICY...")
@click.pass_context
def convert(context: click.Context, policies: tuple[str, ...]) -> None:
    """Print the tenant file that says what policies say which label namespaces and isolate them.

    What it cannot say stands in comments at its end. It is in mode audit, which cuts nothing.
    """
    from generators.isolation.conversion import convert as converted
    from generators.isolation.conversion import tenant_file
    from generators.kyverno.offline.loading import is_left_to_kyverno, load_policies

    loaded = load_policies(policies)
    warn(str(problem) for problem in loaded.problems)
    click.echo(tenant_file(converted(loaded.policies)), nl=False)
    if not loaded.policies and not loaded.problems:
        files = ", ".join(policies)
        warn([f"no ClusterPolicy or Policy in {files}; name the files that hold some"])
        context.exit(EXIT_NO)
    if any(not is_left_to_kyverno(problem) for problem in loaded.problems):
        context.exit(EXIT_NO)


def _finding_document(finding: LintFinding) -> dict[str, object]:
    return {
        "file": finding.place.file,
        "line": finding.place.line,
        "path": finding.place.path,
        "sort": finding.sort.value,
        "policy": finding.policy,
        "rule": finding.rule,
        "what": finding.what,
        "fix": finding.fix,
    }
