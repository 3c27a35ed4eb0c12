"""``penstock evaluate models``: the classifiers that learn online, and what people decide about them."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from penstock.bus import Producer
from penstock.bus.types import RawReader
from penstock.cli.cluster import table_console
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.printable import printable
from penstock.clock import SystemClock
from penstock.contracts.envelope import new_id
from penstock.contracts.records import DeadLetter, ModelCommand, ModelWeights
from rich.markup import escape
from rich.table import Table

from services.evaluation.learning.champions import Champions
from services.evaluation.learning.publishing import MODELS
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from services.evaluation.toxicity.model import ToxicityModel

__all__ = ["listing", "models", "refusal", "standing"]

_COMMANDS = "model-commands"
_LETTERS = "dlq-evaluation"

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]
_MODEL: _Decorator = click.argument("model")
_REASON: _Decorator = click.option("--reason", default="", help="Why: it stands with the change for whoever wonders.")
_AUTHOR: _Decorator = click.option("--author", default=getpass.getuser, show_default="your user name", help="Who.")
_JSON: _Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_WAIT: _Decorator = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Seconds to wait for the service's answer.",
)


def _decision(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what every decision takes."""
    for option in (_JSON, _WAIT, _AUTHOR, _REASON):
        command = option(command)
    return command


@click.group()
def models() -> None:
    """Champions and challengers of the classifiers that learn from labels."""


@models.command(name="list")
@_JSON
def list_models(as_json: bool) -> None:
    """List the classifiers: the champion in force, and how its challenger does."""
    run_command(_list(as_json))


@models.command()
@_MODEL
@_JSON
def show(model: str, as_json: bool) -> None:
    """Show what was in force when, and the figures of the challenger of MODEL."""
    run_command(_show(model, as_json))


@models.command()
@_MODEL
@_decision
def promote(model: str, reason: str, author: str, wait: float, as_json: bool) -> None:
    """Make the challenger of MODEL its champion, whatever its test says."""
    run_command(_tell("promote", model, None, reason, author, wait, as_json))


@models.command()
@_MODEL
@click.argument("version", required=False)
@_decision
def rollback(model: str, version: str | None, reason: str, author: str, wait: float, as_json: bool) -> None:
    """Take MODEL back to VERSION, or to the version before the champion. The challenger begins anew from there."""
    run_command(_tell("rollback", model, version, reason, author, wait, as_json))


@models.command()
@_MODEL
@_decision
def freeze(model: str, reason: str, author: str, wait: float, as_json: bool) -> None:
    """Promote no challenger of MODEL until it is unfrozen; it learns on."""
    run_command(_tell("freeze", model, None, reason, author, wait, as_json))


@models.command()
@_MODEL
@_decision
def unfreeze(model: str, reason: str, author: str, wait: float, as_json: bool) -> None:
    """Let challengers of MODEL be promoted again."""
    run_command(_tell("unfreeze", model, None, reason, author, wait, as_json))


@models.command()
@_MODEL
@_decision
def reset(model: str, reason: str, author: str, wait: float, as_json: bool) -> None:
    """Make the challenger of MODEL the champion's copy: what it has learned since is forgotten."""
    run_command(_tell("reset", model, None, reason, author, wait, as_json))


async def _champions(connection: Connection) -> Champions:
    champions = await Champions.open(connection.bus, connection.codec, [ToxicityLearner(ToxicityModel.load())])
    await champions.close()
    return champions


def _known(champions: Champions, model: str) -> None:
    if model not in champions.models:
        raise click.ClickException(f"no classifier {model!r} learns; there are {', '.join(champions.models)}")


async def _list(as_json: bool) -> None:
    async with connect() as connection:
        champions = await _champions(connection)
    found = [standing(champions, model, SystemClock().now()) for model in champions.models]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    table_console().print(listing(found))


