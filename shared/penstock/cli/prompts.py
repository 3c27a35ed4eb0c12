"""``penstock prompts``: the registry of prompts. Read it, publish versions, move labels and take a move back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from penstock.cli import change_options
from penstock.cli.connection import connect, run_command
from penstock.cli.printable import printable
from penstock.cli.prompt_tables import history_data, show_diff, show_history, show_list, show_prompt
from penstock.cli.prompts_publish import promote, publish, rollback
from penstock.cli.prompts_reading import (
    PRODUCTION,
    expected_errors,
    of_file,
    read_histories,
    reference,
    require_one,
)
from penstock.cli.prompts_test import test
from penstock.config.prompt_history import PromptHistory, named
from penstock.config.prompt_text import breaking_changes, differing_lines
from penstock.config.prompt_variables import written
from penstock.config.prompts import Prompt
from penstock.config.yaml_lines import YamlError, read_yaml

__all__ = ["prompts"]

_file = click.option(
    "--file", "file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file of prompts, as in infra/config/prompts, in place of what is published.",
)  # fmt: skip


@click.group()
def prompts() -> None:
    """The registry of prompts: versions, labels, who moved what when; render and test before anybody gets it."""


@prompts.command("list")
@change_options.as_json
def list_(as_json: bool) -> None:
    """List the prompts with their labels and the versions these point at."""

    def told(found: Mapping[str, PromptHistory]) -> None:
        if as_json:
            _echo_json([history_data(history) for _, history in sorted(found.items())])
        elif any(history.labels for history in found.values()):
            show_list(found)
        else:
            click.echo("no prompts are published: write some to infra/config/prompts and run `penstock config apply`")

    with expected_errors():
        run_command(_on_histories(told))


@prompts.command()
@click.argument("prompt")
@change_options.as_json
def show(prompt: str, as_json: bool) -> None:
    """Show a version of a prompt: its messages, its variables, the labels that point at it.

    PROMPT is NAME (its production version), NAME@LABEL, or NAME@VERSION, of which the first digits are enough.
    """
    name, which = reference(prompt)

    def told(found: Mapping[str, PromptHistory]) -> None:
        history = named(found, name)
        version = history.find(which or PRODUCTION)
        if as_json:
            data = history_data(history)
            _echo_json(
                next(each for each in data["versions"] if each["version"] == version.version)
                | {"labels": history.labels_of(version.version)}
            )
        else:
            show_prompt(version, history)

    with expected_errors():
        run_command(_on_histories(told))


@prompts.command()
@click.argument("name")
@click.option("--label", help="Moves of this label alone.")
@change_options.as_json
def history(name: str, label: str | None, as_json: bool) -> None:
    """Show every move of the labels of the prompt NAME: when, by whom, why, from which version to which."""

    def told(found: Mapping[str, PromptHistory]) -> None:
        own = named(found, name)
        if label is not None and label not in own.moves:
            raise click.ClickException(
                f"the prompt {name} has had no label {label}; it has had {', '.join(sorted(own.moves)) or 'none'}"
            )
        if as_json:
            _echo_json(history_data(own))
        else:
            show_history(own, label)

    with expected_errors():
        run_command(_on_histories(told))


@prompts.command()
@click.argument("before")
@click.argument("after", required=False)
@_file
@change_options.as_json
def diff(before: str, after: str | None, file: Path | None, as_json: bool) -> None:
    """Show how two versions of a prompt differ, and which requests the second would refuse.

    BEFORE and AFTER are NAME@LABEL or NAME@VERSION, of AFTER also the LABEL or VERSION alone. Without AFTER: BEFORE with
    the prompt in --file. Exits 0, whether they differ or not.
    """
    if (after is None) == (file is None):
        raise click.UsageError("say what to compare with: a second version, or --file")
    name, which = reference(before)

    def told(found: Mapping[str, PromptHistory]) -> None:
        own = named(found, name)
        old = own.find(which or PRODUCTION)
        if file is not None:
            new, called = require_one(of_file(file), name, None, file), str(file)
        else:
            other, label = reference(after or "") if "@" in (after or "") else (name, after)
            new = named(found, other).find(label or PRODUCTION)
            called = f"{other}@{new.version}"
        lines = differing_lines(old, new, f"{name}@{old.version}", called)
        breaks = list(breaking_changes(old, new))
        if as_json:
            _echo_json({"before": old.version, "after": new.version, "diff": lines, "breaking": breaks})
            return
        show_diff(lines)
        for change in breaks:
            click.echo(f"warning: {printable(change)}", err=True)
        if not lines:
            click.echo(f"they are the same: {old.version}")

    with expected_errors():
        run_command(_on_histories(told))


@prompts.command()
@click.argument("prompt")
@click.option("--var", "given", multiple=True, metavar="NAME=VALUE", help="Value of a variable; repeatable.")
@click.option(
    "--variables", "variables", type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="YAML or JSON file with a mapping of values by name.",
)  # fmt: skip
@_file
@change_options.as_json
def render(prompt: str, given: tuple[str, ...], variables: Path | None, file: Path | None, as_json: bool) -> None:
    """Render a prompt as intake would, and send nothing.

    PROMPT is NAME (its production version), NAME@LABEL or NAME@VERSION; with --file of the prompts in it, and no cluster
    is asked. Exits 2 where a value is not one of its variable's.
    """
    name, which = reference(prompt)
    values = _values(variables) | _given(given)

    def told(version: Prompt) -> None:
        messages = version.render(values)
        if as_json:
            data = [{"role": role, "content": content} for role, content in messages]
            _echo_json({"name": version.name, "version": version.version, "messages": data})
            return
        for role, content in messages:
            click.echo(f"[{role}]\n{printable(content)}")
        characters = sum(len(content) for _, content in messages)
        click.echo(f"{version.key}: {len(messages)} messages, {characters} characters", err=True)

    with expected_errors():
        if file is not None:
            told(require_one(of_file(file), name, which, file))
        else:
            run_command(_on_histories(lambda found: told(named(found, name).find(which or PRODUCTION))))


for command in (publish, promote, rollback, test):
    prompts.add_command(command)


async def _on_histories(told: Callable[[Mapping[str, PromptHistory]], None]) -> None:
    async with connect() as connection:
        found = await read_histories(connection)
    told(found)


def _given(options: tuple[str, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--var {option}: write NAME=VALUE, e.g. --var question='What is a tuple?'")
        if name in values:
            raise click.UsageError(f"--var {name} is given twice")
        values[name] = value
    return values


def _values(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        data = read_yaml(file.read_text("utf-8")).data
    except (YamlError, OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from None
    if not isinstance(data, dict):
        raise click.ClickException(f"{file} holds no mapping: write values by the names of variables")
    values: dict[str, str] = {}
    for name, value in data.items():
        try:
            values[str(name)] = written(value)
        except ValueError as error:
            raise click.ClickException(f"{file}: {name}: {error}") from None
    return values


def _echo_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
