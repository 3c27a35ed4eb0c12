"""``penstock guard report``: what rules and policies in shadow would have changed."""

from __future__ import annotations

from datetime import datetime

import click
import msgspec
from penstock.bus.types import RawReader
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.main import use_running_stack
from penstock.config.policies import ACTIONS
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import Verdict
from rich.console import Console
from rich.table import Table

from services.guardrails.command.shadow_tally import Change, ShadowTally, Tried, TriedKey

__all__ = ["report", "tally_topic"]

_TOPIC = "verdicts"


@click.command()
@click.option("--policy", metavar="CANDIDATE", help="Only this policy.  [default: all with something in shadow]")
@click.option(
    "--since",
    type=INSTANT,
    default="24h",
    show_default=True,
    help="From when on: 90m, 24h, 7d ago, or an ISO 8601 instant.",
)
@click.option(
    "--samples", default=5, show_default=True, type=click.IntRange(0), help="Request ids shown of each change."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def report(policy: str | None, since: datetime, samples: int, as_json: bool) -> None:
    """Say what rules (`mode: shadow`) and policies (`shadows: NAME`) in shadow would have changed.

    Reads the verdicts of the running platform. What was done stands beside what would have been done, by policy, version
    and stage, with the rules behind it and requests to look at (`penstock audit show REQUEST_ID`).
    """
    use_running_stack()
    run_command(_report(policy, since, samples, as_json))


async def _report(policy: str | None, start: datetime, samples: int, as_json: bool) -> None:
    async with connect() as connection:
        reader = await connection.bus.read([_TOPIC], since_ms=int(start.timestamp() * 1000))
        try:
            tally, undecodable = await tally_topic(reader, connection.codec, start, policy, samples)
        finally:
            await reader.close()
    if undecodable:
        click.echo(f"{undecodable} verdicts cannot be decoded and are left out", err=True)
    if as_json:
        document = {"since": start.isoformat(), "judged": dict(tally.traffic), "tried": tally.plain()}
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
    else:
        show(table_console(), tally, policy, start)


async def tally_topic(
    reader: RawReader, codec: Codec, start: datetime, policy: str | None, samples: int
) -> tuple[ShadowTally, int]:
    """Count the verdicts that occurred from ``start`` on, up to the end of the topic, and those that are undecodable."""
    tally, undecodable = ShadowTally(policy, samples), 0
    while not await reader.at_end():
        for message in await reader.poll(0.5):
            try:
                verdict = codec.decode(_TOPIC, message.value)
            except Undecodable:
                undecodable += 1
                continue
            assert isinstance(verdict, Verdict)
            if verdict.occurred_at >= start:
                tally.add(verdict)
    return tally, undecodable


def show(console: Console, tally: ShadowTally, policy: str | None, start: datetime) -> None:
    """Print the tally as tables."""
    judged = ", ".join(f"{number:,} {stage}" for stage, number in sorted(tally.traffic.items())) or "none"
    console.print(f"texts judged since {start:%Y-%m-%d %H:%M} UTC: {judged}\n")
    if not tally.tried:
        if policy is not None and tally.others:
            console.print(f"nothing of {policy!r} was in shadow; of these was: {', '.join(sorted(tally.others))}")
        else:
            console.print(
                "nothing was in shadow: set `mode: shadow` on a rule, or `shadows: NAME` in a policy, then "
                "`penstock config apply`"
            )
    for key, tried in sorted(tally.tried.items()):
        _show_tried(console, key, tried, tally.share(key))


def _show_tried(console: Console, key: TriedKey, tried: Tried, share: float | None) -> None:
    what = "the whole policy" if key.mode == "shadow" else "its rules in shadow"
    of = "" if share is None else f", {share:.1%} of what was judged"
    console.print(f"[bold]{key.policy}@{key.version}[/], {key.stage}: {what} on {tried.verdicts:,} texts{of}")
    milder = tried.changed - tried.stricter
    console.print(
        f"would have changed {tried.changed:,} ({tried.changed / tried.verdicts:.2%}): {tried.stricter:,} more strictly, "
        f"{milder:,} more mildly; {tried.latency_us / tried.verdicts / 1e3:.2f} ms a text"
        + (f"; a scanner failed on {tried.failed:,}" if tried.failed else "")
    )
    console.print(_matrix(tried))
    if tried.rules:
        table = Table("rule", "found something in", "would have changed", box=None, pad_edge=False, header_style="dim")
        for name, rule in sorted(tried.rules.items(), key=lambda item: (-item[1].decided, -item[1].found, item[0])):
            table.add_row(name, f"{rule.found:,}", f"{rule.decided:,}")
        console.print(table)
    for change, number in sorted(tried.outcomes.items(), key=lambda item: -item[1]):
        if ids := tried.samples.get(change):
            console.print(f"{change.done} -> {change.would}, {number:,}: {', '.join(ids)}", style="dim", soft_wrap=True)
    console.print()


def _matrix(tried: Tried) -> Table:
    """What was done, by row, against what would have been done, by column."""
    seen = {action for change in tried.outcomes for action in change}
    actions = sorted(seen, key=ACTIONS.index)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("done \\ would be")
    for action in actions:
        table.add_column(action, justify="right")
    for done in actions:
        cells = []
        for would in actions:
            number = tried.outcomes.get(Change(done, would), 0)
            cells.append(f"[bold]{number:,}[/]" if number and done != would else f"{number:,}" if number else ".")
        if any(tried.outcomes.get(Change(done, would)) for would in actions):
            table.add_row(done, *cells)
    return table
