"""``penstock stack``: the servers Penstock stands on, on this machine."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from penstock.stack.errors import PartFailed, StackError
from penstock.stack.stack import PARTS, Note, Stack
from penstock.stack.status import StackStatus

__all__ = ["clear_errors", "stack", "stack_options"]

_F = TypeVar("_F", bound=Callable[..., object])

_NOT_UP_EXIT_CODE = 3  # as in the Linux Standard Base: the program is not running

_COLOURS = {"running": "green", "given": "green", "embedded": "green", "stopped": "white"}


def stack_options(command: _F) -> _F:
    """Add the options that choose a stack: ``--name`` and ``--state-dir``."""
    command = click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help="Where stacks are kept.  [env: PENSTOCK_STATE_DIR; default: .penstock in the project]",
    )(command)
    return click.option("--name", help="Which stack.  [env: PENSTOCK_STACK; default: default]")(command)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn what the stack raises into messages for people: no traceback, the failed part's log instead."""
    try:
        yield
    except PartFailed as error:
        body = "\n".join(f"    {line}" for line in error.log_tail.splitlines()) or "    (empty)"
        raise click.ClickException(f"{error}\n  end of {error.log}:\n{body}") from error
    except StackError as error:
        raise click.ClickException(str(error)) from error


@click.group()
def stack() -> None:
    """Run Kafka, a schema registry, Redis and Qdrant on this machine: no Docker, no root, no Java to install."""


def _port_option(part: str) -> Callable[[_F], _F]:
    return click.option(
        f"--{part}-port",
        type=click.IntRange(1, 65_535),
        help=f"Port of {part}.  [env: PENSTOCK_{part.upper()}_PORT; default: a free one]",
    )


@stack.command()
@stack_options
@_port_option("kafka")
@_port_option("registry")
@_port_option("redis")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON; progress goes to standard error.")
def up(name: str | None, state_dir: Path | None, as_json: bool, **ports: int | None) -> None:
    """Start the stack and wait until all of it answers.

    What already runs stays as it is; a part that crashed comes back on its old port with its old data. A part whose
    address is given in KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, REDIS_URL or QDRANT_URL is used, not started. The first
    start fetches about 200 MB.
    """
    fixed = {part.name: port for part in PARTS if (port := ports[f"{part.name}_port"]) is not None}
    with clear_errors():
        opened = Stack.open(name, state_dir, ports=fixed)
        with _progress() as note:
            status = opened.up(note)
    if as_json:
        click.echo(json.dumps({**status.to_json(), "environment": opened.environment()}, indent=2))
        return
    _print(status)
    option = "" if opened.name == "default" else f" --name {opened.name}"
    click.echo(
        "\nNext:\n"
        "  penstock topics apply     create the topics\n"
        "  penstock schemas apply    register the schemas\n"
        "  penstock config apply     publish prompts, policies, prices, routes and teams\n"
        f"  penstock run{option}{' ' * max(1, 14 - len(option))}start the services"
    )
    others = "your own programs" if opened.name == "default" else "the other commands and your own programs"
    click.echo(f'\nFor {others} to find it:\n  eval "$(penstock stack env{option})"')


@stack.command()
@stack_options
@click.option("--purge", is_flag=True, help="Delete the stack's data and logs as well.")
def down(name: str | None, state_dir: Path | None, purge: bool) -> None:
    """Stop the services that run on the stack, then the stack. Its data stays, unless --purge."""
    with clear_errors():
        opened = Stack.open(name, state_dir)
        with _progress() as note:
            opened.down(purge=purge, note=note)
    kept = "its data is deleted" if purge else f"its data stays in {opened.folder.data}"
    click.echo(f"Stack '{opened.name}' is down; {kept}.")


@stack.command()
@stack_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Show each part: state, address, process, memory, log. Exits 3 unless every part can be used."""
    with clear_errors():
        found = Stack.open(name, state_dir).status()
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _print(found)
    if not found.up:
        sys.exit(_NOT_UP_EXIT_CODE)


@stack.command()
@stack_options
def env(name: str | None, state_dir: Path | None) -> None:
    """Print the stack's addresses as shell exports: eval "$(penstock stack env)"."""
    with clear_errors():
        opened = Stack.open(name, state_dir)
        addresses = {**opened.environment(), "PENSTOCK_STACK": opened.name}
    for variable, value in addresses.items():
        click.echo(f"export {variable}={shlex.quote(value)}")


def _print(status: StackStatus) -> None:
    headline = "is up" if status.up else "is not up" if not status.started else "is partly up"
    click.echo(f"Stack '{status.name}' {headline}  ({status.folder})")
    for part in status.parts:
        facts = []
        if part.pid is not None:
            facts.append(f"pid {part.pid}")
        if part.resident_bytes is not None:
            facts.append(f"{part.resident_bytes / 1e6:.0f} MB")
        if part.started_at is not None and part.pid is not None:
            facts.append(f"up {_duration(time.time() - part.started_at)}")
        state = click.style(f"{part.state:<11}", fg=_COLOURS.get(part.state, "red"))
        click.echo(f"  {part.title:<16} {state} {part.address or '-'}{'   ' if facts else ''}{', '.join(facts)}")
        if part.detail:
            click.echo(f"  {'':<16} {part.detail}" + (f"; log: {part.log}" if part.log else ""))
    if status.services:
        by = f" under pid {status.supervisor_pid}" if status.supervisor_pid else ", left by a `penstock run` that died"
        click.echo(f"Services{by}:")
        for service in status.services:
            state = click.style("running", fg="green") if service.alive else click.style("ended", fg="red")
            memory = f", {service.resident_bytes / 1e6:.0f} MB" if service.resident_bytes is not None else ""
            click.echo(f"  {service.name:<16} {state}     {service.metrics}   pid {service.pid}{memory}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def _progress() -> Iterator[Note]:
    """Yield what takes notes: a live display on a terminal, one line each elsewhere; both on standard error."""
    titles: Mapping[str, str] = {part.name: part.title for part in PARTS}
    if not sys.stderr.isatty():
        lock = threading.Lock()

        def line(part: str, text: str) -> None:
            with lock:
                click.echo(f"{titles.get(part, part.capitalize())}: {text}", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.fields[title]:<16}"), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        tasks: dict[str, int] = {}
        guard = threading.Lock()

        def show(part: str, text: str) -> None:
            with guard:
                if part not in tasks:
                    tasks[part] = display.add_task("", title=titles.get(part, part.capitalize()), total=1)
                finished = text.startswith(("ready", "stopped", "given"))
                display.update(tasks[part], description=text, completed=int(finished))  # type: ignore[arg-type]

        yield show
