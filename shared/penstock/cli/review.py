"""penstock review: texts that guardrails hold until a person decides."""

from __future__ import annotations

import getpass
from collections.abc import Iterable
from datetime import UTC, datetime

import click
import msgspec
from rich.table import Table
from rich.text import Text

from penstock.bus import Producer, history
from penstock.cli.cluster import table_console
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.printable import printable
from penstock.contracts.codec import Undecodable
from penstock.contracts.envelope import new_id, request_key
from penstock.contracts.records import Review, ReviewDecision

__all__ = ["as_table", "open_reviews", "review"]

_SHOWN_CHARS = 60


@click.group()
def review() -> None:
    """List, show and decide the requests and answers that are held for a person."""


@review.command("list")
@click.option("--team", help="Only those of one team.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON each.")
def list_(team: str | None, as_json: bool) -> None:
    """List what waits for a decision, the most urgent first."""
    run_command(_list(team, as_json))


@review.command()
@click.argument("review_id")
def show(review_id: str) -> None:
    """Show the text that is held under REVIEW_ID (or a beginning of it) and why."""
    run_command(_show(review_id))


@review.command()
@click.argument("review_id")
@click.option("--reviewer", default=getpass.getuser, show_default="your user name", help="Who decides.")
@click.option("--reason", default="", help="Why.")
def approve(review_id: str, reviewer: str, reason: str) -> None:
    """Let the text that is held under REVIEW_ID go on."""
    run_command(_decide(review_id, True, reviewer, reason))


@review.command()
@click.argument("review_id")
@click.option("--reviewer", default=getpass.getuser, show_default="your user name", help="Who decides.")
@click.option("--reason", required=True, help="Why: the producer is told.")
def deny(review_id: str, reviewer: str, reason: str) -> None:
    """End the request whose text is held under REVIEW_ID as blocked."""
    run_command(_decide(review_id, False, reviewer, reason))


async def open_reviews(connection: Connection) -> dict[str, Review]:
    """What is not decided and not overdue, by its id."""
    held: dict[str, Review] = {}
    decided: set[tuple[str, str]] = set()
    async with history(connection.bus, ["reviews", "review-decisions"]) as messages:
        async for message in messages:
            try:
                record = connection.codec.decode(message.topic, message.value)
            except Undecodable as error:
                click.echo(f"{message.topic}/{message.partition}/{message.offset}: {error.reason}", err=True)
                continue
            if isinstance(record, Review):
                held[record.event_id] = record
            elif isinstance(record, ReviewDecision):
                decided.add((record.tenant_id, record.review_id))
    now = datetime.now(UTC)
    return {name: one for name, one in held.items() if (one.tenant_id, name) not in decided and one.due_at > now}


async def _list(team: str | None, as_json: bool) -> None:
    async with connect() as connection:
        waiting = await open_reviews(connection)
    chosen = sorted((r for r in waiting.values() if team in (None, r.tenant_id)), key=lambda r: r.due_at)
    if as_json:
        for one in chosen:
            click.echo(msgspec.json.encode(one).decode())
        return
    if not chosen:
        click.echo("nothing waits for a decision")
        return
    table_console().print(as_table(chosen, datetime.now(UTC)))


def as_table(chosen: Iterable[Review], now: datetime) -> Table:
    """Return a row for each review. What people wrote is shown as it is: it is no markup of the table's."""
    table = Table("review", "due in", "team", "held", "because of", "text", box=None)
    for one in chosen:
        left = int((one.due_at - now).total_seconds())
        text = " ".join((one.content or one.prompt).split())
        because = ", ".join(sorted({finding.kind for finding in one.findings if finding.action == "review"}))
        what = "answer" if one.stage == "output" else "request"
        cells = (one.event_id[:8], f"{left // 60} min", one.tenant_id, what, because, printable(text[:_SHOWN_CHARS]))
        table.add_row(*map(Text, cells))
    return table


async def _show(review_id: str) -> None:
    async with connect() as connection:
        one = _chosen(await open_reviews(connection), review_id)
    click.echo(
        f"review {one.event_id}\nrequest {one.request_id} of {one.tenant_id}, policy {one.policy_name}@{one.policy_version}"
    )
    click.echo(f"due {one.due_at:%Y-%m-%d %H:%M:%S}Z")
    for finding in one.findings:
        click.echo(f"  {finding.scanner}: {finding.kind} at {finding.start}-{finding.end}, score {finding.score:.2f}")
    click.echo(f"\nquestion:\n{printable(one.prompt)}")
    if one.content:
        click.echo(f"\nanswer:\n{printable(one.content)}")


async def _decide(review_id: str, approved: bool, reviewer: str, reason: str) -> None:
    async with connect() as connection:
        one = _chosen(await open_reviews(connection), review_id)
        decision = ReviewDecision(
            event_id=new_id(),
            request_id=one.request_id,
            tenant_id=one.tenant_id,
            occurred_at=datetime.now(UTC),
            causation_id=one.event_id,
            review_id=one.event_id,
            conversation_id=one.context.conversation_id,
            approved=approved,
            reviewer=reviewer,
            reason=reason,
        )
        producer = Producer(connection.bus.producer(), connection.codec, "reviewers")
        await (await producer.send("review-decisions", request_key(one.context, one.request_id), decision))
    click.echo(f"{'approved' if approved else 'denied'}: request {one.request_id} of {one.tenant_id}")


def _chosen(waiting: dict[str, Review], review_id: str) -> Review:
    fits = [one for name, one in waiting.items() if name.startswith(review_id)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise click.ClickException(f"{len(fits)} reviews begin with {review_id!r}: give more of the id")
    raise click.ClickException(
        f"no open review {review_id!r}: it was decided, is overdue, or never was; `penstock review list` shows what is open"
    )
