"""How ``penstock prices`` shows prices: as USD for a million tokens, with when they count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from penstock.cli.cluster import table_console
from penstock.cli.printable import printable
from penstock.config.litellm import LiteLLMPrices
from penstock.config.price_files import ImportPlan, PriceChange
from penstock.config.price_history import PriceVersion
from penstock.config.prices import TIERED, TIERS, Price
from penstock.money import from_pico

__all__ = ["show_current", "show_history", "show_plan", "show_taken", "version_data"]

_SHOWN = 10
"""Models of a kind that are listed where not all are asked for."""
_MARKS = {"new": "+", "changed": "~", "gone": "-", "elsewhere": "!"}


def show_taken(found: LiteLLMPrices, now: datetime, *, verbose: bool) -> None:
    """Say what an import took, and what it skipped and why."""
    click.echo(f"{len(found.prices)} taken, {len(found.skipped)} skipped, of {found.entries} models in the file")
    table = Table("skipped because of", "models", "e.g.", box=None)
    for reason, count in Counter(one.reason for one in found.skipped).most_common():
        first = next(one for one in found.skipped if one.reason == reason)
        table.add_row(reason, str(count), _cell(f"{first.model} ({first.detail})" if first.detail else first.model))
    if found.skipped:
        table_console().print(table)
    if verbose:
        for one in found.skipped:
            click.echo(printable(f"  skipped {one.model}: {one.reason}" + (f" ({one.detail})" if one.detail else "")))
        for name, count in sorted(found.left_out.items(), key=lambda item: (-item[1], item[0])):
            click.echo(printable(f"  left out {name}: in {count} of the prices taken"))
    elif found.left_out:
        click.echo(
            f"{len(found.left_out)} fields of the prices taken have no counterpart and were left out (batches, audio, "
            "images, ...); --verbose names them"
        )
    past = sorted(model for model, ends in found.deprecated.items() if ends <= now.date())
    if past:
        click.echo(printable(f"{len(past)} of the models taken are past the date their provider named as their end: "
                             + _some(past, verbose)))  # fmt: skip


def show_plan(plan: ImportPlan, *, prune: bool, verbose: bool) -> None:
    """Show what differs between what is imported and what is configured."""
    listed: Counter[str] = Counter()
    for change in plan.changes:
        listed[change.action] += 1
        if verbose or change.action in ("changed", "elsewhere") or listed[change.action] <= _SHOWN:
            _show_change(change, prune)
    for action, count in listed.items():
        if count > _SHOWN and action not in ("changed", "elsewhere") and not verbose:
            click.echo(f"{_MARKS[action]} ... and {count - _SHOWN} more {action}; --verbose lists them")
    click.echo(
        f"{listed['new']} new, {listed['changed']} changed, {listed['gone']} gone, {plan.unchanged} as configured"
        + (f", {listed['elsewhere']} configured in another file" if listed["elsewhere"] else "")
    )
    in_place = sum(change.in_place for change in plan.changes)
    if in_place:
        click.echo(
            f"warning: {in_place} prices change in place: once published, the new one applies to every call priced from "
            "then on, whenever it was made. With --effective-from DATE the older price stays for what came before.",
            err=True,
        )


def _show_change(change: PriceChange, prune: bool) -> None:
    price = change.after or change.before
    assert price is not None
    click.echo(printable(f"{_MARKS[change.action]} {price.key}  {_summary(price)}"))
    if change.action == "gone":
        click.echo(
            "    the file no longer holds it: " + ("removed" if prune else "its price stays; --prune removes it")
        )
    elif change.action == "elsewhere":
        click.echo(printable(f"    not written, since {change.where} holds this price: change it there, or give "
                             "--effective-from for one that follows it"))  # fmt: skip
    if change.action in ("changed", "elsewhere"):
        for name, before, after in change.differences():
            click.echo(printable(f"    {name}: {before or 'none'} -> {after or 'none'}"))


def show_current(versions: Sequence[PriceVersion]) -> None:
    """Print a line for each price in force, and for those of models that have none in force yet."""
    table = Table("model", "mode", "input", "output", "cached", "besides", "from", "version", box=None)
    current = [version for version in versions if version.state == "in force"]
    priced = {version.price.model for version in current}
    to_come = [version for version in versions if version.state == "to come" and version.price.model not in priced]
    for version in sorted([*current, *to_come], key=lambda version: version.price.model):
        price = version.price
        table.add_row(
            _cell(price.model), price.mode, _million(price.input_cost_per_token), _million(price.output_cost_per_token),
            _million(price.cache_read_input_token_cost), _besides(price), _instant(price.effective_from, "always"),
            price.version,
        )  # fmt: skip
    table_console().print(table)
    click.echo(f"{len(priced)} models with a price, USD for a million tokens")


def show_history(versions: Sequence[PriceVersion]) -> None:
    """Print every version of one model's prices, oldest first."""
    table = Table("state", "from", "until", "input", "output", "cached", "besides", "version", "published", "by", "reason",
                  box=None)  # fmt: skip
    for version in versions:
        price, closed = version.price, version.closed_at
        table.add_row(
            version.state + (f" {_instant(closed)}" if closed else ""), _instant(price.effective_from, "always"),
            _instant(version.ends, "further notice"), _million(price.input_cost_per_token),
            _million(price.output_cost_per_token), _million(price.cache_read_input_token_cost), _besides(price),
            price.version, _instant(version.published_at, ""), _cell(version.author), _cell(version.reason),
        )  # fmt: skip
    table_console().print(table)
    for source in dict.fromkeys(version.price.source for version in versions if version.price.source):
        click.echo(printable(f"source: {source}"))


