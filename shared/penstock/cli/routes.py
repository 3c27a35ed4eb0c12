"""``penstock routes``: what answers requests, since when and by whom; change it, and take a change back."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import click

from penstock.bus import Producer, history
from penstock.cli import change_options
from penstock.cli.cluster import one_line_errors
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.publishing import EntryRefused, refuse_problems, taken_back, user
from penstock.cli.route_tables import change_of, route_data, show_change, show_list, show_route
from penstock.cli.shadow import shadow
from penstock.clock import SystemClock
from penstock.config.canaries import read_rollback
from penstock.config.files import ConfigInvalid, load_entries
from penstock.config.kinds import Route
from penstock.config.plane import ConfigPlane
from penstock.config.publish import publish_changes
from penstock.config.route_edits import EditInvalid, edited, without_canary
from penstock.config.route_history import RouteVersion, VersionUnknown, called, histories, version_before
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import ConfigEntry

__all__ = ["routes"]

_TOPIC = "config-routes"
_INVALID_EXIT_CODE = 2
_CHOICES = ("weighted", "cheapest", "fastest")
_DRIFT = (
    "infra/config does not follow by itself: make the same change there, or the next `penstock config apply` takes it back "
    "(`penstock config apply --dry-run` shows what differs)"
)


@click.group()
def routes() -> None:
    """What answers requests: targets, shares, canaries; change them, and take a change back."""


routes.add_command(shadow)


@routes.command("list")
@change_options.as_json
def list_(as_json: bool) -> None:
    """List the routes in force, with the shares of their targets."""
    run_command(_list(as_json))


@routes.command()
@click.argument("name")
@change_options.as_json
def show(name: str, as_json: bool) -> None:
    """Show a route, what is on trial, and its versions.

    Each version of the route NAME there was, with who published it and why.
    """
    run_command(_show(name, as_json))


@routes.command("set")
@click.argument("name")
@click.option(
    "--weight", "weights", multiple=True, metavar="TARGET=N", help="Weight of a target, by its name; repeatable."
)
@click.option("--choice", type=click.Choice(_CHOICES), help="How the target that is asked first is chosen.")
@click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="The whole route, as in infra/config."
)
@change_options.reason
@change_options.author
@change_options.dry_run
@change_options.yes
@change_options.as_json
def set_(
    name: str, weights: tuple[str, ...], choice: str | None, file: Path | None, reason: str, author: str | None,
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Change weights, the choice, or the whole route.

    The choice among the targets of the route NAME, their weights, or all of it from a file. Shows what differs from
    what is in force and asks before it is published. Exits 2, having published nothing, when the
    route would not be valid.
    """
    wanted = _weights(weights)
    if not wanted and choice is None and file is None:
        raise click.UsageError("nothing to change: give --weight, --choice or --file")

    def change(versions: list[RouteVersion]) -> Route:
        current = versions[-1].route if versions else None
        route = _of_file(file, name) if file is not None else current
        if route is None:
            raise VersionUnknown(f"the route {name} is not in force: give all of it with --file")
        return edited(route, weights=wanted, choice=choice) if wanted or choice else route

    with _invalid_exits():
        run_command(
            _publish(name, change, reason, author, dry_run=dry_run, yes=yes, as_json=as_json, create=file is not None)
        )


