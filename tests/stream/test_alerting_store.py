"""What alerting keeps, on a real Redis: transactions, leases, and that a server that restarted is not trusted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from penstock.bus import Event, Message, Transient
from penstock.clock import ManualClock
from penstock.config.plane import ConfigPlane
from redis.asyncio import Redis

from services.alerting.desk import Desk
from services.alerting.outbox import Outbox
from services.alerting.redis_store import RedisStore
from services.alerting.register import Kept, Register
from services.alerting.routing import Directory
from services.alerting.store import Emptied, Keys, Store, Transaction
from tests.unit.alerting_fakes import MAX_AGE, an_alert, an_entry
from tests.unit.alerting_memory_store import MemoryStore

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


class Number(msgspec.Struct):
    value: int


OWN = ("n", "list", "map", "sorted", "set", "another's", *(f"k{number}" for number in range(4)))


@pytest.fixture
async def redis(deployed: Mapping[str, str]) -> AsyncIterator[Redis]:
    """Without what alerting knew, before and after: whoever runs it next rebuilds that."""
    async with Redis.from_url(deployed["REDIS_URL"]) as opened:
        await RedisStore(opened).clear()
        yield opened
        await RedisStore(opened).clear()
        await opened.delete(Keys.REBUILDING, *OWN)


@pytest.fixture
async def store(redis: Redis) -> RedisStore:
    opened = RedisStore(redis)
    await opened.open()
    return opened


async def test_no_change_is_lost_between_transactions_that_overlap(store: RedisStore) -> None:
    async def increased(transaction: Transaction) -> int:
        found = await transaction.load(Number, "n")
        value = (found.value if found else 0) + 1
        transaction.put("n", Number(value), 60)
        transaction.push("list", [Number(value)])
        return value

    values = await asyncio.gather(*(store.run(increased) for _ in range(40)))
    assert sorted(values) == list(range(1, 41))

    async def read(transaction: Transaction) -> list[Number]:
        return await transaction.listed(Number, "list", 0)

    assert [number.value for number in await store.run(read)] == list(range(1, 41))


async def scripted(store: Store) -> list[object]:
    """Everything that transactions do, and what is read of it."""
    seen: list[object] = []

    async def write(transaction: Transaction) -> None:
        for number in range(4):
            transaction.put(f"k{number}", Number(number), 60)
            transaction.map("map", f"m{number}", Number(number))
            transaction.schedule("sorted", f"s{number}", NOW + timedelta(seconds=number))
            transaction.join("set", f"j{number}")
        transaction.push("list", [Number(number) for number in range(6)])
        transaction.push("list", [])

    async def change(transaction: Transaction) -> None:
        transaction.delete("k0", "k1")
        transaction.unmap("map", "m0")
        transaction.schedule("sorted", "s3", NOW + timedelta(seconds=9))
        transaction.unschedule("sorted", "s1")
        transaction.forget_before("sorted", NOW + timedelta(seconds=2))
        transaction.skip("list", 2)

    async def read(transaction: Transaction) -> list[object]:
        return [
            await transaction.load_many(Number, ["k0", "k1", "k2", "k3"]),
            await transaction.load_many(Number, []),
            sorted(number.value for number in await transaction.mapped(Number, "map")),
            await transaction.listed(Number, "list", 2),
            await transaction.listed(Number, "list", 0),
            await transaction.length("list"),
            await transaction.scores("sorted", NOW.timestamp() * 1000),
        ]

    for body in (write, change):
        await store.run(body)
        seen += await store.run(read)
        seen.append(await store.due("sorted", NOW + timedelta(seconds=2), 2))
        seen.append(await store.standing("sorted"))
        seen.append(await store.standing("none"))
    seen.append(sorted(await store.members("set")))
    seen += [await store.leave("set", "j1"), await store.leave("set", "j1"), sorted(await store.members("set"))]
    seen += [await store.lock("one", 10), await store.lock("two", 10), await store.lock("one", 10)]
    await store.unlock("two")
    seen.append(await store.lock("two", 10))
    await store.unlock("one")
    seen.append(await store.lock("two", 10))
    return seen


async def test_the_store_in_memory_does_what_redis_does(store: RedisStore) -> None:
    assert await scripted(store) == await scripted(MemoryStore())


async def test_what_was_emptied_or_restarted_is_not_trusted(store: RedisStore, redis: Redis) -> None:
    async def write(transaction: Transaction) -> None:
        transaction.put(Keys.alert("a1"), Number(1), 60)

    await store.run(write)
    assert await store.holds()
    await store.forget_if_restarted()
    assert await store.holds()
    # What a server that restarted came back with was written to another run of it.
    await redis.set(Keys.EPOCH, "0123456789abcdef")
    assert not await store.holds()
    await store.forget_if_restarted()
    with pytest.raises(Emptied):
        await store.run(write)
    await store.run(write, rebuilding=True)
    assert await store.lock("one", 10)
    await redis.set("another's", "stays")
    await store.clear()
    assert not await redis.exists(Keys.alert("a1"))
    assert await redis.exists("another's", Keys.REBUILDING) == 2
    await store.open()
    assert await store.holds()
    await store.run(write)


async def test_a_redis_that_is_away_is_transient() -> None:
    async def write(transaction: Transaction) -> None:
        transaction.put("k", Number(1), 60)

    async with Redis.from_url("redis://127.0.0.1:9/0") as nowhere:
        with pytest.raises(Transient, match="Redis is away"):
            await RedisStore(nowhere).run(write)


async def test_alerts_taken_in_side_by_side_gather_once_and_are_claimed_by_one_replica(store: RedisStore) -> None:
    clock = ManualClock()
    entry = an_entry("oncall", group_by=["route"])
    outboxes = []
    desks = []
    for _ in range(2):
        register = Register(store, Directory(ConfigPlane.of([entry]), entry, MAX_AGE), [])
        outboxes.append(Outbox(register, 100))
        desks.append(Desk(register, outboxes[-1], clock))

    def event(number: int) -> Event:  # type: ignore[type-arg]
        alert = an_alert(f"a{number}", fingerprint=f"f{number % 60}", labels={"route": str(number % 6)})
        return Event(Message("alerts", 0, number, 0, b"f", b"value"), alert)

    # Both take the same alerts in, as happens when partitions move.
    await asyncio.gather(*(desk.alert(event(number)) for number in range(90) for desk in desks))
    key = "default/oncall"
    due = await store.due(Keys.due(key), clock.now(), 100)
    assert len(due) == 6
    claimed = await asyncio.gather(
        *(
            outbox.claim(identity, key, f"replica {index}", 15, clock.now())
            for identity in due
            for index, outbox in enumerate(outboxes)
        )
    )
    jobs = [group.job for group in claimed if group is not None]
    told = Counter(entry.alert.fingerprint for job in jobs if job is not None for entry in job.entries)
    assert told == {f"f{number}": 1 for number in range(60)}
    assert len(jobs) == 6

    async def kept(transaction: Transaction) -> list[Kept | None]:
        return await transaction.load_many(Kept, [Keys.alert(f"a{number}") for number in range(90)])

    assert all(one is not None for one in await store.run(kept))


async def test_a_redis_that_is_full_is_told_from_one_that_is_away(store: RedisStore, redis: Redis) -> None:
    async def write(transaction: Transaction) -> None:
        transaction.put(Keys.alert("a1"), Number(1), 60)

    before = {name: (await redis.config_get(name))[name] for name in ("maxmemory", "maxmemory-policy")}
    await redis.config_set("maxmemory-policy", "noeviction")
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(Transient, match=r"Redis is full: .*more memory"):
            await store.run(write)
        with pytest.raises(Transient, match="Redis is full"):
            await store.open()
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)
    await store.run(write)
