"""``penstock retrieval cache``: figures to choose a threshold by, and the removal of a person's answers."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

import click
import msgspec
from penstock.cli.cluster import one_line_errors, table_console
from penstock.cli.stack import clear_errors, stack_options
from penstock.embedding import EmbedderError
from penstock.settings import load_settings
from penstock.stack import Stack
from rich.markup import escape
from rich.table import Table

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.answer_store import Erasure
from services.retrieval.cache_report import RouteFigures, figures_of
from services.retrieval.command.store import answering_model, open_existing
from services.retrieval.opening import answers_of
from services.retrieval.settings import Settings

__all__ = ["cache"]

_TIMEOUT_S = 5.0


@click.group()
def cache() -> None:
    """See what the semantic cache would have answered wrongly; remove a person's answers from it."""


@cache.command()
@click.option("--metrics", "addresses", multiple=True, help="/metrics of a retrieval process; repeat it for replicas.")
@stack_options
@click.option("--route", help="Of this route only.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
def report(
    addresses: tuple[str, ...], name: str | None, state_dir: Path | None, route: str | None, as_json: bool
) -> None:
    """Show, by route, how often an earlier answer would have been another one, from each cosine on.

    Figures are those that the processes counted since they started: of the local stack, or of --metrics. A route counts
    while it has `cache: {semantic: shadow}`.
    """
    with clear_errors():
        urls = list(addresses) or _local(name, state_dir)
    if not urls:
        raise click.ClickException(
            "no retrieval process runs in this stack; start it, or name its /metrics by --metrics"
        )
    found = [each for each in figures_of(map(_read, urls)) if route in (None, each.route)]
    if as_json:
        for each in found:
            click.echo(msgspec.json.encode(each))
        return
    if not found:
        click.echo("no question was looked up: set `cache: {semantic: shadow}` on a route, and let requests come")
    for each in found:
        _print(each)


def _local(name: str | None, state_dir: Path | None) -> list[str]:
    services = Stack.open(name, state_dir).status().services
    return [each.metrics for each in services if each.alive and each.name.startswith("retrieval")]


def _read(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise click.ClickException(f"{url!r} is no address: write http(s)://host:port/metrics")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply:
            return str(reply.read().decode("utf-8"))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise click.ClickException(f"{url} cannot be read: {error}") from error


def _print(figures: RouteFigures) -> None:
    hits = ", ".join(
        f"{mode}: {count:,} looked up, {figures.hits.get(mode, 0):,} hits" for mode, count in figures.lookups.items()
    )
    click.echo(f"{figures.route}  {hits}, {figures.false_hits:,} false in shadow")
    if not any(each.compared for each in figures.thresholds):
        click.echo("  no answers were compared yet\n")
        return
    table = Table("cosine above", "compared", "other answer", "share", "at most (95 %)")
    for each in figures.thresholds:
        share = "" if not each.compared else f"{each.different / each.compared:.1%}"
        most = "" if each.at_most is None else f"{each.at_most:.1%}"
        table.add_row(f"{each.similarity:.2f}", f"{each.compared:,}", f"{each.different:,}", share, escape(most))
    table_console().print(table)


@cache.command()
@click.option("--team", required=True, help="Whose answers.")
@click.option("--user", help="Those to questions of this user.")
@click.option("--request", help="That to this request.")
@click.option("--document", help="Those that stand on this document.")
def erase(team: str, user: str | None, request: str | None, document: str | None) -> None:
    """Remove answers of a team: of a user, of a request, or on a document. One of the three must be named.

    Works on the Qdrant server (QDRANT_URL) while the service runs, on a folder (QDRANT_PATH) while none does.
    """
    try:
        erasure = Erasure(team, request, user, document)
    except ValueError:
        raise click.UsageError("name one of --user, --request and --document") from None
    with one_line_errors(EmbedderError, StoreMisfit, StoreUnavailable):
        asyncio.run(_erase(erasure))
    click.echo("none of them is left in the semantic cache")


async def _erase(erasure: Erasure) -> None:
    settings = load_settings(Settings)
    async with open_existing(settings) as collections:
        embedder, _ = await answering_model(settings, collections)
        store = await answers_of(collections, settings.qdrant_namespace)(embedder)
        await store.erase(erasure)
