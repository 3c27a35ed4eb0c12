"""``penstock retrieval search``: what a question would be given, with scores."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import click
import msgspec
from penstock.bus import Transient
from penstock.cli.cluster import one_line_errors, table_console
from penstock.cli.instants import Instant
from penstock.cli.printable import printable
from penstock.contracts.records import GroundedRequest, Passage, RetrievalFilter
from penstock.embedding import EmbedderError
from penstock.settings import load_settings
from rich.markup import escape
from rich.table import Table

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.command.store import answering_model, existing_store, open_existing
from services.retrieval.quality.configurations import Configuration, ConfigurationError, configuration_of
from services.retrieval.quality.ranking import NotRanked, searched
from services.retrieval.serving import Engine, Serving
from services.retrieval.settings import Settings

__all__ = ["search"]

_EXCERPT = 160


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    question: str
    team: str
    config: str | None
    collection: str | None
    tags: tuple[str, ...]
    language: str | None
    as_of: datetime | None
    top: int | None
    floor: float | None
    as_json: bool


class Found(msgspec.Struct, frozen=True):
    """What the command prints as JSON."""

    question: str
    grounding: str
    embedder: str | None
    passages: list[Passage]


@click.command()
@click.argument("question")
@click.option("--team", required=True, help="Team whose documents are searched.")
@click.option("--config", metavar="FILE", help="Settings to search under: the file of a route, or as for `evaluate`.")
@click.option("--collection", help="Collection to search.  [default: the configuration's]")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Label that documents must carry; repeatable.")
@click.option("--language", help="Language that documents must be in, e.g. en.")
@click.option("--as-of", type=Instant(), help="Instant at which documents must be valid.  [default: now]")
@click.option("--top", type=click.IntRange(1, 100), help="Most passages.  [default: the configuration's]")
@click.option(
    "--floor", type=click.FloatRange(0, 1), help="Least score; 0 shows the rest too.  [default: the configuration's]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one object, with the whole passages.")
def search(**given: Any) -> None:
    """Show which passages QUESTION would be given, with their scores. Nothing is changed, and no model is asked.

    Searches the server at QDRANT_URL, or the folder QDRANT_PATH while no service has it open, with the embedder of the
    environment.
    """
    options = _Options(**given)
    with one_line_errors(ConfigurationError, EmbedderError, NotRanked, StoreMisfit, StoreUnavailable, Transient):
        configuration = configuration_of(options.config or "hybrid")
        found, below = asyncio.run(_search(options, configuration))
    if options.as_json:
        click.echo(msgspec.json.encode(Found(options.question, found.grounding, found.embedder, list(found.passages))))
    else:
        _print(found, below, options)


async def _search(options: _Options, configuration: Configuration) -> tuple[GroundedRequest, list[Passage]]:
    """Return what the question would be given and, where that is nothing, the best that stays below the floor."""
    settings = load_settings(Settings)
    changed = {"top_k": options.top, "score_floor": options.floor}
    rules = configuration.rules().model_copy(update={name: one for name, one in changed.items() if one is not None})
    wanted = RetrievalFilter(
        collection=options.collection, tags=_tags(options.tags), language=options.language, as_of=options.as_of
    )
    async with open_existing(settings) as collections:
        embedder, name = await answering_model(settings, collections)
        engine = Engine(embedder)
        try:
            store = await existing_store(collections, name, embedder.dimension)
            serving = Serving.of(engine, store)
            found = await searched(serving, options.team, options.question, rules, wanted, configuration.candidates)
            if found.passages or rules.score_floor == 0:
                return found, []
            lower = rules.model_copy(update={"score_floor": 0.0, "top_k": 1})
            rest = await searched(serving, options.team, options.question, lower, wanted, configuration.candidates)
            return found, list(rest.passages)
        finally:
            await engine.close()


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--tag {one!r} is not KEY=VALUE")
        tags[name] = value
    return tags


def _print(found: GroundedRequest, below: list[Passage], options: _Options) -> None:
    console = table_console()
    if not found.passages and below:
        best = below[0]
        click.echo(
            f"no passage reaches the floor; --floor 0 shows what there is, at best {best.score:.3f} of "
            f"{printable(best.document_id)}"
        )
        return
    if not found.passages:
        click.echo(
            f"team {printable(options.team)} has no document in this collection that fulfils the conditions; "
            "they and the team's name are as `penstock ingest` was given them"
        )
        return
    table = Table("", "score", "document", "title", "characters", "text")
    for place, passage in enumerate(found.passages, 1):
        text = " ".join(passage.text.split())
        table.add_row(
            str(place),
            f"{passage.score:.3f}",
            _safe(passage.document_id),
            _safe(passage.title),
            f"{passage.start}-{passage.end}",
            _safe(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"),
        )
    console.print(table)


def _safe(text: str) -> str:
    return escape(printable(text))
