"""What the commands about money read from the log beside the costs, and the options that say which costs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from penstock.cli.connection import Connection
from penstock.cli.instants import INSTANT
from penstock.cli.ledger.progress import Progress
from penstock.contracts.records import Cost, LlmResult, Record
from penstock.ledger.dimensions import Selection, UnknownDimension, dimensions
from penstock.ledger.reading import read_costs, read_topic
from penstock.ledger.requests import Outcomes

__all__ = [
    "checked_names",
    "costs",
    "names_of",
    "outcomes",
    "period",
    "records",
    "say_empty",
    "selection",
    "warn_unpriced",
]

_F = TypeVar("_F", bound=Callable[..., Any])

_CLOCKS = timedelta(minutes=10)
"""The broker's clock may be behind the services' by so much; what is about a period is looked for from this much earlier."""


def period(since: str = "--since", until: str = "--until") -> Callable[[_F], _F]:
    """Add the options of a period, ``since`` and ``until`` as parameters."""

    def add(command: _F) -> _F:
        first = click.option(
            since,
            "since",
            type=INSTANT,
            help="First instant, or how long ago (7d); default: as far as the log reaches.",
        )
        end = click.option(until, "until", type=INSTANT, help="End, itself excluded; default: now.")
        return first(end(command))

    return add


def selection(
    since: datetime | None, until: datetime | None, team: str | None = None, kind: str | None = None
) -> Selection:
    """Return what is asked for.

    Raises:
        click.UsageError: the period ends before it begins.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError(
            f"the period ends at {until.isoformat()}, which is not after its beginning, {since.isoformat()}: swap the two"
        )
    return Selection(since=since, until=until, team=team, kind=kind)


def names_of(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Turn ``a,b`` into names of dimensions that exist: the callback of ``--by``."""
    return checked_names(value.split(","))


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of dimensions, each of which exists.

    Raises:
        click.UsageError: one does not.
    """
    stripped = [name.strip() for name in names if name.strip()]
    try:
        dimensions(stripped)
    except UnknownDimension as error:
        raise click.UsageError(str(error)) from error
    return tuple(stripped)


async def costs(connection: Connection, wanted: Selection) -> AsyncIterator[Cost]:
    """The costs on the log that are asked for, each once."""
    with Progress() as progress:
        entries = read_costs(connection, since=wanted.since, until=wanted.until)
        async for entry in progress.counted("costs", entries):
            if wanted.takes(entry.cost):
                yield entry.cost


async def records(connection: Connection, topics: Sequence[str], since: datetime | None) -> AsyncIterator[Record]:
    """What stands in ``topics`` now, from shortly before ``since`` on."""
    since_ms = None if since is None else max(0, int((since - _CLOCKS).timestamp() * 1000))
    with Progress() as progress:
        for topic in topics:
            async for event in progress.counted(topic, read_topic(connection, topic, since_ms)):
                yield event.record


async def outcomes(connection: Connection, since: datetime | None) -> Outcomes:
    """How the requests ended whose results are still on the log."""
    found = Outcomes()
    async for record in records(connection, ["llm-results"], since):
        if isinstance(record, LlmResult):
            found.add(record)
    return found


def say_empty(wanted: Selection) -> None:
    """Say on standard error that there is nothing."""
    about = "".join(
        f" {word} {value}" for word, value in (("of team", wanted.team), ("of kind", wanted.kind)) if value is not None
    )
    since = "the beginning of the log" if wanted.since is None else wanted.since.isoformat()
    until = "now" if wanted.until is None else wanted.until.isoformat()
    click.echo(f"no costs{about} were accounted from {since} to {until}", err=True)


def warn_unpriced(calls: int, models: dict[str, int]) -> None:
    """Say on standard error, in one line, how many calls are in no amount."""
    if not calls:
        return
    named = ", ".join(f"{model} ({number:,})" for model, number in list(models.items())[:5])
    more = f" and {len(models) - 5} more models" if len(models) > 5 else ""
    click.echo(
        f"warning: {calls:,} calls have no price and are in no amount: {named}{more}; publish a price, and see "
        "`penstock ledger reprice` for what they would have cost",
        err=True,
    )
