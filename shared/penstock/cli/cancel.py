"""penstock cancel: requests whose answer nobody wants any more."""

from __future__ import annotations

import asyncio

import click

from penstock.cli.cluster import cluster_settings
from penstock.cli.connection import run_command
from penstock.client import Client

__all__ = ["cancel"]


@click.command()
@click.argument("request_ids", nargs=-1, required=True, metavar="REQUEST_ID...")
@click.option("--team", required=True, help="Team that sent them: nobody else can cancel them.")
@click.option("--conversation", help="Conversation they belong to, where they do.")
@click.option("--reason", default="", help="Why, in words: the result has it.")
def cancel(request_ids: tuple[str, ...], team: str, conversation: str | None, reason: str) -> None:
    """Say that nobody wants the answer to REQUEST_ID any more.

    Its model is stopped, what was generated until then is paid for, and the request ends as cancelled. A request that is
    answered already keeps its result.
    """
    run_command(_cancel(request_ids, team, conversation, reason))


async def _cancel(request_ids: tuple[str, ...], team: str, conversation: str | None, reason: str) -> None:
    async with Client(cluster_settings(), tenant=team) as client:
        await asyncio.gather(
            *(client.cancel(request_id, conversation_id=conversation, reason=reason) for request_id in request_ids)
        )
    for request_id in request_ids:
        click.echo(f"cancelled {request_id}")
