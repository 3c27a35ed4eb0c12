"""``penstock prompts publish | promote | rollback``: versions onto the topic, and labels from version to version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from penstock.bus import Producer
from penstock.cli import change_options
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.printable import printable
from penstock.cli.prompt_tables import show_diff
from penstock.cli.prompts_reading import PRODUCTION, expected_errors, of_file, read_histories, reference
from penstock.cli.publishing import EntryRefused, refuse_problems, user
from penstock.clock import SystemClock
from penstock.config.plane import ConfigPlane
from penstock.config.prompt_history import LabelMove, PromptHistory, named
from penstock.config.prompt_tests import read_tests, rendered_failures, tests_beside
from penstock.config.prompt_text import differing_lines
from penstock.config.prompts import Prompt
from penstock.config.publish import Change, prompt_warnings, publish_changes

__all__ = ["promote", "publish", "rollback"]

_DRIFT = (
    "infra/config does not follow by itself: give the labels there the same versions, or the next `penstock config apply` "
    "takes this back (`penstock config apply --dry-run` shows what differs)"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that is to be on the topic, with the labels that are to point at it."""

    prompt: Prompt
    labels: Sequence[str]


@dataclass(slots=True)
class Plan:
    """What differs from the topic.

    Attributes:
        moves: by label's key, the version it points at now, None for none.
        seen: how often each of these labels had been moved when it was looked at.
    """

    changes: list[Change] = field(default_factory=list)
    moves: dict[str, tuple[Prompt | None, Prompt]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--label", "labels", multiple=True, help="Label to point at the version as well; repeatable.")
@change_options.reason
@change_options.author
@change_options.dry_run
@change_options.yes
@change_options.as_json
def publish(
    file: Path, labels: tuple[str, ...], reason: str, author: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Publish the prompts in FILE as versions, which nobody gets until a label points at them.

    The labels in FILE count for `penstock config apply`; here those of --label do. The tests of rendered text beside FILE
    are run first. Exits 2, having published nothing, where FILE is invalid or a test fails.
    """

    def wanted(_: Mapping[str, PromptHistory]) -> list[Wanted]:
        found = of_file(file)
        names = [prompt.name for prompt in found]
        if labels and len(set(names)) < len(names):
            raise EntryRefused(
                f"{file} holds several versions of a prompt, and a label points at one: leave out --label"
            )
        _refuse_failing(file, found)
        return [Wanted(prompt, labels) for prompt in found]

    with expected_errors():
        run_command(_publish(wanted, reason, author, dry_run=dry_run, yes=yes, as_json=as_json))


@click.command()
@click.argument("version")
@click.option("--to", "label", default=PRODUCTION, show_default=True, help="Label to point at it.")
@change_options.reason
@change_options.author
@change_options.dry_run
@change_options.yes
@change_options.as_json
def promote(version: str, label: str, reason: str, author: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Point a label at a version that is published: NAME@LABEL or NAME@VERSION.

    Shows how it differs from what the label points at, and which requests it would refuse. Exits 2, having published
    nothing, where it would break what refers to the label.
    """
    name, which = reference(version)
    if which is None:
        raise click.UsageError(f"say which version of {name}: {name}@LABEL or {name}@VERSION")

    def wanted(found: Mapping[str, PromptHistory]) -> list[Wanted]:
        return [Wanted(named(found, name).find(which), [label])]

    with expected_errors():
        run_command(_publish(wanted, reason, author, dry_run=dry_run, yes=yes, as_json=as_json))


@click.command()
@click.argument("name")
@click.option("--label", default=PRODUCTION, show_default=True, help="Label to point back.")
@click.option("--to", "version", metavar="VERSION", help="The version it is to point at, or how its hash begins.")
@change_options.reason
@change_options.author
@change_options.dry_run
@change_options.yes
@change_options.as_json
def rollback(
    name: str, label: str, version: str | None, reason: str, author: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Point a label of the prompt NAME at what it pointed at before its last move.

    Two of these in a row end where they began; --to names any version that `penstock prompts history` lists. Exits 2,
    having published nothing, where that would break what refers to the label.
    """

    def wanted(found: Mapping[str, PromptHistory]) -> list[Wanted]:
        history = named(found, name)
        return [Wanted(history.before(label) if version is None else history.find(version), [label])]

    with expected_errors():
        run_command(_publish(wanted, reason, author, dry_run=dry_run, yes=yes, as_json=as_json))


async def _publish(
    choose: Callable[[Mapping[str, PromptHistory]], list[Wanted]], reason: str, author: str | None, *, dry_run: bool,
    yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show what ``choose`` wants and the topic lacks, ask, and publish it."""
    async with connect() as connection:
        found = await read_histories(connection)
        wanted = choose(found)
        plan = _plan(wanted, found)
        if plan.changes:
            await _refuse(connection, plan)
            _show(plan, err=as_json)
            if not dry_run:
                if not yes:
                    click.confirm("Publish this?", abort=True, err=True)
                await _refuse_raced(connection, plan)
                clock = SystemClock()
                producer = Producer(connection.bus.producer(), connection.codec, "config", clock)
                await publish_changes(
                    plan.changes, producer, clock.now(), author=user() if author is None else author, reason=reason
                )
    published = bool(plan.changes) and not dry_run
    if as_json:
        click.echo(json.dumps(_outcome(wanted, plan, published), indent=2, ensure_ascii=False))
    else:
        _tell(wanted, plan, dry_run=dry_run)
    if published and plan.moves:
        click.echo(_DRIFT, err=True)


def _plan(wanted: Sequence[Wanted], found: Mapping[str, PromptHistory]) -> Plan:
    plan = Plan()
    for each in wanted:
        prompt, history = each.prompt, found.get(each.prompt.name, PromptHistory(each.prompt.name))
        if prompt.version not in history.versions:
            plan.changes.append(Change(Prompt.KIND, prompt.key, "new", None, prompt))
        for label in dict.fromkeys(each.labels):
            _refuse_label(prompt, label)
            current = history.labels.get(label)
            before = current.prompt if current else None
            if before is not None and before.version == prompt.version:
                continue
            key = f"{prompt.name}@{label}"
            plan.changes.append(Change(Prompt.KIND, key, "changed" if before else "new", before, prompt))
            plan.moves[key] = (before, prompt)
            plan.seen[key] = len(history.moves.get(label, ()))
    return plan


async def _refuse(connection: Connection, plan: Plan) -> None:
    """Refuse what would break those who refer to a label, and warn of what its requests would notice."""
    plane = await ConfigPlane.open(connection.bus, connection.codec)
    await plane.close()
    for key, (_, after) in plan.moves.items():
        refuse_problems(plane, after, key)
    for warning in prompt_warnings(plan.changes):
        click.echo(f"warning: {printable(warning)}", err=True)


async def _refuse_raced(connection: Connection, plan: Plan) -> None:
    latest = await read_histories(connection)
    for key, count in plan.seen.items():
        name, _, label = key.partition("@")
        moves: Sequence[LabelMove] = latest[name].moves.get(label, ()) if name in latest else ()
        if len(moves) != count:
            raise click.ClickException(
                f"somebody else moved {key} meanwhile: look at `penstock prompts history {name}` and try again"
            )


def _refuse_label(prompt: Prompt, label: str) -> None:
    try:
        Prompt.model_validate(prompt.model_dump() | {"labels": [label]})
    except ValidationError as error:
        causes = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise EntryRefused(f"{label!r} is no label: {causes}") from None


def _refuse_failing(file: Path, found: Sequence[Prompt]) -> None:
    beside = tests_beside(file)
    if not beside.exists():
        return
    tests = read_tests(beside)
    failed = [
        f"{prompt.name}@{prompt.version}: {test.name}: {failure}"
        for prompt in found
        if tests.concern(prompt)
        for test in tests.tests
        for failure in rendered_failures(prompt, test)
    ]
    if failed:
        raise EntryRefused(f"tests in {beside} fail, nothing was published:\n" + "\n".join(map(printable, failed)))


def _show(plan: Plan, *, err: bool) -> None:
    for change in plan.changes:
        assert change.after is not None
        if change.key not in plan.moves:
            click.echo(f"+ prompts/{change.key}", err=err)
            continue
        before, after = plan.moves[change.key]
        click.echo(f"{'~' if before else '+'} prompts/{change.key}  {after.version}", err=err)
        if before is not None:
            show_diff(
                differing_lines(before, after, f"{before.name}@{before.version}", f"{after.name}@{after.version}"),
                err=err,
            )


def _tell(wanted: Sequence[Wanted], plan: Plan, *, dry_run: bool) -> None:
    if not plan.changes:
        said = ", ".join(key for each in wanted for key in (each.prompt.key, *(f"@{label}" for label in each.labels)))
        click.echo(f"nothing to publish: the topic holds {said} already")
    elif dry_run:
        click.echo("nothing published: this is a dry run")
    else:
        for key, (_, after) in plan.moves.items():
            click.echo(f"{key} is {after.version} now")
        for each in wanted:
            if not each.labels:
                click.echo(
                    f"{each.prompt.key} is published; nobody gets it until a label points at it: "
                    f"`penstock prompts promote {each.prompt.key}`"
                )


def _outcome(wanted: Sequence[Wanted], plan: Plan, published: bool) -> list[dict[str, Any]]:
    new = {change.key for change in plan.changes}
    return [
        {
            "name": each.prompt.name,
            "version": each.prompt.version,
            "new": each.prompt.key in new,
            "published": published,
            "labels": [
                {
                    "label": label,
                    "before": before.version if before else None,
                    "moved": published,
                }
                for label in each.labels
                if (key := f"{each.prompt.name}@{label}") in plan.moves
                for before in (plan.moves[key][0],)
            ],
        }
        for each in wanted
    ]
