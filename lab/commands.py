"""`ringfence lab ...`: the command line of the lab. Only here is anything printed.

Everything heavy is imported by the command that runs, so that `ringfence --help` stays quick and
works without root.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from generators.output import (
    TABLE,
    form_option,
    on_terminal,
    output_option,
    show,
    structured,
    waiting,
    watch_option,
)
from lab.names import DEFAULT_LAB, Places, Shape, places, pod_key

if TYPE_CHECKING:
    from lab.admission import Requester
    from lab.backing import Report

FILES = click.option(
    "-f",
    "--filename",
    "paths",
    multiple=True,
    metavar="PATH",
    help="YAML or JSON files, directories, or - for standard input; may be repeated.",
)
NAME = click.option(
    "--name",
    "lab",
    default=DEFAULT_LAB,
    show_default=True,
    help="Name of the lab; several can run side by side.",
)
CONFIG = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The tenant file. Without it, only NetworkPolicies count.",
)
AS_USER = click.option("--as", "user", metavar="USER", help="User to act as (default: an admin).")
AS_GROUP = click.option(
    "--as-group",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="Group of the user of --as; may be repeated.",
)


@click.group()
def lab() -> None:
    """Pods as network namespaces on this machine, with the real programs on real packets."""


@lab.command()
@CONFIG
@FILES
@click.option("--api-server", is_flag=True, help="Keep the objects on a real API server.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Join this API server instead of starting one.",
)
@click.option(
    "--context",
    "kube_context",
    metavar="NAME",
    help="Context of --kubeconfig to use.",
)
@click.option(
    "--kubelet",
    is_flag=True,
    help="Real nodes: kubelet, containerd and kube-proxy; pods are containers.",
)
@click.option(
    "--nodes", type=int, metavar="N", help="How many nodes  [default: 2 hollow ones, 1 real one]"
)
@click.option("--bare", is_flag=True, help="With --kubelet: no agents, to install them yourself.")
@click.option(
    "--network",
    type=click.Choice([shape.value for shape in Shape]),
    help="How pods are wired: by an unused next hop, an address at each veth, or a bridge  "
    "[default: gateway; ptp with --kubelet]",
)
@NAME
def up(
    config: Path | None,
    paths: tuple[str, ...],
    api_server: bool,
    kubeconfig: Path | None,
    kube_context: str | None,
    kubelet: bool,
    nodes: int | None,
    bare: bool,
    network: str | None,
    lab: str,
) -> None:
    """Start a lab: the webhook, the enforcer, and the objects in PATH as running pods."""
    from lab import session
    from lab.admission import Requester

    where = places(lab)
    if kube_context is not None and kubeconfig is None:
        raise click.UsageError("--context needs --kubeconfig FILE")
    if kubelet and kubeconfig is not None:
        raise click.UsageError("--kubelet brings its own API server; leave out --kubeconfig")
    if kubelet and network == Shape.GATEWAY.value:
        raise click.UsageError("--kubelet takes --network ptp or bridge, as the CNI plugins do")
    if bare and not kubelet:
        raise click.UsageError("--bare needs --kubelet")
    if kubelet or api_server or kubeconfig is not None:
        from lab.api import session as api

        if kubelet:
            wish = api.containers(nodes, network, agents=not bare)
        else:
            wish = api.hollow(kubeconfig, nodes, network, kube_context)
        with waiting(f'starting lab "{lab}" on an API server, about half a minute'):
            report = api.up(where, config, wish, paths)
        click.echo(where.kubeconfig)
        hint = f"`export KUBECONFIG={where.kubeconfig}`, or `ringfence lab kubectl{_option(where)}`"
    elif nodes is not None:
        raise click.UsageError("--nodes needs --api-server, --kubelet or --kubeconfig FILE")
    else:
        shape = Shape(network or Shape.GATEWAY)
        report = session.up(where, config, paths, Requester(), shape)
        hint = f"`ringfence lab probe{_option(where)}`"
    _print(report)
    click.echo(f'lab "{lab}" is up: {hint}', err=True)
    _finish(report)


@lab.command()
@CONFIG
@FILES
@AS_USER
@AS_GROUP
@NAME
def apply(
    config: Path | None,
    paths: tuple[str, ...],
    user: str | None,
    groups: tuple[str, ...],
    lab: str,
) -> None:
    """Create or change objects, as `kubectl apply` would; returns when that is in force."""
    from lab import session

    if not paths and config is None:
        raise click.UsageError("nothing to apply: give -f PATH, or -c FILE to turn Ringfence on")
    report = session.apply(places(lab), config, paths, _requester(user, groups))
    _print(report)
    _finish(report)


@lab.command()
@FILES
@AS_USER
@AS_GROUP
@NAME
@click.argument("what", nargs=-1, metavar="[KIND [NS/]NAME...]")
def delete(
    paths: tuple[str, ...],
    user: str | None,
    groups: tuple[str, ...],
    lab: str,
    what: tuple[str, ...],
) -> None:
    """Delete the objects in PATH, or KIND NAME; a namespace goes with all that is in it."""
    from lab import session

    if bool(paths) == bool(what) or len(what) == 1:
        raise click.UsageError("give either -f PATH or KIND [NS/]NAME")
    report = session.delete(places(lab), what, paths, _requester(user, groups))
    _print(report)
    _finish(report)


@lab.command()
@click.argument("kind")
@click.argument("object_name", required=False, metavar="[NS/]NAME")
@form_option(TABLE, "name", "json", "yaml")
@watch_option
@NAME
def get(kind: str, object_name: str | None, output: str, watch: bool, lab: str) -> None:
    """Show namespaces, pods, networkpolicies, cnp or ccnp, with their labels."""
    from lab import session
    from lab import show as forms
    from lab.files.changes import kind_of

    found = kind_of(kind)
    one = object_name is not None and not object_name.endswith("/")

    def text() -> str:
        with session.looking(places(lab)) as view:
            documents = forms.select(view.store, found, object_name)
        if output == TABLE:
            return forms.table(found, documents)
        if output == "name":
            return forms.names(documents)
        return structured(forms.as_list(documents, one), output)

    show(output, watch, text)


@lab.command()
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="P/PROTO",
    help="Ask about these instead of all declared ports.",
)
@click.option("--from", "source", metavar="NS/POD", help="Only from this pod.")
@click.option("--to", "destination", metavar="NS/POD", help="Only to this pod.")
@click.option("--http", metavar="'METHOD PATH'", help="Send this HTTP request, to port 80.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Of the request.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.05, max=60),
    default=1.0,
    show_default=True,
    help="Seconds without an answer after which a packet counts as dropped.",
)
@click.option(
    "--expect",
    type=click.Choice(["FORWARDED", "DROPPED"]),
    help="Exit with 1 if any connection has another verdict, or there is none.",
)
@output_option
@NAME
def probe(
    ports: tuple[str, ...],
    source: str | None,
    destination: str | None,
    http: str | None,
    headers: tuple[str, ...],
    timeout: float,
    expect: str | None,
    output: str,
    lab: str,
) -> None:
    """Make real connections between the pods: who reaches whom.

    With --http: send a request, and print the answers.
    """
    from generators.reachability.grid import Style
    from lab import probe, session

    if http is not None:
        ends = (ports, source, destination)
        _send_requests(places(lab), http, headers, ends, timeout, expect, output)
        return
    if headers:
        raise click.UsageError("--header belongs to --http 'METHOD PATH'")
    with session.looking(places(lab)) as view:
        findings, skipped = probe.matrix(view, ports, source, destination, silence=timeout)
    if skipped:
        click.echo(
            f"warning: {skipped} questions over neither TCP nor UDP are not probed", err=True
        )
    if output == TABLE:
        style = Style.COLOUR if on_terminal() else Style.PLAIN
        click.echo(probe.table(findings, style, sys.stdout.encoding), nl=False)
    else:
        click.echo(structured(probe.document(findings), output), nl=False)
    if expect is not None and {finding.verdict.value for finding in findings} != {expect}:
        raise click.exceptions.Exit(1)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod", metavar="NS/POD")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@NAME
def execute(pod: str, command: tuple[str, ...], lab: str) -> None:
    """Run a command in a pod's network namespace: `lab exec app-test01/web -- curl ADDRESS`."""
    from lab import session

    namespace, name = pod_key(pod)
    sys.stdout.flush()
    session.execute(places(lab), namespace, name, command)


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@NAME
def kubectl(arguments: tuple[str, ...], lab: str) -> None:
    """Run kubectl as an admin of the lab's API server: `lab kubectl -- get pods --watch`."""
    from lab import session

    sys.stdout.flush()
    session.kubectl(places(lab), arguments)


