"""penstock ledger verify: the ledger rebuilt from the log, and compared with everything else that says what was spent."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.bus.kafka import client_options
from penstock.bus.types import RawReader
from penstock.cli.cluster import cluster_settings
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.ledger.progress import Progress
from penstock.cli.ledger.verdict import print_json, print_report
from penstock.cli.printable import printable
from penstock.ledger.comparison import Comparison
from penstock.ledger.reading import decoded, read_topic
from penstock.ledger.repair import plan_repair
from penstock.ledger.verification import Verification
from penstock.money.counters import open_reservations, read_counters, restore
from penstock.redis_client import redis_client
from penstock.settings import RedisSettings, load_settings

__all__ = ["verify"]

_SETTLEMENT = "intake-settlement"
_IDEMPOTENCY_TTL_S = 8 * 24 * 3600


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options."""

    wait_s: float
    redis: bool
    repair: bool
    yes: bool
    ttl_s: int
    as_json: bool


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=30.0, show_default=True,
    help="Longest wait for what trails the log, seconds, before it is called a difference.",
)  # fmt: skip
@click.option("--no-redis", is_flag=True, help="Leave the counters of hard budgets out.")
@click.option("--repair", is_flag=True, help="First set Redis' counters from the ledger; intake must stand still.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
@click.option(
    "--ttl", "ttl_s", type=click.IntRange(min=60), default=_IDEMPOTENCY_TTL_S, envvar="IDEMPOTENCY_TTL_S",
    help="With --repair: how long intake remembers a charged cost, seconds.",
)  # fmt: skip
def verify(as_json: bool, wait_s: float, no_redis: bool, repair: bool, yes: bool, ttl_s: int) -> None:
    """Prove the ledger to the last digit.

    An independent reader: it takes nothing from the services but the log, Redis and the history of the configuration. It
    works every cost out again from its call and the price that was in force, rebuilds every window from the costs, and
    compares these with team-spend and with the counters of hard budgets. Exits 1 where anything differs, and names it.
    """
    if repair and no_redis:
        raise click.UsageError("--repair sets Redis' counters: leave --no-redis out")
    if repair and as_json and not yes:
        raise click.UsageError("--repair asks before it changes anything: with --json, say --yes")
    run_command(_verify(_Asked(wait_s, not no_redis, repair, yes, ttl_s, as_json)))


async def _verify(asked: _Asked) -> None:
    async with connect() as connection, _redis(asked) as redis:
        now = datetime.now(UTC)
        retention = {name: topic.retention_ms for name, topic in connection.codec.catalogue.topics.items()}
        log = Verification(int(now.timestamp() * 1000), retention)
        comparison = Comparison(log, now)
        started = time.monotonic()
        with Progress(quiet=asked.as_json) as progress:
            for topic in ("config-teams", "config-prices"):
                async for event in read_topic(connection, topic, undecodable=log.undecodable):
                    log.config(event)
            costs = _Follower(connection, await connection.bus.read(["costs"]), log, comparison, progress)
            try:
                await costs.to_end()
                if asked.repair:
                    progress.stop()
                    await _repair(connection, redis, costs, asked, now)
                await _check_calls(connection, costs, progress, asked.wait_s)
                await _check_sums(connection, redis, costs, progress, asked.wait_s)
            finally:
                await costs.close()
            if log.has_doubts():
                again = read_topic(connection, "costs", undecodable=log.undecodable)
                async for event in progress.counted("costs in doubt", again):
                    log.review(event)
        faults = [*log.faults(), *comparison.faults()]
        took_s = time.monotonic() - started
    (print_json if asked.as_json else print_report)(log, comparison, faults, took_s, with_redis=asked.redis)
    if faults:
        sys.exit(1)


class _Follower:
    """Reads costs on, as far as the log reaches at the time."""

    def __init__(
        self, connection: Connection, reader: RawReader, log: Verification, comparison: Comparison, progress: Progress
    ) -> None:
        self.log = log
        self.comparison = comparison
        self.offsets: dict[int, list[tuple[int, str]]] = {}
        self._connection = connection
        self._reader = reader
        self._progress = progress

    async def to_end(self) -> None:
        """Read to where the log ends now; what trailed is compared as the ledger grows."""
        while not await self._reader.at_end():
            for message in await self._reader.poll(0.5):
                event = decoded(self._connection.codec, message, self.log.undecodable)
                if event is not None:
                    self.comparison.grown(self.log.cost(event))
                self._progress.advance("costs")

    async def close(self) -> None:
        await self._reader.close()


async def _check_calls(connection: Connection, costs: _Follower, progress: Progress, wait_s: float) -> None:
    """Compare every cost with its call; wait for the costs of calls that were made just now."""
    log = costs.log
    log.close()
    for topic in ("completions", "documents-indexed"):
        async for event in progress.counted(topic, read_topic(connection, topic, undecodable=log.undecodable)):
            log.source(event)
    give_up = time.monotonic() + wait_s
    await costs.to_end()
    while log.awaiting and time.monotonic() < give_up:
        progress.say(f"waiting for the costs of {log.awaiting:,} calls")
        await asyncio.sleep(0.2)
        await costs.to_end()


async def _check_sums(
    connection: Connection, redis: Redis | None, costs: _Follower, progress: Progress, wait_s: float
) -> None:
    """Compare the live sums with the ledger, each at a moment at which both are of the same costs."""
    comparison = costs.comparison
    reader = await connection.bus.read(["team-spend"])

    async def read_live() -> None:
        while not await reader.at_end():
            for message in await reader.poll(0.5):
                event = decoded(connection.codec, message, costs.log.undecodable)
                if event is not None:
                    comparison.live(event.record)
                progress.advance("team-spend")
        if redis is not None:
            await _read_redis(redis, costs)

    try:
        await read_live()
        comparison.start()
        give_up = time.monotonic() + wait_s
        while True:
            # What the live side counted before this stands on the log by now.
            if comparison.is_ahead:
                await costs.to_end()
            if not comparison.trails or time.monotonic() >= give_up:
                return
            progress.say("waiting for sums that trail the log")
            await asyncio.sleep(0.2)
            await read_live()
    finally:
        await reader.close()


async def _read_redis(redis: Redis, costs: _Follower) -> None:
    try:
        counters = await read_counters(redis)
        teams = {counter.team for counter in counters} | set(costs.log.budgets.teams())
        reservations = {team: await open_reservations(redis, team) for team in sorted(teams)}
        # Read after the reservations as well: either may have changed meanwhile.
        costs.comparison.redis(counters, reservations)
    except RedisError as error:
        raise _away(error) from error


async def _repair(connection: Connection, redis: Redis | None, costs: _Follower, asked: _Asked, now: datetime) -> None:
    """Set the counters of Redis from the ledger, after showing what that changes."""
    assert redis is not None
    try:
        plans = plan_repair(costs.log.ledger, costs.log.budgets, await read_counters(redis), now)
    except RedisError as error:
        raise _away(error) from error
    if not plans:
        click.echo("nothing to repair: every counter agrees with the ledger", err=asked.as_json)
        return
    for plan in plans:
        for change in plan.changes:
            name = printable(change.counter).replace("\n", "\\n")
            line = f"{name}: {change.before:f} -> {change.after:f} USD spent"
            click.echo(line, err=asked.as_json)
    if members := await _settling():
        raise click.ClickException(
            f"{members} members of {_SETTLEMENT} would go on charging meanwhile: stop every replica of intake, and try again"
        )
    if not asked.yes:
        click.confirm("Set these counters? Intake must stand still until it is done", abort=True)
    counted = await _to_be_settled(connection, costs.log)
    try:
        for plan in plans:
            await restore(redis, plan.team, plan.spent, counted.get(plan.team, ()), asked.ttl_s, now)
    except RedisError as error:
        raise _away(error) from error
    click.echo(f"{sum(len(plan.changes) for plan in plans)} counters set from the ledger", err=asked.as_json)


async def _settling() -> int:
    """Return how many replicas of intake settle costs now."""
    admin = AIOKafkaAdminClient(**client_options(cluster_settings()))
    await admin.start()
    try:
        (response,) = await admin.describe_consumer_groups([_SETTLEMENT])
        return sum(len(members) for _, _, _, _, _, members, *_ in response.groups)
    finally:
        await admin.close()


async def _to_be_settled(connection: Connection, log: Verification) -> dict[str, list[str]]:
    """Return the event_ids of the costs that settlement will read again, by team."""
    committed = {
        place.partition: offset for place, offset in (await connection.bus.committed(_SETTLEMENT, ["costs"])).items()
    }
    found: dict[str, list[str]] = {}
    async for event in read_topic(connection, "costs", undecodable=log.undecodable):
        if event.offset >= committed.get(event.partition, 0):
            found.setdefault(event.record.tenant_id, []).append(event.record.event_id)
    return found


@asynccontextmanager
async def _redis(asked: _Asked) -> AsyncIterator[Any]:
    if not asked.redis:
        yield None
        return
    redis = redis_client(load_settings(RedisSettings), socket_connect_timeout=5, socket_timeout=30)
    try:
        await redis.ping()
    except RedisError as error:
        await redis.aclose()
        raise _away(error) from error
    try:
        yield redis
    finally:
        await redis.aclose()


def _away(error: RedisError) -> click.ClickException:
    return click.ClickException(
        f"Redis cannot be read ({error}), so hard budgets cannot be verified: start it, set REDIS_URL, or leave the "
        "counters out with --no-redis"
    )
