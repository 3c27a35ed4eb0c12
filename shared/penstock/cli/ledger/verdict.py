"""What a verification of the ledger found, as text or as JSON."""

from __future__ import annotations

import json
import resource
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from penstock.cli.printable import printable
from penstock.ledger.comparison import Comparison
from penstock.ledger.faults import Fault
from penstock.ledger.rebuild import Figures
from penstock.ledger.verification import Verification
from penstock.money import exact, from_pico

__all__ = ["print_json", "print_report"]

_SHOWN = 20
"""Faults of one kind that are printed; JSON holds all."""


def print_json(
    log: Verification, comparison: Comparison, faults: Sequence[Fault], took_s: float, *, with_redis: bool
) -> None:
    """Print one JSON object; amounts are strings with 12 places."""
    ledger = log.ledger
    found: dict[str, Any] = {
        "ok": not faults,
        "hash": ledger.digest(),
        "entries": len(ledger),
        "repeats": ledger.repeats,
        "totals": _figures(ledger.totals),
        "calls": log.calls,
        "windows": comparison.windows_compared,
        "counters": comparison.counters_compared if with_redis else None,
        "first_offsets": log.beginnings.offsets("costs"),
        "notes": list(_notes(log, comparison, with_redis=with_redis)),
        "seconds": round(took_s, 3),
        "faults": [_told(fault) for fault in faults],
    }
    click.echo(json.dumps(found, ensure_ascii=False))


def print_report(
    log: Verification, comparison: Comparison, faults: Sequence[Fault], took_s: float, *, with_redis: bool
) -> None:
    """Print what was read and compared, and each fault."""
    ledger, totals = log.ledger, log.ledger.totals
    click.echo(
        f"{len(ledger):,} costs, {log.calls:,} calls on the log, {comparison.windows_compared:,} windows", nl=False
    )
    click.echo(f", {comparison.counters_compared:,} counters in Redis" if with_redis else "")
    click.echo(
        f"{totals.usd:f} USD spent, {from_pico(totals.saved):f} USD saved; without a price: {totals.unpriced_calls:,}, "
        f"from a cache: {totals.cached_calls:,}"
    )
    for note in _notes(log, comparison, with_redis=with_redis):
        click.echo(note)
    shown: Counter[str] = Counter()
    for fault in faults:
        shown[fault.kind] += 1
        if shown[fault.kind] <= _SHOWN:
            _print_fault(fault)
    for kind, number in shown.items():
        if number > _SHOWN:
            click.echo(click.style(f"{kind}: {number - _SHOWN:,} more; --json names all", fg="red"))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(f"hash {ledger.digest()}")
    click.echo(click.style(f"{took_s:.1f} s, {peak_mb:,.0f} MB at most", dim=True))
    if faults:
        click.echo(
            click.style(
                f"THE LEDGER DOES NOT AGREE: {len(faults):,} difference{'s' if len(faults) > 1 else ''}",
                fg="red",
                bold=True,
            )
        )
    elif len(ledger):
        click.echo(click.style("the ledger agrees to the last digit", fg="green"))
    else:
        click.echo("the ledger is empty, and nothing says otherwise")


def _told(fault: Fault) -> dict[str, object]:
    difference = None if fault.difference is None else f"{exact(fault.difference):f}"
    fields: dict[str, object] = msgspec.to_builtins(fault)
    return fields | {"difference": difference, "description": fault.description}


def _print_fault(fault: Fault) -> None:
    click.echo(click.style(f"{fault.kind}  {_line(fault.where)}", fg="red"))
    click.echo(f"    {fault.description}")
    if fault.ledger:
        click.echo(f"    ledger: {_line(fault.ledger)}")
    if fault.live:
        click.echo(f"    live:   {_line(fault.live)}")
    if fault.difference is not None:
        click.echo(f"    difference: {exact(fault.difference):+f} USD")
    if fault.cause:
        click.echo(f"    likely cause: {_line(fault.cause)}")


def _line(text: str) -> str:
    """Return what a name of others holds in one line: no line of the report is theirs to write."""
    return printable(text).replace("\n", "\\n")


def _notes(log: Verification, comparison: Comparison, *, with_redis: bool) -> list[str]:
    notes = []
    cut = {partition: offset for partition, offset in log.beginnings.offsets("costs").items() if offset}
    if cut:
        where = ", ".join(f"{partition} at {offset:,}" for partition, offset in cut.items())
        notes.append(
            f"retention has cut the beginning of costs (partition {where}): windows that began before are not compared"
        )
    if log.ledger.repeats:
        notes.append(f"{log.ledger.repeats:,} costs stand on the log again under their event_id: the first counts")
    if comparison.unlike:
        notes.append(
            f"{comparison.unlike:,} windows or counters are of budgets that are no more, or older than the log: not compared"
        )
    if comparison.partial:
        notes.append(
            f"{len(comparison.partial):,} windows on team-spend began before their budget, and hold its costs from then on"
        )
    if log.prices.invalid:
        notes.append(f"{len(log.prices.invalid):,} events of config-prices are no price: services pass over them, too")
    if not with_redis:
        notes.append("Redis was left out: nothing is said about hard budgets")
    return notes


def _figures(figures: Figures) -> dict[str, object]:
    return {
        name: f"{from_pico(getattr(figures, name)):f}" if name in ("amount", "saved") else getattr(figures, name)
        for name in Figures.__dataclass_fields__
    }
