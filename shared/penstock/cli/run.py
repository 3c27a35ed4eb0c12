"""``penstock run``: the services, as processes of this machine."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from penstock.cli.run_api import Api, place_edges
from penstock.cli.stack import clear_errors, stack_options
from penstock.contracts.catalogue import Catalogue, CatalogueError, project_file
from penstock.stack.errors import StackError
from penstock.stack.kafka import missing_topics
from penstock.stack.member import Member, RestartPolicy
from penstock.stack.stack import Stack
from penstock.stack.supervisor import FLOW, ServiceFailed, Supervisor, service_specs

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["run", "services_table"]

_TOPICS_TIMEOUT_S = 10.0
_MEMORY_EVERY_S = 1.0
_COLOURS = {"ready": "green", "starting": "yellow", "stopped": "dim"}


class _Replicas(click.ParamType):
    name = "SERVICE=N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        service, _, count = str(value).partition("=")
        if not service or not count.isdecimal():
            self.fail(f"{value!r} is not SERVICE=N, as in intake=2", param, ctx)
        return service, int(count)


class _Interpreter(click.ParamType):
    name = "SERVICE=PATH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        service, _, path = str(value).partition("=")
        if not service or not path:
            self.fail(f"{value!r} is not SERVICE=PATH, as in inference=.venv-vllm/bin/python", param, ctx)
        return service, str(Path(path).absolute()) if "/" in path else path


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@stack_options
@click.option("--replicas", multiple=True, type=_Replicas(), help="Run N processes of a service; may be repeated.")
@click.option("--python", "interpreters", multiple=True, type=_Interpreter(), help="Python that runs a service.")
@click.option("--max-crashes", default=5, show_default=True, type=click.IntRange(1), help="Crashes in a row to bear.")
@click.option(
    "--ready-timeout", default=90.0, show_default=True, type=click.FloatRange(1), help="Seconds to be ready in."
)
def run(
    services: tuple[str, ...],
    name: str | None,
    state_dir: Path | None,
    replicas: tuple[tuple[str, int], ...],
    interpreters: tuple[tuple[str, str], ...],
    max_crashes: int,
    ready_timeout: float,
) -> None:
    """Run SERVICEs (default: all of the flow) until Ctrl-C.

    They use the running stack, or the servers given in KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, REDIS_URL and QDRANT_URL.
    A service that crashes is started again, later each time; after --max-crashes crashes in a row everything is stopped
    and the end of its log is shown. The HTTP API listens on EDGE_PORT (8080); further edges get free ports.
    """
    with clear_errors():
        try:
            project = project_file("services").parent
            topics = Catalogue.load().topics
        except CatalogueError as error:
            raise click.ClickException(str(error)) from error
        specs = service_specs(services or FLOW, project, dict(replicas), dict(interpreters))
        stack = Stack.open(name, state_dir)
        addresses = stack.environment()
        _check(stack, addresses, topics)
        # Its port belongs to an edge of this stack where services run or were left running: of that the supervisor tells.
        specs, apis = place_edges(specs, os.environ, check=not _runs(stack))
        view = _View()
        supervisor = Supervisor(
            specs,
            {**os.environ, **stack.secrets(), **addresses, "PENSTOCK_STACK": stack.name},
            stack.folder,
            cwd=project,
            policy=RestartPolicy(max_crashes=max_crashes),
            on_change=view.changed,
        )
        failure = asyncio.run(_supervise(supervisor, view, ready_timeout, apis))
    if failure is not None:
        body = "\n".join(f"    {line}" for line in failure.log_tail.splitlines()) or "    (empty)"
        raise click.ClickException(f"{failure}\n  end of {failure.log}:\n{body}")


def _check(stack: Stack, addresses: Mapping[str, str], topics: Mapping[str, object]) -> None:
    """Find out now what every service would otherwise fail on."""
    status = stack.status()
    broken = [f"{part.title} is {part.state}: {part.detail}" for part in status.parts if not part.usable]
    if broken:
        raise StackError("; ".join(broken) + "; see `penstock stack status`, and `penstock stack up` to mend it")
    missing = missing_topics(addresses["KAFKA_BOOTSTRAP"], os.environ, topics, _TOPICS_TIMEOUT_S)
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise StackError(
            f"topics are missing on {addresses['KAFKA_BOOTSTRAP']}: {some}; type `penstock topics apply`, then "
            "`penstock schemas apply` and `penstock config apply`"
        )


def _runs(stack: Stack) -> bool:
    roster = stack.roster.read()
    return roster is not None and any(one.process.alive for one in roster.services.values())


async def _supervise(
    supervisor: Supervisor, view: _View, ready_timeout: float, apis: Sequence[Api]
) -> ServiceFailed | None:
    asked = asyncio.Event()

    def ask() -> None:
        if asked.is_set():
            supervisor.kill_all()  # asked twice: no more patience
        else:
            view.say("stopping; once more to kill")
        asked.set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, ask)
    stopped = asyncio.create_task(asked.wait())
    failed = asyncio.create_task(supervisor.wait_failed())
    painter = asyncio.create_task(_paint(supervisor, view))
    ready = asyncio.create_task(_announce(supervisor, view, ready_timeout, apis))
    try:
        with view.display():
            await supervisor.start()
            await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            await supervisor.close()
            view.paint(supervisor)
    finally:
        for task in (stopped, failed, painter, ready):
            task.cancel()
        await supervisor.close()
    return failed.result() if failed.done() and not failed.cancelled() and not asked.is_set() else None


async def _announce(supervisor: Supervisor, view: _View, timeout_s: float, apis: Sequence[Api]) -> None:
    begun = time.monotonic()
    try:
        await supervisor.wait_ready(timeout_s=timeout_s)
    except ServiceFailed:
        return  # the run ends, and tells why
    except StackError as error:
        view.say(f"{error}; still waiting")
        try:
            await supervisor.wait_ready(timeout_s=math.inf)
        except ServiceFailed:
            return
    view.say(f"all services are ready after {time.monotonic() - begun:.1f} s; Ctrl-C stops them")
    for api in apis:
        view.say(f"{api.name}: the API is at {api.url}/v1, what it offers at {api.url}/docs")
    if apis:
        view.say("keys for it: `penstock keys create TEAM`; metrics of each service: `penstock stack status`")


async def _paint(supervisor: Supervisor, view: _View) -> None:
    while True:
        view.paint(supervisor)
        await asyncio.sleep(_MEMORY_EVERY_S)


class _View:
    """Shows the services: a live table on a terminal, a line for each change elsewhere."""

    def __init__(self) -> None:
        self._live = None
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(auto_refresh=False)

    def display(self) -> AbstractContextManager[object]:
        return self._live if self._live is not None else nullcontext()

    def changed(self, member: Member, text: str) -> None:
        # On a terminal the table shows the ordinary course; what needs a person's eye stays above it.
        if self._live is None or member.state in ("restarting", "failed", "not ready"):
            self.say(f"{member.name}: {text}")

    def say(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        if self._live is not None and self._live.is_started:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line)

    def paint(self, supervisor: Supervisor) -> None:
        if self._live is not None and self._live.is_started:
            self._live.update(services_table(supervisor), refresh=True)


def services_table(supervisor: Supervisor) -> Table:
    """Return the services with their state, memory and restarts, as a terminal shows them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("service", "pid", "state", "metrics", "memory", "restarts"):
        table.add_column(title, justify="right" if title in ("pid", "memory", "restarts") else "left")
    memory = supervisor.rss()
    pids = supervisor.pids()
    metrics = supervisor.metrics()
    for member in supervisor.members:
        colour = _COLOURS.get(member.state, "red")
        waiting = f": {member.waiting_for}" if member.state in ("starting", "not ready") and member.waiting_for else ""
        table.add_row(
            member.name,
            str(pids.get(member.name, "-")),
            # No markup: a line that is printed above as it is has the table drawn anew in the same way.
            Text.assemble((member.state, colour), waiting),
            metrics.get(member.name, "-"),
            f"{memory[member.name] / 1e6:.0f} MB" if member.name in memory else "-",
            str(member.restarts),
        )
    return table