def listing(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of ``list``: a line for each classifier as :func:`standing` says it."""
    table = Table("model", "champion", "in force from", "frozen", "challenger learned", "tested", "lacks", box=None)
    for each in found:
        challenger = each["challenger"] or {}
        lacks = "; ".join(challenger.get("lacking", ["labels"])) or "nothing"
        cells = (
            each["model"], each["champion"], _moment(each["effective_from"]), "yes" if each["frozen"] else "no",
            str(challenger.get("labels", 0)), str(challenger.get("tested", 0)), lacks,
        )  # fmt: skip
        table.add_row(*(escape(printable(cell)) for cell in cells))
    return table


async def _show(model: str, as_json: bool) -> None:
    async with connect() as connection:
        champions = await _champions(connection)
    _known(champions, model)
    found = standing(champions, model, SystemClock().now())
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{model}: {found['champion']} is in force{', frozen' if found['frozen'] else ''}")
    table = Table("in force from", "version", "cause", "by", "reason", box=None)
    for change in found["schedule"]:
        cells = (
            _moment(change["effective_from"]),
            *(change[part] for part in ("version", "cause", "author", "reason")),
        )
        table.add_row(*(escape(printable(cell)) for cell in cells))
    table_console().print(table)
    for name, value in (found["challenger"] or {}).items():
        shown = value if isinstance(value, str | int | float) else json.dumps(value)
        click.echo(f"challenger {name}: {printable(str(shown))}")
    if not found["challenger"]:
        click.echo("the challenger has learned nothing yet")


def standing(champions: Champions, model: str, now: datetime) -> dict[str, Any]:
    """Return how a classifier stands at ``now``: what is in force, what was, and the challenger's figures; JSON-able."""
    version, _ = champions.at(model, now)
    schedule = [
        {
            "effective_from": change.effective_from.isoformat(),
            "version": change.version,
            "cause": change.cause,
            "author": change.author,
            "reason": change.reason,
        }
        for change in champions.schedule(model)
    ]
    began = [change["effective_from"] for change in schedule if change["version"] == version]
    challenger = champions.challenger(model)
    return {
        "model": model,
        "champion": version,
        "effective_from": began[-1] if began else None,
        "frozen": champions.frozen(model),
        "versions": champions.versions(model),
        "schedule": schedule,
        "challenger": None if challenger is None else {**challenger, "at": challenger["at"].isoformat()},
    }


def _moment(instant: str | None) -> str:
    if instant is None or instant.startswith("1970-"):
        return "always"
    return f"{datetime.fromisoformat(instant):%Y-%m-%d %H:%M:%S}"


async def _tell(
    action: str, model: str, version: str | None, reason: str, author: str, wait: float, as_json: bool
) -> None:
    async with connect() as connection:
        champions = await _champions(connection)
        _known(champions, model)
        if version is not None and version not in champions.versions(model):
            raise click.ClickException(
                f"{model} has no version {version!r}; there are {', '.join(champions.versions(model))}"
            )
        identity = new_id()
        command = ModelCommand(
            event_id=identity,
            request_id="",
            tenant_id="platform",
            occurred_at=datetime.now(UTC),
            causation_id=identity,
            model=model,
            action=action,
            version=version,
            author=author,
            reason=reason,
        )
        reader = await connection.bus.read([MODELS, _LETTERS], from_end=True)
        try:
            producer = Producer(connection.bus.producer(), connection.codec, "operations")
            sent = await (await producer.send(_COMMANDS, model, command))
            answer = await _answer(reader, connection, identity, (sent.partition, sent.offset), wait)
        finally:
            await reader.close()
    said: Mapping[str, Any] = {"event_id": identity, "action": action, "model": model, "version": version}
    if answer is None:
        if as_json:
            click.echo(json.dumps({**said, "answered": False}))
            return
        click.echo(
            f"{action} of {model} is on {_COMMANDS}; evaluation has not answered within {wait:g} s: is it running?"
        )
        return
    if as_json:
        click.echo(json.dumps({**said, "answered": True, "champion": _champion_of(answer)}))
        return
    click.echo(_done(action, model, answer))


async def _answer(
    reader: RawReader, connection: Connection, identity: str, sent: tuple[int, int], wait: float
) -> ModelWeights | None:
    """Return what evaluation made of the command: the schedule, or of a reset the challenger; None in vain.

    Raises:
        click.ClickException: it put the command aside.
    """
    clock = SystemClock()
    give_up = clock.monotonic() + wait
    while (remaining := give_up - clock.monotonic()) > 0:
        for message in await reader.poll(min(remaining, 0.5)):
            record = connection.codec.readable(message.topic, message.value)
            if isinstance(record, ModelWeights) and record.causation_id == identity:
                if record.format == "schedule" or record.name.endswith("@challenger"):
                    return record
            elif isinstance(record, DeadLetter) and (reason := refusal(record, sent)):
                raise click.ClickException(f"evaluation refused: {reason}")
    return None


def refusal(letter: DeadLetter, sent: tuple[int, int]) -> str:
    """Return why the command at partition and offset ``sent`` was put aside; empty where the letter is about another."""
    if letter.origin_topic != _COMMANDS or (letter.origin_partition, letter.origin_offset) != sent:
        return ""
    return letter.reason


def _champion_of(answer: ModelWeights) -> str | None:
    return answer.version if answer.format == "schedule" else None


def _done(action: str, model: str, answer: ModelWeights) -> str:
    match action:
        case "promote" | "rollback":
            changes = json.loads(answer.metadata["schedule"])
            return f"{model}: {answer.version} is in force from {_moment(changes[-1][0])} UTC"
        case "freeze" | "unfreeze":
            return f"{model} is {'frozen' if action == 'freeze' else 'no longer frozen'}; champion {answer.version}"
        case _:
            return f"the challenger of {model} begins anew from the champion"
