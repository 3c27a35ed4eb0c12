"""What the edge keeps in Redis, where a request and its result meet: any replica can answer any request.

All keys of a request lie in its team's hash slot, behind ``penstock:{team}:edge:``:

    request:<request_id>  HASH: hash (of the content), taken (us), try, stream, event (of the result), again (1 where the
                          result is a refusal that waiting helps), was (such results of the tries before), place (of the
                          result in the log), conflict (why intake turned it away), conversation (where it has one)
    result:<request_id>   the result, as it stands in the log
    pieces:<request_id>   LIST of the pieces of a streamed answer, as they stand in the log; after a crash some twice
    left:<key_id>:<hash>  LIST of the request_ids that clients left without an answer, by key and content

A request takes some 0.25 kB there, and its result little more than its bytes.

Whoever writes publishes the requests that have news to one channel. A notice that is lost costs a second: see desk.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from penstock.bus import Message, Transient
from penstock.money.counters import claim_key, key_prefix
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.edge.identities import conflict_reason, sent_event_id
from services.edge.pipelining import Command, Gathered, script
from services.edge.waiters import RequestKey

__all__ = ["CHANNEL", "EdgeStore", "Found", "KeptResult", "Place", "Taken", "Taking"]

CHANNEL = "penstock:edge:news"
"""Where the requests that have news are published: pairs of team and request_id, as MessagePack."""

_SCRIPTS = Path(__file__).parent / "scripts"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNTIL_ADMITTED = timedelta(days=8)
"""How long a request without a deadline may be under way: llm-requests is retained no longer."""
_LEFT_S = 300
"""How long a client that sends again by itself finds what it left: it waits for seconds between its sends."""
_MICROSECOND = timedelta(microseconds=1)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, str]]).decode


class Taking(StrEnum):
    """What became of a send."""

    NEW = "new"
    AGAIN = "again"
    CONFLICT = "conflict"


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a result stands in the log."""

    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a send.

    Attributes:
        at: when the request was taken up.
        number: of the try: 0, and one more after each refusal that waiting was to help.
        ended: the request has its result already.
        known_since: since when intake has known the request_id, where it came another way before; None elsewhere.
    """

    how: Taking
    at: datetime
    number: int
    ended: bool = False
    known_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What is kept of a request.

    Attributes:
        taken: when it was taken up.
        number: of its try.
        streamed: whether pieces of its answer are wanted.
        conflict: why intake turned it away; None where it did not.
        result: the result as it stands in the log; None where there is none, or where it stands there alone.
        place: where it stands there; None where there is no result yet.
        pieces: those of the answer after the ones that were asked to be left out, as they stand in the log.
    """

    taken: datetime
    number: int
    streamed: bool
    conflict: str | None = None
    result: bytes | None = None
    place: Place | None = None
    pieces: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A result to keep. ``again``: the same request may be admitted later."""

    key: RequestKey
    event_id: str
    message: Message
    again: bool = False


class EdgeStore:
    """Requests, results and pieces in Redis.

    Args:
        redis: where; its answers are bytes.
        request_ttl_s: how long a request is known after its deadline (or 8 days, without one), and after its result
            came, seconds.
        result_ttl_s: how long a result and pieces stand there, seconds; the log has the result for longer.
    """

    def __init__(self, redis: Redis, request_ttl_s: int = 86_400, result_ttl_s: int = 3_600) -> None:
        self._redis: Any = redis
        self._request_ttl_s = request_ttl_s
        self._result_ttl_s = min(result_ttl_s, request_ttl_s)
        scripts = [_source(*names) for names in (("take",), ("another", "keep"), ("another", "piece"), ("conflict",))]
        self._take, self._keep, self._piece, self._conflict = scripts
        # What waiters look at must not stand behind what the hop writes.
        self._desk, self._hop = Gathered(redis, scripts), Gathered(redis, scripts)

    async def take(
        self,
        key: RequestKey,
        content: str,
        now: datetime,
        *,
        streamed: bool,
        deadline: datetime | None = None,
        conversation: str | None = None,
    ) -> Taken:
        """Take a request up; ``content`` is the hash of what it asks.

        Args:
            deadline: until when a result is waited for; None: as long as intake may admit the request.

        Raises:
            Transient: Redis cannot be used.
        """
        keys = [_request(key), _result(key), _pieces(key), claim_key(*key)]
        wait = _UNTIL_ADMITTED if deadline is None else max(timedelta(0), deadline - now)
        keep_s = self._request_ttl_s + math.ceil(wait.total_seconds())
        arguments = [content, _digits(now), keep_s, int(streamed), conversation or ""]
        [[how, at, number, ended, since]] = await self._desk.execute([script(self._take, keys, arguments)])
        return Taken(Taking(how.decode()), _instant(at), int(number), bool(ended), _instant(since) if since else None)

    async def find(self, key: RequestKey, *, pieces_after: int | None = None) -> Found | None:
        """Return what is kept of a request; None where it is not known (any more).

        Args:
            pieces_after: how many pieces to leave out; None leaves out all.

        Raises:
            Transient: Redis cannot be used.
        """
        commands: list[Command] = [
            ("HMGET", _request(key), "taken", "try", "stream", "conflict", "place"),
            ("GET", _result(key)),
        ]
        if pieces_after is not None:
            commands.append(("LRANGE", _pieces(key), pieces_after, -1))
        [[taken, number, streamed, conflict, place], result, *pieces] = await self._desk.execute(commands)
        if taken is None:
            return None
        return Found(
            _instant(taken),
            int(number),
            streamed == b"1",
            conflict.decode() if conflict is not None else None,
            result,
            msgspec.json.decode(place, type=Place) if place is not None else None,
            pieces[0] if pieces else (),
        )

    async def conversation(self, key: RequestKey) -> str | None:
        """Return the conversation of a request; None where it has none, or is not known (any more).

        Raises:
            Transient: Redis cannot be used.
        """
        [conversation] = await self._desk.execute([("HGET", _request(key), "conversation")])
        return conversation.decode() if conversation is not None else None

    async def leave(self, key: RequestKey, fingerprint: str) -> None:
        """Note that nobody waits for a request any more, for a send of the same ``fingerprint`` to join it.

        Raises:
            Transient: Redis cannot be used.
        """
        left = _left(key[0], fingerprint)
        await self._desk.execute([("RPUSH", left, key[1]), ("EXPIRE", left, _LEFT_S)])

    async def adopt(self, team: str, fingerprint: str) -> str | None:
        """Return the request_id of what was left first under ``fingerprint``, and forget it; None where nothing was.

        Raises:
            Transient: Redis cannot be used.
        """
        [request_id] = await self._desk.execute([("LPOP", _left(team, fingerprint))])
        return request_id.decode() if request_id is not None else None

    async def keep(self, results: Sequence[KeptResult], pieces: Sequence[tuple[RequestKey, Message]]) -> None:
        """Keep what came of requests that are known here, and tell every replica which they are.

        Raises:
            Transient: Redis cannot be used; keeping the same again does no harm.
        """
        # Most of what the log has may be others': their results need not travel here.
        asked = list(dict.fromkeys([*(key for key, _ in pieces), *(kept.key for kept in results)]))
        if not asked:
            return
        tries = await self._hop.execute([("HGET", _request(key), "try") for key in asked])
        known = {
            key: sent_event_id(key, int(number)) for key, number in zip(asked, tries, strict=True) if number is not None
        }
        pieces = [(key, message) for key, message in pieces if key in known]
        results = [kept for kept in results if kept.key in known]
        commands = [
            script(
                self._piece,
                [_request(key), _pieces(key), claim_key(*key)],
                [message.value or b"", self._result_ttl_s, known[key]],
            )
            for key, message in pieces
        ]
        for kept in results:
            message = kept.message
            place = msgspec.json.encode(Place(message.partition, message.offset, message.timestamp_ms))
            arguments = [
                kept.event_id, message.value or b"", int(kept.again), self._result_ttl_s, self._request_ttl_s, place,
                known[kept.key], conflict_reason(kept.key[1]),
            ]  # fmt: skip
            keys = [_request(kept.key), _result(kept.key), claim_key(*kept.key)]
            commands.append(script(self._keep, keys, arguments))
        news = await self._hop.execute(commands)
        told = [*(key for key, _ in pieces), *(kept.key for kept in results)]
        await self._tell({key for key, new in zip(told, news, strict=True) if new})

    async def conflicted(self, key: RequestKey, number: int, reason: str) -> None:
        """Note that intake turned a try away: its request_id is another request's, which came another way.

        Raises:
            Transient: Redis cannot be used.
        """
        [new] = await self._hop.execute([script(self._conflict, [_request(key)], [number, reason])])
        await self._tell({key} if new else set())

    async def _tell(self, keys: set[RequestKey]) -> None:
        if keys:
            await self._hop.execute([("PUBLISH", CHANNEL, _encode(sorted(keys)))])

    async def news(self) -> AsyncGenerator[list[RequestKey], None]:
        """Yield the requests that have news, from now on; first an empty list, when it listens.

        Raises:
            Transient: Redis cannot be used; what is published until the next call is lost.
        """
        async with self._redis.pubsub() as subscription:
            try:
                await subscription.subscribe(CHANNEL)
                yield []
                async for message in subscription.listen():
                    if message["type"] == "message":
                        yield _decode(message["data"])
            except (RedisError, OSError) as error:
                raise Transient(f"Redis cannot be used: {error}") from error


def _source(*names: str) -> str:
    return "".join((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8") for name in names)


def _request(key: RequestKey) -> str:
    return f"{key_prefix(key[0])}edge:request:{key[1]}"


def _result(key: RequestKey) -> str:
    return f"{key_prefix(key[0])}edge:result:{key[1]}"


def _pieces(key: RequestKey) -> str:
    return f"{key_prefix(key[0])}edge:pieces:{key[1]}"


def _left(team: str, fingerprint: str) -> str:
    return f"{key_prefix(team)}edge:left:{fingerprint}"


def _digits(at: datetime) -> str:
    return str((at - _EPOCH) // _MICROSECOND)


def _instant(digits: bytes) -> datetime:
    return _EPOCH + int(digits) * _MICROSECOND
