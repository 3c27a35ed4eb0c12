"""penstock send: requests in, answers out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from penstock.cli.cluster import cluster_settings
from penstock.cli.connection import run_command
from penstock.cli.generation import named, sampling_of
from penstock.client import Client
from penstock.contracts.envelope import new_id
from penstock.contracts.records import LlmResult, Priority, ResultChunk

__all__ = ["send"]

_FIELDS = (
    "route", "conversation_id", "user_id", "prompt", "request_id", "variables", "tags", "key_id", "tenant", "priority",
    "sampling",
)  # fmt: skip


@click.command()
@click.argument("question", required=False)
@click.option("--team", required=True, help="Team that sends and pays; it must be configured.")
@click.option("--route", default="default", show_default=True, help="Route to answer it.")
@click.option("--conversation", help="Conversation it belongs to.")
@click.option("--user", help="End user it is for: costs and budgets per user.")
@click.option("--key", "key_id", help="Identity of the credential it comes with, never the credential.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Label for cost allocation; repeatable.")
@click.option(
    "--priority",
    type=click.Choice(list(Priority)),
    default=Priority.STANDARD,
    show_default=True,
    help="Who goes first where requests wait for a model.",
)
@click.option(
    "--sampling",
    "sampling",
    multiple=True,
    metavar="NAME=VALUE",
    help="How the model generates: temperature=0, n=3, top_logprobs=5, regex=..., as in Sampling; repeatable.",
)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='JSON lines: {"question": ...} or {"messages": [...]}, with route, user_id, ... where wanted.',
)
@click.option("--stream", is_flag=True, help="Print the answer while it comes, as far as it is released.")
@click.option("--no-wait", is_flag=True, help="Print the request ids and do not wait for the results.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait for each result.")
@click.option("--json", "as_json", is_flag=True, help="Print each result as one line of JSON.")
def send(
    question: str | None, team: str, route: str, conversation: str | None, user: str | None, key_id: str | None,
    tags: tuple[str, ...], priority: str, sampling: tuple[str, ...],
    file: Path | None, stream: bool, no_wait: bool, timeout: float, as_json: bool,
) -> None:  # fmt: skip
    """Send QUESTION (or the requests of --file) and print the answers with their sources.

    Exits 1 unless every request was completed. Ctrl-C cancels what is not answered yet.
    """
    if (question is None) == (file is None):
        raise click.UsageError("give a QUESTION or --file, one of the two")
    if unnamed := [tag for tag in tags if not tag.partition("=")[0] or "=" not in tag]:
        raise click.UsageError(f"--tag {unnamed[0]!r} is no NAME=VALUE, e.g. --tag feature=search")
    defaults = {
        "route": route,
        "conversation_id": conversation,
        "user_id": user,
        "key_id": key_id,
        "tags": dict(tag.split("=", 1) for tag in tags),
        "priority": str(priority),
        "sampling": sampling_of(dict(named(one) for one in sampling)),
    }
    if stream:
        if question is None or no_wait:
            raise click.UsageError("--stream prints one answer while it comes: give a QUESTION, and no --no-wait")
        run_command(_stream(question, team, defaults, timeout, as_json))
        return
    requests = _read(file) if file else [{"question": question}]
    run_command(_send(requests, team, defaults, None if no_wait else timeout, as_json))


async def _send(
    requests: list[dict[str, Any]], team: str, defaults: dict[str, Any], timeout_s: float | None, as_json: bool
) -> None:
    console = Console(highlight=False, soft_wrap=True)
    async with Client(cluster_settings(), tenant=team) as client:
        ids: list[str] = []
        sent: list[dict[str, Any]] = []
        for request in requests:
            options = defaults | {name: request[name] for name in _FIELDS if name in request}
            if "sampling" in request:
                options["sampling"] = sampling_of(request["sampling"])
            sent.append(options)
            ids.append(await client.submit(request.get("messages") or request.get("question", ""), **options))
        if timeout_s is None:
            for request_id in ids:
                click.echo(request_id)
            return
        async with _cancelling(client, dict(zip(ids, sent, strict=True))):
            results = await asyncio.gather(*(client.result(i, timeout_s) for i in ids), return_exceptions=True)
    failed = 0
    for request_id, result in zip(ids, results, strict=True):
        if isinstance(result, BaseException):
            failed += 1
            remedy = (
                f"; what became of it: `penstock audit show {request_id}`" if isinstance(result, TimeoutError) else ""
            )
            console.print(f"[red]{escape(request_id)}[/red] {escape(str(result) + remedy)}")
            continue
        failed += result.status != "completed"
        if as_json:
            click.echo(msgspec.json.encode(result).decode())
        else:
            _print(console, result)
    if failed:
        sys.exit(1)


async def _stream(question: str, team: str, options: dict[str, Any], timeout_s: float, as_json: bool) -> None:
    """Print the pieces as they come, then what the result adds to them."""
    shown, finish, request_id = "", None, new_id()
    async with (
        Client(cluster_settings(), tenant=team) as client,
        _cancelling(client, {request_id: options}),
    ):
        try:
            async for event in client.stream(question, timeout_s=timeout_s, request_id=request_id, **options):
                if as_json:
                    click.echo(msgspec.json.encode(event).decode())
                elif isinstance(event, ResultChunk):
                    click.echo(event.content, nl=False)
                if isinstance(event, ResultChunk):
                    shown, finish = shown + event.content, event.finish_reason
                else:
                    result = event
        except TimeoutError as error:
            raise click.ClickException(str(error)) from None
    if not as_json:
        console = Console(highlight=False, soft_wrap=True)
        if shown:
            click.echo()
        whole = shown == result.content
        if shown and not whole:
            console.print(f"[yellow]{finish or 'incomplete'}[/yellow] the pieces end here; the result is")
        _print(console, result, with_content=not whole)
    if result.status != "completed":
        sys.exit(1)


@asynccontextmanager
async def _cancelling(client: Client, sent: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[None]:
    """Cancel the requests, given by their ids with what they were sent with, if this is interrupted: nobody reads on."""
    try:
        yield
    except asyncio.CancelledError:
        for request_id, options in sent.items():
            await client.cancel(
                request_id,
                tenant=options.get("tenant"),
                conversation_id=options["conversation_id"],
                reason="penstock send was interrupted",
            )
        raise


def _print(console: Console, result: LlmResult, *, with_content: bool = True) -> None:
    if result.status == "completed":
        if with_content:
            console.print(escape(result.content))
        for call in result.tool_calls:
            console.print(f"[dim]calls {escape(call.name)}:[/dim] {escape(call.arguments)}")
        for number, alternative in enumerate(result.alternatives, 2):
            console.print(f"[dim]answer {number}:[/dim] {escape(alternative.content)}")
        for passage in result.citations:
            console.print(f"  [dim]{passage.score:.2f}  {escape(passage.title)}  {escape(passage.source)}[/dim]")
    else:
        console.print(f"[yellow]{result.status}[/yellow] {result.code}: {escape(result.reason or '')}")
    model = f"  model {escape(result.model)}" if result.model else ""
    console.print(f"  [dim]request {result.request_id}{model}[/dim]")


def _read(file: Path) -> list[dict[str, Any]]:
    requests = []
    # Not splitlines: U+2028 and its like end no line of JSON.
    for number, line in enumerate(file.read_text("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except json.JSONDecodeError as error:
            raise click.ClickException(f"{file}:{number}: not JSON: {error.msg}; write one object a line") from None
        if not isinstance(request, dict) or not (request.get("question") or request.get("messages")):
            raise click.ClickException(f'{file}:{number}: needs "question" or "messages"')
        requests.append(request)
    return requests
