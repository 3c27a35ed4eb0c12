"""``penstock keys``: the API keys of teams: make them, see them, replace them, revoke them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import cast

import click
from pydantic import SecretStr, ValidationError

from penstock.bus import Producer, history
from penstock.cli import change_options
from penstock.cli.cluster import cluster_settings, one_line_errors
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import SPAN, UNTIL
from penstock.cli.key_tables import key_data, show_key, show_keys, version_data
from penstock.cli.publishing import EntryRefused, refuse_problems, user
from penstock.clock import SystemClock
from penstock.config.kinds import ApiKey, Entry
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import ConfigEntry
from penstock.identity import KeysSettings, MintedKey, installation_secret, mint
from penstock.identity.issuing import KeyChangeInvalid, issued, key_versions, revoked, rotated, successor
from penstock.settings import load_settings

__all__ = ["keys"]

_TOPIC = "config-keys"
_ONCE = "this is the only time that it is shown: keep it where it cannot be read by others"

_expires = click.option("--expires", type=UNTIL, help="Until when it is taken: an instant, or a span such as 90d.")


class _Identity(click.ParamType):
    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if text.startswith("psk_"):
            # Not repeated: it may be a whole key, which then stands in the shell's history already.
            self.fail("name the key by its id, the part between psk_ and the next _, not by the key itself", param, ctx)
        return text


_identity = click.argument("key_id", metavar="ID", type=_Identity())


@click.group()
def keys() -> None:
    """API keys of teams.

    What is kept of a key proves it and cannot be used as one. A change is known to all services within a second.
    """


@keys.command()
@click.argument("team")
@click.option("--description", default="", help="Who has it, in words.")
@click.option("--routes", default="*", show_default=True, help="Routes it may ask for, of its team's, comma-separated.")
@_expires
@change_options.reason
@change_options.author
@change_options.as_json
def create(
    team: str, description: str, routes: str, expires: datetime | None, reason: str, author: str | None, as_json: bool
) -> None:
    """Make a key of TEAM.

    Prints it on standard output, once and alone, so that it can be piped to where it is kept. Needs
    PENSTOCK_KEYS_SECRET, the same that the edge has; a local stack has one of its own.
    """
    names = tuple(name.strip() for name in routes.split(",") if name.strip())
    with one_line_errors(EntryRefused, KeyChangeInvalid):
        run_command(_create(team, description, names, expires, reason, author, as_json))


@keys.command("list")
@click.option("--team", help="Of this team only.")
@click.option("--all", "ended", is_flag=True, help="With those that are revoked or have expired.")
@change_options.as_json
def list_(team: str | None, ended: bool, as_json: bool) -> None:
    """List the keys that are in force."""
    run_command(_list(team, ended, as_json))


@keys.command()
@_identity
@change_options.as_json
def show(key_id: str, as_json: bool) -> None:
    """Show the key ID, and who made, changed or revoked it, when and why."""
    run_command(_show(key_id, as_json))


@keys.command()
@_identity
@click.option(
    "--overlap", type=SPAN, default="24h", show_default=True, help="How long the old one is still taken: 1h, 7d."
)
@_expires
@change_options.reason
@change_options.author
@change_options.as_json
def rotate(
    key_id: str,
    overlap: timedelta,
    expires: datetime | None,
    reason: str,
    author: str | None,
    as_json: bool,
) -> None:
    """Make a key in place of the key ID.

    The new one has the team, the routes and the lifetime of the old one, which is taken for as long as --overlap says:
    time to hand the new one out. Prints the new key on standard output, once and alone. A key that others have read is
    revoked, not rotated.
    """
    with one_line_errors(EntryRefused, KeyChangeInvalid):
        run_command(_rotate(key_id, overlap, expires, reason, author, as_json))


@keys.command()
@_identity
@change_options.reason
@change_options.author
@click.option("--yes", "-y", is_flag=True, help="Revoke without asking.")
def revoke(key_id: str, reason: str, author: str | None, yes: bool) -> None:
    """Refuse the key ID from now on, for ever.

    Requests that were admitted with it are answered.
    """
    run_command(_revoke(key_id, reason, author, yes))


async def _create(
    team: str,
    description: str,
    routes: tuple[str, ...],
    expires: datetime | None,
    reason: str,
    author: str | None,
    as_json: bool,
) -> None:
    minted = mint(_secret())
    async with connect() as connection:
        plane = await _plane(connection)
        now = SystemClock().now()
        try:
            key = issued(minted, team, now, description=description, expires_at=expires, routes=routes)
        except ValidationError as error:
            raise KeyChangeInvalid(
                "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
            ) from None
        refuse_problems(plane, key)
        await _publish(connection, [Change(ApiKey.KIND, key.id, "new", None, key)], author, reason)
    _hand_out(minted, key, now, as_json)
    click.echo(f"the key {key.id} of team {key.team} is in force; {_ONCE}", err=True)


async def _list(team: str | None, ended: bool, as_json: bool) -> None:
    async with connect() as connection:
        plane = await _plane(connection)
    known, now = plane.entries(ApiKey.KIND), SystemClock().now()
    found = sorted(
        (
            key
            for key in known.values()
            if isinstance(key, ApiKey) and team in (None, key.team) and (ended or key.in_force(now))
        ),
        key=lambda key: (key.team, key.created_at, key.id),
    )
    if as_json:
        data = [key_data(key, now, successor(key.id, known)) for key in found]
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif found:
        show_keys(found, now)
    else:
        click.echo("no keys: make one with `penstock keys create TEAM`")


async def _show(key_id: str, as_json: bool) -> None:
    async with connect() as connection:
        known = (await _plane(connection)).entries(ApiKey.KIND)
        key = _of(key_id, known)
        records: list[ConfigEntry] = []
        async with history(connection.bus, [_TOPIC]) as messages:
            async for message in messages:
                try:
                    records.append(cast("ConfigEntry", connection.codec.decode(message.topic, message.value)))
                except Undecodable:
                    continue  # whoever follows the configuration has logged it
    versions, now, other = key_versions(records, key_id), SystemClock().now(), successor(key_id, known)
    if as_json:
        data = {**key_data(key, now, other), "history": [version_data(version) for version in versions]}
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        show_key(key, versions, now, other)


async def _rotate(
    key_id: str, overlap: timedelta, expires: datetime | None, reason: str, author: str | None, as_json: bool
) -> None:
    minted = mint(_secret())
    async with connect() as connection:
        plane = await _plane(connection)
        known, now = plane.entries(ApiKey.KIND), SystemClock().now()
        old = _of(key_id, known)
        new, ending = rotated(old, minted, known, now, overlap=overlap, expires_at=expires)
        refuse_problems(plane, new)
        changes = [Change(ApiKey.KIND, new.id, "new", None, new), Change(ApiKey.KIND, old.id, "changed", old, ending)]
        await _publish(connection, changes, author, reason)
    _hand_out(minted, new, now, as_json)
    assert ending.expires_at is not None
    click.echo(
        f"the key {new.id} of team {new.team} is in force; {_ONCE}. {old.id} is taken until "
        f"{ending.expires_at:%Y-%m-%d %H:%M} UTC",
        err=True,
    )


async def _revoke(key_id: str, reason: str, author: str | None, yes: bool) -> None:
    async with connect() as connection:
        key = _of(key_id, (await _plane(connection)).entries(ApiKey.KIND))
        if key.revoked_at is not None:
            click.echo(f"nothing to do: the key {key.id} {key.ended(key.revoked_at)}")
            return
        if not yes:
            what = f" ({key.description})" if key.description else ""
            click.confirm(f"Revoke the key {key.id} of team {key.team}{what} for ever?", abort=True, err=True)
            # Somebody may have rotated it while this waited for an answer.
            key = _of(key_id, (await _plane(connection)).entries(ApiKey.KIND))
        ended = revoked(key, SystemClock().now())
        await _publish(connection, [Change(ApiKey.KIND, key.id, "changed", key, ended)], author, reason)
    click.echo(f"the key {key.id} of team {key.team} is revoked")


async def _publish(connection: Connection, changes: Sequence[Change], author: str | None, reason: str) -> None:
    clock = SystemClock()
    producer = Producer(connection.bus.producer(), connection.codec, "config", clock)
    await publish_changes(changes, producer, clock.now(), author=user() if author is None else author, reason=reason)


def _secret() -> bytes:
    """Return the installation's secret: as the environment has it, else that of the local stack that is used."""
    settings = load_settings(KeysSettings)
    if settings.keys_secret is None:
        try:
            from penstock.stack import Stack, StackError
        except ImportError:
            return installation_secret(settings)  # the SDK alone is installed: there is no local stack
        try:
            own = Stack.open().secrets()
        except StackError as error:
            raise click.ClickException(str(error)) from error
        if not own:
            cluster_settings()  # where there is no stack either, that is what is wrong
        else:
            settings = settings.model_copy(update={"keys_secret": SecretStr(own["PENSTOCK_KEYS_SECRET"])})
    return installation_secret(settings)


def _hand_out(minted: MintedKey, key: ApiKey, now: datetime, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"key": minted.text, **key_data(key, now)}, indent=2, ensure_ascii=False))
    else:
        click.echo(minted.text)


def _of(key_id: str, known: Mapping[str, Entry]) -> ApiKey:
    if isinstance(found := known.get(key_id), ApiKey):
        return found
    close = difflib.get_close_matches(key_id, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "see `penstock keys list --all`"
    raise click.ClickException(f"there is no key {key_id!r}; {hint}")


async def _plane(connection: Connection) -> ConfigPlane:
    plane = await ConfigPlane.open(connection.bus, connection.codec)
    await plane.close()
    return plane
