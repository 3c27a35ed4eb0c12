"""``penstock annotations list``, ``next`` and ``label``."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from penstock.bus.types import Transport
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.contracts.codec import Codec
from penstock.contracts.records import AnnotationTask, Feedback
from rich.table import Table
from rich.text import Text

from services.evaluation.feedback.giving import Said, rated, sent
from services.evaluation.feedback.log import Log, feedback_since, tasks_since
from services.evaluation.feedback.opinions import VOCABULARY
from services.evaluation.feedback.tasks import Standing, next_for, standings

__all__ = ["asked", "label", "labelled", "list_", "next_", "tasks_standing"]

_SHOWN_CHARS = 60
_SINCE = click.option("--since", type=INSTANT, default="30d", show_default=True, help="Tasks of this instant on.")
_NAME = click.option("--as", "name", default=getpass.getuser, show_default="your user name", help="Who labels.")


@click.command("list")
@click.option("--queue", help="Only of this queue.")
@click.option("--team", help="Only of this team.")
@click.option("--all", "everything", is_flag=True, help="Also what enough people have labelled.")
@_SINCE
@click.option("--json", "as_json", is_flag=True, help="One line of JSON each.")
def list_(queue: str | None, team: str | None, everything: bool, since: datetime, as_json: bool) -> None:
    """List what waits for annotators, the most important first."""
    run_command(_list(queue, team, everything, since, as_json))


async def _list(queue: str | None, team: str | None, everything: bool, since: datetime, as_json: bool) -> None:
    async with connect() as connection:
        found = await tasks_standing(Log(connection.bus, connection.codec), since, team=team)
    chosen = [each for each in found if queue in (None, each.task.queue) and (everything or each.is_open)]
    if as_json:
        for each in chosen:
            click.echo(json.dumps(_data(each), ensure_ascii=False))
        return
    if not chosen:
        click.echo("nothing waits for annotators")
        return
    table = Table("queue", "priority", "why", "team", "request", "labels", "done", "question", box=None)
    for each in chosen:
        task = each.task
        question = " ".join(task.prompt.split())[:_SHOWN_CHARS]
        cells = (
            task.queue, f"{task.priority:.2f}", task.reason, task.tenant_id, task.request_id,
            " ".join(task.labels) or "rating", f"{len(each.done)}/{task.raters}", question,
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    table_console().print(table)


@click.command("next")
@click.option("--queue", help="Only of this queue.")
@click.option("--team", help="Only of this team.")
@_NAME
@_SINCE
@click.option("--json", "as_json", is_flag=True, help="Print the task as JSON and ask nothing.")
def next_(queue: str | None, team: str | None, name: str, since: datetime, as_json: bool) -> None:
    """Show the most important task that you have not labelled yet; at a terminal, ask for its labels."""
    run_command(_next(queue, team, name, since, as_json))


async def _next(queue: str | None, team: str | None, name: str, since: datetime, as_json: bool) -> None:
    async with connect() as connection:
        found = next_for(name, await tasks_standing(Log(connection.bus, connection.codec), since, team=team), queue)
        if found is None:
            click.echo(f"nothing waits for {name}", err=True)
            return
        if as_json:
            click.echo(json.dumps(_data(found) | _texts(found.task), ensure_ascii=False))
            return
        _show(found)
        if not sys.stdin.isatty():
            click.echo(f"label it with `penstock annotations label {found.task.request_id} --as {name} --label ...`")
            return
        said = asked(found.task)
        if not said:
            click.echo("nothing said: the task stays as it is")
            return
        feedback = await _sent(connection.bus, connection.codec, found.task, said, name)
    click.echo(f"labelled: request {feedback.request_id} of {feedback.tenant_id}, event {feedback.event_id}")


@click.command()
@click.argument("request_id")
@click.option("--team", help="Team of the request, where several teams used the id.")
@click.option("--queue", help="Queue of the task, where the request stands in several.")
@click.option(
    "--label", "labels", multiple=True, metavar="SUBJECT.NAME=VALUE", help="E.g. answer.toxicity=clean; repeatable."
)
@click.option("--thumb", type=click.Choice(["up", "down"]), help="A rating of 1 or 0.")
@click.option("--rating", type=click.FloatRange(0, 1), help="From 0 (bad) to 1 (good).")
@click.option("--correction", help="What the answer should have been.")
@click.option("--comment", help="Free text.")
@_NAME
@_SINCE
def label(
    request_id: str, team: str | None, queue: str | None, labels: tuple[str, ...], thumb: str | None, rating: float | None,
    correction: str | None, comment: str | None, name: str, since: datetime,
) -> None:  # fmt: skip
    """Label the task of REQUEST_ID. Who labels it again replaces what they said."""
    said = Said(rating=rated(thumb, rating), labels=labels, correction=correction, comment=comment)
    if not said:
        raise click.UsageError("say something: --label, --rating, --thumb, --correction or --comment")
    run_command(_label(said, request_id, team, queue, name, since))


async def _label(
    said: Said, request_id: str, team: str | None, queue: str | None, name: str, since: datetime
) -> None:  # fmt: skip
    async with connect() as connection:
        feedback = await labelled(
            connection.bus, connection.codec, said, request_id, name=name, team=team, queue=queue, since=since
        )
    click.echo(f"labelled: request {feedback.request_id} of {feedback.tenant_id}, event {feedback.event_id}")


async def tasks_standing(log: Log, since: datetime | None = None, *, team: str | None = None) -> list[Standing]:
    """Return how every task of a period stands, the most important first."""
    tasks = await tasks_since(log, since, team=team)
    return standings(tasks, await feedback_since(log, since, team=team))


async def labelled(
    transport: Transport, codec: Codec, said: Said, request_id: str, *, name: str, team: str | None = None,
    queue: str | None = None, since: datetime | None = None,
) -> Feedback:  # fmt: skip
    """Write what an annotator says of the task of a request.

    Raises:
        click.ClickException: there is no such task, or there are several.
    """
    tasks = [
        each
        for each in await tasks_since(Log(transport, codec), since, team=team)
        if each.request_id == request_id and queue in (None, each.queue)
    ]
    if not tasks:
        raise click.ClickException(
            f"no task for request {request_id!r}: see `penstock annotations list`; on any other result say it with "
            "`penstock feedback give`"
        )
    if len(tasks) > 1:
        named = ", ".join(sorted(f"{each.tenant_id}/{each.queue}" for each in tasks))
        raise click.ClickException(
            f"several tasks for request {request_id!r}: choose with --team and --queue ({named})"
        )
    return await _sent(transport, codec, tasks[0], said, name)


async def _sent(transport: Transport, codec: Codec, task: AnnotationTask, said: Said, name: str) -> Feedback:
    feedback = said.feedback(
        team=task.tenant_id, request_id=task.request_id, conversation=task.context.conversation_id, by=name,
        source="moderator", queue=task.queue, cause=task.event_id,
    )  # fmt: skip
    return await sent(transport, codec, feedback)


def _show(found: Standing) -> None:
    task = found.task
    scores = ", ".join(f"{name} {score:.2f}" for name, score in sorted(task.scores.items()))
    click.echo(f"request {task.request_id} of {task.tenant_id}, queue {task.queue}, priority {task.priority:.2f}")
    # What evaluators said would sway who is to be compared with them.
    click.echo(f"picked as {task.reason}; {len(found.done)} of {task.raters} labelled it; model {task.model or '-'}")
    if task.reason != "sample" and scores:
        click.echo(f"evaluators said: {printable(scores)}")
    click.echo(f"\nquestion:\n{printable(task.prompt)}\n\nanswer:\n{printable(task.content)}")
    for number, passage in enumerate(task.citations, start=1):
        click.echo(
            f"\npassage {number} ({printable(passage.title or passage.document_id)}):\n{printable(passage.text)}"
        )
    click.echo(f"\nwanted: {', '.join(_wanted(task.labels)) or 'a rating, and a correction where it is wrong'}")


def _wanted(labels: Sequence[str]) -> list[str]:
    return [f"{name}={'|'.join(VOCABULARY.get(name.partition('.')[2], ('VALUE',)))}" for name in labels]


def asked(task: AnnotationTask) -> Said:
    """Ask for what the task wants; an empty answer leaves it out."""
    given = []
    for name in task.labels:
        words = VOCABULARY.get(name.partition(".")[2])
        kind = None if words is None else click.Choice(["", *words])
        value = click.prompt(name, default="", type=kind, show_default=False)
        if value:
            given.append(f"{name}={value}")
    rating = click.prompt("rating from 0 to 1", default="", show_default=False, value_proc=_number)
    correction = click.prompt("correction", default="", show_default=False)
    return Said(rating=rating, labels=given, correction=correction or None)


def _number(text: Any) -> float | None:
    if not str(text).strip():
        return None
    value: float = click.FloatRange(0, 1)(text)
    return value


def _data(each: Standing) -> dict[str, Any]:
    task = each.task
    return {
        "queue": task.queue, "priority": task.priority, "reason": task.reason, "team": task.tenant_id,
        "request_id": task.request_id, "labels": task.labels, "scores": task.scores, "raters": task.raters,
        "done": sorted(each.done), "open": each.is_open, "event_id": task.event_id,
        "occurred_at": task.occurred_at.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip


def _texts(task: AnnotationTask) -> dict[str, Any]:
    passages = [{"passage_id": each.passage_id, "text": each.text} for each in task.citations]
    return {"question": task.prompt, "answer": task.content, "passages": passages, "model": task.model}