def version_data(version: PriceVersion) -> dict[str, Any]:
    """Return a version as JSON data: amounts are decimal strings, as configured, USD a token, second or call."""

    def instant(value: datetime | None) -> str | None:
        return value.isoformat().replace("+00:00", "Z") if value else None

    return {
        "model": version.price.model,
        "version": version.price.version,
        "state": version.state,
        "effective_from": instant(version.price.effective_from),
        "effective_until": instant(version.ends),
        "published_at": instant(version.published_at),
        "closed_at": instant(version.closed_at),
        "author": version.author,
        "reason": version.reason,
        "price": json.loads(version.price.canonical),
    }


def _summary(price: Price) -> str:
    parts = [
        f"{_million(cost)} {word}"
        for cost, word in ((price.input_cost_per_token, "in"), (price.output_cost_per_token, "out"))
        if cost is not None
    ]
    besides = _besides(price)
    return ", ".join([f"{' / '.join(parts)} USD a million" if parts else "", besides]).strip(", ")


def _besides(price: Price) -> str:
    parts = []
    if price.cache_creation_input_token_cost is not None:
        parts.append(f"cache writing {_million(price.cache_creation_input_token_cost)}")
    if price.output_cost_per_reasoning_token is not None:
        parts.append(f"reasoning {_million(price.output_cost_per_reasoning_token)}")
    for tier in TIERS:
        own = [getattr(price, f"{name}_above_{tier}_tokens") for name in TIERED[:2]]
        if any(cost is not None for cost in own):
            parts.append(f"above {tier} {' / '.join(map(_million, own))}")
    if price.per_second:
        parts.append(f"{_plain(from_pico(price.per_second))} a second")
    if price.input_cost_per_request:
        parts.append(f"{_plain(price.input_cost_per_request)} a call")
    return ", ".join(parts)


def _million(cost: Decimal | None) -> str:
    return "-" if cost is None else _plain(cost * 1_000_000)


def _plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


def _instant(value: datetime | None, otherwise: str = "") -> str:
    if value is None:
        return otherwise
    return f"{value:%Y-%m-%d}" if value.time() == datetime.min.time() else f"{value:%Y-%m-%d %H:%M:%S}"


def _some(names: Sequence[str], verbose: bool) -> str:
    few = names if verbose else names[:3]
    return ", ".join(few) + (f" and {len(names) - len(few)} more" if len(names) > len(few) else "")


def _cell(text: str) -> str:
    return escape(printable(text))
