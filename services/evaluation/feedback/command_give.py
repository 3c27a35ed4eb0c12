"""``penstock feedback give`` and ``penstock feedback list``."""

from __future__ import annotations

import getpass
import json
from datetime import datetime
from typing import Any

import click
from penstock.bus.types import Transport
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.contracts.codec import Codec
from penstock.contracts.records import Feedback
from rich.table import Table
from rich.text import Text

from services.evaluation.feedback.giving import Said, rated, sent
from services.evaluation.feedback.log import Case, Log, cases, feedback_since, of_requests

__all__ = ["give", "given", "list_", "listed"]

_SHOWN_CHARS = 48


@click.command()
@click.argument("request_id")
@click.option(
    "--team", help="Team of the request: needed where several use the id, or the result is not in the log yet."
)
@click.option("--thumb", type=click.Choice(["up", "down"]), help="A rating of 1 or 0.")
@click.option("--rating", type=click.FloatRange(0, 1), help="From 0 (bad) to 1 (good).")
@click.option(
    "--label", "labels", multiple=True, metavar="SUBJECT.NAME=VALUE", help="E.g. answer.toxicity=clean; repeatable."
)
@click.option("--correction", help="What the answer should have been.")
@click.option("--comment", help="Free text.")
@click.option("--chosen", type=click.Choice(["a", "b", "tie"]), help="Of two answers the better one.")
@click.option("--as", "by", default=getpass.getuser, show_default="your user name", help="Who says it.")
@click.option("--source", type=click.Choice(["user", "moderator", "system"]), default="user", show_default=True)
@click.option("--conversation", help="Conversation of a request whose result is not in the log yet.")
def give(
    request_id: str, team: str | None, thumb: str | None, rating: float | None, labels: tuple[str, ...],
    correction: str | None, comment: str | None, chosen: str | None, by: str, source: str, conversation: str | None,
) -> None:  # fmt: skip
    """Say what you think of the answer to REQUEST_ID. Of what you say twice of one answer, the newer stands."""
    said = Said(rating=rated(thumb, rating), labels=labels, correction=correction, comment=comment, chosen=chosen)
    if not said:
        raise click.UsageError("say something: --thumb, --rating, --label, --correction, --comment or --chosen")
    run_command(_give(said, request_id, team, conversation, by, source))


async def _give(
    said: Said, request_id: str, team: str | None, conversation: str | None, by: str, source: str
) -> None:  # fmt: skip
    async with connect() as connection:
        feedback = await given(
            connection.bus,
            connection.codec,
            said,
            request_id,
            team=team,
            conversation=conversation,
            by=by,
            source=source,
        )
    click.echo(f"said: request {feedback.request_id} of {feedback.tenant_id}, event {feedback.event_id}")


async def given(
    transport: Transport, codec: Codec, said: Said, request_id: str, *, team: str | None = None,
    conversation: str | None = None, by: str | None, source: str = "user",
) -> Feedback:  # fmt: skip
    """Write feedback on a request under the key that its result has.

    Raises:
        click.ClickException: no such result and no team is named, or several teams used the id.
    """
    results = await of_requests(Log(transport, codec), request_id, team=team)
    if len(results) > 1:
        teams = ", ".join(sorted(each.tenant_id for each in results))
        raise click.ClickException(f"several teams used the id {request_id!r}: choose one with --team ({teams})")
    if not results and team is None:
        raise click.ClickException(
            f"no result of request {request_id!r} is in the log: check the id, or give --team (and --conversation, where it "
            "has one) to send feedback that waits for it"
        )
    if results:
        team, conversation = results[0].tenant_id, results[0].context.conversation_id
    else:
        click.echo("its result is not in the log: the feedback waits for it", err=True)
    assert team is not None
    feedback = said.feedback(team=team, request_id=request_id, conversation=conversation, by=by, source=source)
    return await sent(transport, codec, feedback)


@click.command("list")
@click.option("--team", help="Only of this team.")
@click.option("--request", "request_id", help="Only on this request.")
@click.option("--since", type=INSTANT, default="7d", show_default=True, help="First instant, or how long ago.")
@click.option("--unjoined", is_flag=True, help="Only where the log has no result.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON each.")
def list_(team: str | None, request_id: str | None, since: datetime, unjoined: bool, as_json: bool) -> None:
    """Show what people said, newest last, with the model and prompt version that they said it of."""
    run_command(_list(team, request_id, since, unjoined, as_json))


async def _list(team: str | None, request_id: str | None, since: datetime, unjoined: bool, as_json: bool) -> None:
    async with connect() as connection:
        found = await listed(Log(connection.bus, connection.codec), since, team=team, request_id=request_id)
    rows = [(case, each) for case, each in found if not unjoined or case.result is None]
    if as_json:
        for case, each in rows:
            click.echo(json.dumps(_data(case, each), ensure_ascii=False))
        return
    if not rows:
        click.echo(f"nobody said anything since {since:%Y-%m-%d %H:%M} UTC")
        return
    table = Table("given", "request", "team", "by", "source", "rating", "labels", "and", "model", "prompt", box=None)
    for case, each in rows:
        table.add_row(*(Text(printable(cell)) for cell in _cells(case, each)))
    table_console().print(table)


async def listed(
    log: Log, since: datetime, *, team: str | None = None, request_id: str | None = None
) -> list[tuple[Case, Feedback]]:
    """Return what stands of the feedback of a period with its request, oldest first."""
    found = await feedback_since(log, since, team=team, request_id=request_id)
    joined = await cases(log, found, ["llm-results"])
    rows = [(case, each) for case in joined for each in case.feedback]
    return sorted(rows, key=lambda row: (row[1].occurred_at, row[1].event_id))


def _cells(case: Case, each: Feedback) -> list[str]:
    result = case.result
    texts = [f"{name}: {' '.join(text.split())[:_SHOWN_CHARS]}" for name, text in _texts(each)]
    version = (
        "-" if result is None else f"{result.context.prompt_name or '-'}@{(result.context.prompt_version or '-')[:8]}"
    )
    return [
        f"{each.occurred_at:%Y-%m-%d %H:%M}", each.request_id, each.tenant_id, each.user_id or "-", each.source,
        "-" if each.rating is None else f"{each.rating:g}",
        " ".join(f"{name}={value}" for name, value in sorted(each.labels.items())) or "-", "; ".join(texts) or "-",
        "no result" if result is None else result.model or "-", version,
    ]  # fmt: skip


def _texts(each: Feedback) -> list[tuple[str, str]]:
    named = (("correction", each.correction), ("comment", each.comment), ("chosen", each.chosen))
    return [(name, text) for name, text in named if text is not None]


def _data(case: Case, each: Feedback) -> dict[str, Any]:
    result = case.result
    return {
        "event_id": each.event_id, "occurred_at": each.occurred_at.isoformat().replace("+00:00", "Z"),
        "team": each.tenant_id, "request_id": each.request_id, "user_id": each.user_id, "source": each.source,
        "rating": each.rating, "labels": each.labels, "correction": each.correction, "comment": each.comment,
        "chosen": each.chosen, "queue": each.queue, "joined": result is not None,
        "model": None if result is None else result.model, "route": None if result is None else result.context.route,
        "prompt_version": None if result is None else result.context.prompt_version,
    }  # fmt: skip