@lab.command()
@click.argument(
    "archives",
    nargs=-1,
    required=True,
    metavar="ARCHIVE...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@NAME
def load(archives: tuple[Path, ...], lab: str) -> None:
    """Give real nodes container images, in archives as `docker save` makes them."""
    from lab import session

    session.load(places(lab), archives)


@lab.command()
@output_option
@NAME
def status(output: str, lab: str) -> None:
    """Show processes and pods, and what is not enforced and why."""
    from lab import session
    from lab import status as state

    with session.looking(places(lab)) as view:
        document = state.document(view)
    if output == TABLE:
        click.echo(state.table(document), nl=False)
    else:
        click.echo(structured(document, output), nl=False)


@lab.command("ls")
@output_option
def list_labs(output: str) -> None:
    """List the labs of this machine."""
    from lab import status as state

    found = state.listed()
    if output == TABLE:
        click.echo(state.list_table(found), nl=False)
    else:
        click.echo(structured(found, output), nl=False)


@lab.command()
@NAME
def down(lab: str) -> None:
    """End a lab and remove all that it made."""
    from lab import session

    existed = session.down(places(lab))
    message = f'lab "{lab}" is gone' if existed else f'there is no lab "{lab}"'
    click.echo(message, err=True)


@lab.command()
@click.argument("story", type=click.Choice(["two-clients", "star-wars"]), default="two-clients")
@NAME
@click.option("--keep", is_flag=True, help="Keep the lab running at the end.")
def demo(story: str, lab: str, keep: bool) -> None:
    """Two clients of one cluster are kept apart, before your eyes; takes half a minute.

    star-wars: CiliumNetworkPolicies for packets and for HTTP requests; takes less than one.
    """
    if story == "star-wars":
        from lab.demos.star_wars import star_wars

        star_wars(places(lab), keep=keep)
        return
    from lab.demos.two_clients import two_clients

    two_clients(places(lab), keep=keep)


def _send_requests(
    where: Places,
    http: str,
    headers: tuple[str, ...],
    ends: tuple[tuple[str, ...], str | None, str | None],
    timeout: float,
    expect: str | None,
    output: str,
) -> None:
    from generators.reachability.requests import parse_request
    from lab import requests, session

    request = parse_request(http, headers)
    with session.looking(where) as view:
        answers = tuple(requests.ask(view, request, *ends, timeout))
    if output == TABLE:
        click.echo(requests.table(request, answers), nl=False)
    else:
        click.echo(structured(requests.document(request, answers), output), nl=False)
    if expect is not None and {answer.verdict.value for answer in answers} != {expect}:
        raise click.exceptions.Exit(1)


def _requester(user: str | None, groups: tuple[str, ...]) -> Requester:
    from lab.admission import Requester

    if user is None:
        if groups:
            raise click.UsageError("--as-group needs --as USER")
        return Requester()
    return Requester(user, groups)


def _print(report: Report) -> None:
    for warning in report.warnings:
        click.echo(warning, err=True)
    for line in report.lines:
        click.echo(line)


def _finish(report: Report) -> None:
    """Errors last, where they are seen."""
    for error in report.errors:
        click.echo(error, err=True)
    if report.errors:
        raise click.exceptions.Exit(1)


def _option(where: Places) -> str:
    return "" if where.name == DEFAULT_LAB else f" --name {where.name}"


@click.group()
def cli() -> None:
    """Commands of this package."""


cli.add_command(lab)
