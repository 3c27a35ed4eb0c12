"""Commands of many callers in one round trip to Redis."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from penstock.bus import Transient
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

__all__ = ["Command", "Gathered", "script"]

Command = Sequence[Any]
"""A command of Redis and its arguments."""

# Whatever Redis answers but a value (read-only while it fails over, out of memory, loading): nothing was decided by it.
_AWAY = (RedisError, OSError)
_LARGEST = 512
"""Commands of one round trip."""


def script(source: str, keys: Sequence[str], arguments: Sequence[Any]) -> Command:
    """Return the command that runs a script: by its hash, as :class:`Gathered` sees to that Redis has it."""
    return ("EVALSHA", source, len(keys), *keys, *arguments)


class Gathered:
    """Runs what is asked while a round trip is under way in the next one: many callers share one connection.

    Where nothing is under way nothing is waited for. Commands run in the order in which they were asked.

    Args:
        redis: where they run.
        scripts: sources of the scripts that may be run.
    """

    def __init__(self, redis: Redis, scripts: Sequence[str] = ()) -> None:
        self._redis: Any = redis
        self._digests = {source: hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest() for source in scripts}
        self._asked: list[tuple[list[Command], asyncio.Future[list[Any]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to ``commands``, in order. They are not one transaction.

        Raises:
            Transient: Redis cannot be used now; some of them may have run.
        """
        if not commands:
            return []
        answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.append(([self._by_digest(command) for command in commands], answers))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="commands to Redis")
        return await answers

    def _by_digest(self, command: Command) -> Command:
        return ("EVALSHA", self._digests[command[1]], *command[2:]) if command[0] == "EVALSHA" else command

    async def _run(self) -> None:
        try:
            while self._asked:
                await self._once()
        finally:
            self._running = None
            # Nobody is left to run what came meanwhile where this was cancelled.
            for _, future in self._asked:
                future.cancel()
            self._asked.clear()

    async def _once(self) -> None:
        taken, self._asked = self._asked[:_LARGEST], self._asked[_LARGEST:]
        taken = [(commands, future) for commands, future in taken if not future.done()]
        flat = [command for commands, _ in taken for command in commands]
        try:
            answers = iter(await self._answers(flat))
        except _AWAY as error:
            for _, future in taken:
                if not future.done():
                    future.set_exception(_transient(error))
            return
        except BaseException:
            for _, future in taken:
                future.cancel()
            raise
        for commands, future in taken:
            mine = [next(answers) for _ in commands]
            if future.done():
                continue
            wrong = next((answer for answer in mine if isinstance(answer, Exception)), None)
            if wrong is None:
                future.set_result(mine)
            else:
                future.set_exception(_transient(wrong))

    async def _answers(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        answers = await self._pipelined(commands)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # A Redis that was started anew, or another one after a failover: it did nothing of a script it has not.
            for source in self._digests:
                await self._redis.script_load(source)
            again = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            repeated = await self._pipelined([commands[n] for n in again])
            for n, answer in zip(again, repeated, strict=True):
                answers[n] = answer
        return answers

    async def _pipelined(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


def _transient(error: Exception) -> Transient:
    return Transient(f"Redis cannot be used: {error}; start it, mend it, or set REDIS_URL")
