"""``penstock prices``: take prices over from LiteLLM's file, show what is in force and was, find what has no price."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import cast

import click

from penstock.bus import history
from penstock.cli.cluster import one_line_errors
from penstock.cli.connection import connect
from penstock.cli.instants import INSTANT
from penstock.cli.price_tables import show_current, show_history, show_plan, show_taken, version_data
from penstock.config.files import ConfigInvalid, load_files
from penstock.config.litellm import LiteLLMError, LiteLLMPrices, load_litellm
from penstock.config.plane import ConfigPlane
from penstock.config.price_files import made_by_import, plan_import, prices_text, read_prices
from penstock.config.price_history import PriceVersion, price_history, timeline
from penstock.config.prices import Price
from penstock.config.references import unpriced_targets
from penstock.contracts.catalogue import project_file
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import ConfigEntry

__all__ = ["prices"]

_TOPIC = "config-prices"

_files = click.option(
    "--files", type=click.Path(path_type=Path), help="Read this folder of configuration instead of the topics.",
)  # fmt: skip
_at = click.option(
    "--at", type=INSTANT, default=None, help="At this instant, e.g. 2026-01-05 or 24h (ago).  [default: now]"
)


@click.group()
def prices() -> None:
    """What models cost: prices from LiteLLM's file, prices in force, and models without one."""


