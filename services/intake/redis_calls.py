"""How intake calls Redis: its scripts, and what their failures mean."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from penstock.bus import Transient
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["execute", "may_evict", "source"]

_SCRIPTS = Path(__file__).parent / "scripts"
_ASKED_S = 5.0


def source(*names: str) -> str:
    """Return the scripts of these names, one after another: those after the first begin with it."""
    return "".join((_SCRIPTS / f"{name}.lua").read_text(encoding="utf-8") for name in names)


async def execute(pipeline: Any) -> list[Any]:
    """Run ``pipeline`` and return its answers.

    Raises:
        Transient: Redis is away, or takes no writes.
    """
    try:
        return await _answers(pipeline)
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise Transient(f"Redis is away: {error}; start it or set REDIS_URL") from error
    except (OutOfMemoryError, ReadOnlyError) as error:
        # What was done of the pipeline is remembered by its claims and marks: the batch is tried again as a whole.
        raise Transient(f"Redis takes no writes: {error}; give it memory, or see which replica leads") from error


async def _answers(pipeline: Any) -> list[Any]:
    commands, scripts = list(pipeline.command_stack), list(pipeline.scripts)
    # Else the client asks before every pipeline whether Redis has its scripts: as many round trips again.
    pipeline.scripts.clear()
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        # A Redis that was started anew, or another one after a failover: it did nothing of a script that it has not.
        for script in scripts:
            pipeline.script_load(script.script)
        for number in unknown:
            arguments, options = commands[number]
            pipeline.execute_command(*arguments, **options)
        repeated = (await pipeline.execute(raise_on_error=False))[len(scripts) :]
        for number, answer in zip(unknown, repeated, strict=True):
            answers[number] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def may_evict(redis: Any) -> bool:
    """Return whether Redis drops counters and reservations where its memory is full: hard budgets would begin anew.

    False where it does not say: a proxy may hide its settings.

    Raises:
        Transient: Redis is away.
    """
    try:
        async with asyncio.timeout(_ASKED_S):
            memory = await redis.info("memory")
    except (RedisConnectionError, RedisTimeoutError, OSError) as error:
        raise Transient(f"Redis is away: {error}; start it or set REDIS_URL") from error
    except ResponseError:
        return False
    return bool(memory.get("maxmemory", 0)) and memory.get("maxmemory_policy", "noeviction") != "noeviction"