@routes.command()
@click.argument("name")
@click.option("--to", "version", metavar="VERSION", help="The version to publish again, or how its hash begins.")
@change_options.reason
@change_options.author
@change_options.dry_run
@change_options.yes
@change_options.as_json
def rollback(
    name: str, version: str | None, reason: str, author: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Take the canary out, or the last change back.

    Without a canary, the version of the route NAME before the present one is published again. Two of these in a row
    end where they began; --to names any version that `penstock routes show` lists. Exits 2, having
    published nothing, when that version would not be valid any more.
    """

    def change(versions: list[RouteVersion]) -> Route:
        current = versions[-1].route
        if version is not None:
            return called(versions, version)
        if current is not None and current.canary is not None:
            return without_canary(current)
        return version_before(versions)

    with _invalid_exits():
        run_command(_publish(name, change, reason, author, dry_run=dry_run, yes=yes, as_json=as_json))


async def _list(as_json: bool) -> None:
    async with connect() as connection:
        found = await _versions(connection)
        current = [versions[-1] for _, versions in sorted(found.items()) if versions[-1].route is not None]
        taken = {
            each.name: await read_rollback(connection.bus, connection.codec, each.route)
            for each in current
            if each.route is not None and each.route.canary is not None
        }
    if as_json:
        data = [route_data([version], taken.get(version.name)) for version in current]
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif current:
        show_list(current, taken)
    else:
        click.echo("no routes are in force: write some to infra/config/routes and run `penstock config apply`")


async def _show(name: str, as_json: bool) -> None:
    async with connect() as connection:
        versions = _of(name, await _versions(connection))
        route = versions[-1].route
        taken = await read_rollback(connection.bus, connection.codec, route) if route is not None else None
        plane = await _plane(connection)
    if as_json:
        click.echo(json.dumps(route_data(versions, taken), indent=2, ensure_ascii=False))
        return
    now = SystemClock().now()
    models = {target.model for target in route.all_targets} if route else set()
    show_route(versions, {model: plane.price(model, now) for model in models}, taken)


async def _publish(
    name: str,
    change: Callable[[list[RouteVersion]], Route],
    reason: str,
    author: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    create: bool = False,
) -> None:
    """Show what ``change`` makes of a route, ask, and publish it."""
    async with connect() as connection:
        found = await _versions(connection)
        versions = found.get(name, []) if create else _of(name, found)
        before = versions[-1].route if versions else None
        after = change(versions)
        difference = change_of(before, after)
        if difference is not None:
            plane = await _plane(connection)
            refuse_problems(plane, after)
            if said := await taken_back(connection.bus, connection.codec, after):
                click.echo(f"warning: {said}", err=True)
            show_change(difference, err=as_json)
            if not dry_run:
                if not yes:
                    click.confirm("Publish this?", abort=True, err=True)
                clock = SystemClock()
                latest = (await _versions(connection)).get(name, [])
                if len(latest) != len(versions):
                    raise click.ClickException(
                        f"somebody else published the route {name} meanwhile: look at `penstock routes show {name}` and "
                        "try again"
                    )
                producer = Producer(connection.bus.producer(), connection.codec, "config", clock)
                await publish_changes(
                    [difference], producer, clock.now(), author=user() if author is None else author, reason=reason
                )
    published = difference is not None and not dry_run
    if as_json:
        click.echo(json.dumps(_outcome(name, before, after, published), indent=2, ensure_ascii=False))
    elif difference is None:
        click.echo(f"nothing to publish: the route {name} is that already")
    else:
        click.echo(f"the route {name} is {after.version} now" if published else "nothing published: this is a dry run")
    if published:
        click.echo(_DRIFT, err=True)


def _outcome(name: str, before: Route | None, after: Route, published: bool) -> dict[str, Any]:
    change = change_of(before, after)
    return {
        "name": name,
        "before": before.version if before else None,
        "version": after.version,
        "published": published,
        "changes": [
            {
                "field": field,
                "before": None if old is None else json.loads(old),
                "after": None if new is None else json.loads(new),
            }
            for field, old, new in (change.differences() if change else [])
        ],
    }


async def _versions(connection: Connection) -> Mapping[str, list[RouteVersion]]:
    records: list[ConfigEntry] = []
    async with history(connection.bus, [_TOPIC]) as messages:
        async for message in messages:
            with contextlib.suppress(Undecodable):
                records.append(cast("ConfigEntry", connection.codec.decode(message.topic, message.value)))
    return histories(records)


async def _plane(connection: Connection) -> ConfigPlane:
    plane = await ConfigPlane.open(connection.bus, connection.codec)
    await plane.close()
    return plane


def _of(name: str, found: Mapping[str, list[RouteVersion]]) -> list[RouteVersion]:
    if name in found:
        return found[name]
    close = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(found)) or 'none'}"
    raise click.ClickException(f"there is no route {name}; {hint}")


def _of_file(file: Path, name: str) -> Route:
    found = [each.entry for each in load_entries("routes", file)]
    for entry in found:
        if isinstance(entry, Route) and entry.name == name:
            return entry
    raise EditInvalid(f"{file} holds no route {name}; it holds {', '.join(entry.key for entry in found) or 'none'}")


def _weights(options: tuple[str, ...]) -> dict[str, int]:
    weights: dict[str, int] = {}
    for option in options:
        target, equals, number = option.rpartition("=")
        if not equals or not target or not number.isdecimal():
            raise click.UsageError(
                f"--weight {option}: write TARGET=N with a whole number, e.g. --weight gpt-4o-mini=3"
            )
        if target in weights:
            raise click.UsageError(f"--weight {target} is given twice")
        weights[target] = int(number)
    return weights


@contextlib.contextmanager
def _invalid_exits() -> Iterator[None]:
    """Turn what makes no valid route into an error with an exit status of its own."""
    with one_line_errors(VersionUnknown):
        try:
            yield
        except (EditInvalid, ConfigInvalid, EntryRefused) as error:
            problem = click.ClickException(str(error))
            problem.exit_code = _INVALID_EXIT_CODE
            raise problem from error