@prices.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--model", "models", multiple=True, metavar="GLOB", help="Models to take, by their names in FILE; repeatable."
)
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="Values of litellm_provider; repeatable.")
@click.option("--as", "name", metavar="NAME", help="Name of the price, where one model is taken: as routes name it.")
@click.option("--strip", is_flag=True, help="Leave the first part of names away: azure/gpt-4o becomes gpt-4o.")
@click.option(
    "--effective-from", type=INSTANT, help="First instant of the prices; older ones stay for what was before."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="[default: infra/config/prices/litellm.yaml]"
)
@click.option("--include-free", is_flag=True, help="Take prices of 0 for what they say; else they count as unknown.")
@click.option("--prune", is_flag=True, help="Remove the prices of models that FILE no longer holds.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
@click.option("--force", is_flag=True, help="Write over a file that no import made; its comments are lost.")
@click.option("--verbose", is_flag=True, help="Name every model, and why each was skipped.")
def import_(
    file: Path, models: tuple[str, ...], providers: tuple[str, ...], name: str | None, strip: bool,
    effective_from: datetime | None, out: Path | None, include_free: bool, prune: bool, dry_run: bool, force: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Take the prices in FILE, LiteLLM's model_prices_and_context_window.json, over into a file of the configuration.

    Says what was taken, what was skipped and why, and what differs from the prices configured beside --out, then writes
    the file. Nothing is published: `penstock config apply` does that.
    """
    target = out or project_file("infra/config/prices") / "litellm.yaml"
    if name and strip:
        raise click.UsageError("--as names the price; leave --strip out")
    with one_line_errors(LiteLLMError, ConfigInvalid):
        found = load_litellm(
            file, models=models, providers=providers, include_free=include_free, effective_from=effective_from,
            rename=_renamed(name, strip), note=f"{file.name} of LiteLLM, read {datetime.now(UTC):%Y-%m-%d}",
        )  # fmt: skip
        own, others = _configured(target, force)
    show_taken(found, datetime.now(UTC), verbose=verbose)
    if not found.prices:
        raise click.ClickException("no price was taken; nothing is written" + _asked(found, models, providers))
    plan = plan_import(
        found.prices, own, others, effective_from=effective_from, gone=_asked_for(models, providers), prune=prune
    )
    show_plan(plan, prune=prune, verbose=verbose)
    text = prices_text(plan.prices, f"From {file.name} of LiteLLM. `penstock config apply` publishes it.")
    if dry_run:
        click.echo(f"nothing written: {len(plan.prices)} prices would stand in {target}")
    elif tuple(own) == plan.prices and target.exists():
        click.echo(f"{target} stays as it is: it holds these prices")
    else:
        _write(target, text, plan.prices)
        click.echo(f"{len(plan.prices)} prices written to {target}; publish them with `penstock config apply`")


@prices.command()
@click.argument("model", required=False)
@_at
@_files
@click.option("--json", "as_json", is_flag=True, help="Every version as JSON, amounts as they are configured.")
def show(model: str | None, at: datetime | None, files: Path | None, as_json: bool) -> None:
    """Show the price of every model in force; of one MODEL, its history with versions.

    Amounts in the table are USD for a million tokens.
    """
    instant = at or datetime.now(UTC)
    with one_line_errors(ConfigInvalid):
        versions = _of_files(files, instant) if files else price_history(asyncio.run(_records()), instant)
    if model is not None:
        known = {version.price.model for version in versions}
        if model not in known:
            close = difflib.get_close_matches(model, known, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else "; `penstock prices show` lists what has one"
            raise click.ClickException(f"{model} has no price{hint}")
        versions = [version for version in versions if version.price.model == model]
    if as_json:
        click.echo(json.dumps([version_data(version) for version in versions], indent=2, ensure_ascii=False))
    elif model is None:
        show_current(versions)
    else:
        show_history(versions)


@prices.command()
@_at
@_files
def check(at: datetime | None, files: Path | None) -> None:
    """Find models of routes that have no price. Exits 1 where there are any.

    Their calls are costs without an amount, and requests of a team with a hard budget are refused as unpriced_model.
    """
    instant = at or datetime.now(UTC)
    with one_line_errors(ConfigInvalid):
        plane = ConfigPlane.of(load_files(files)) if files else asyncio.run(_plane())
    routes = plane.entries("routes")
    found = unpriced_targets({kind: plane.entries(kind) for kind in ("routes", "prices", "teams")}, instant)
    for one in found:
        teams = f"; refused for {', '.join(one.refused)}, with a hard budget" if one.refused else ""
        later = f" (one begins at {one.begins:%Y-%m-%d %H:%M} UTC)" if one.begins else ""
        click.echo(f"{one.model} of the route {one.route} has no price{later}{teams}")
    if found:
        raise click.ClickException(
            f"{len(found)} targets without a price at {instant:%Y-%m-%d %H:%M} UTC: add theirs to infra/config/prices, "
            "`penstock prices import` takes them from LiteLLM's file"
        )
    click.echo(f"every model of {len(routes)} routes has a price")


def _renamed(name: str | None, strip: bool) -> Callable[[str], str]:
    if name is not None:
        return lambda model: name
    return lambda model: (model.partition("/")[2] or model) if strip else model


def _asked_for(models: Sequence[str], providers: Sequence[str]) -> Callable[[Price], bool]:
    return lambda price: (
        (not models or any(fnmatchcase(price.model, pattern) for pattern in models))
        and (not providers or price.litellm_provider in providers)
    )


def _asked(found: LiteLLMPrices, models: Sequence[str], providers: Sequence[str]) -> str:
    asked = [*(f"--model {pattern}" for pattern in models), *(f"--provider {one}" for one in providers)]
    return "" if found.skipped or not asked else f": none of {found.entries} models fits {' '.join(asked)}"


def _configured(target: Path, force: bool) -> tuple[list[Price], dict[Path, list[Price]]]:
    """Return the prices of the file to write, and those of the files beside it."""
    if target.exists() and not made_by_import(target) and not force:
        raise click.ClickException(
            f"{target} was not made by an import: choose another file with --out, or write over it with --force"
        )
    beside = sorted(file for pattern in ("*.yaml", "*.yml") for file in target.parent.rglob(pattern) if file != target)
    return (read_prices(target) if target.exists() else []), {file: read_prices(file) for file in beside}


def _write(target: Path, text: str, wanted: Sequence[Price]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")  # no .yaml: a reader of the folder passes it over
    draft.write_text(text, "utf-8")
    try:
        if [price.version for price in read_prices(draft)] != [price.version for price in wanted]:
            raise click.ClickException(
                f"the text of {target} would not read back to the same prices; nothing is written"
            )
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _of_files(folder: Path, at: datetime) -> list[PriceVersion]:
    located = load_files(folder).kinds.get("prices", {})
    entries = (item.entry for item in located.values())
    return timeline([PriceVersion(entry) for entry in entries if isinstance(entry, Price)], at)


async def _records() -> list[ConfigEntry]:
    """Return what was ever published of prices, oldest first."""
    found: list[ConfigEntry] = []
    async with connect() as connection:
        async with history(connection.bus, [_TOPIC]) as messages:
            async for message in messages:
                with contextlib.suppress(Undecodable):
                    found.append(cast("ConfigEntry", connection.codec.decode(message.topic, message.value)))
    return found


async def _plane() -> ConfigPlane:
    async with connect() as connection:
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        await plane.close()
    return plane
