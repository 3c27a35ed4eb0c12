"""Keeps an engine running: starts it, notices that it died, starts another, and gives up where that does not help."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from penstock.bus import Transient
from penstock.clock import Clock
from penstock.telemetry import get_logger, metrics

from services.inference.vllm.engine import EngineFailed
from services.inference.vllm.protocol import Engine

__all__ = ["EngineKeeper"]

log = get_logger(__name__)

_WATCH_S = 0.5
"""How often a dead engine is looked for where no request notices it."""
_GONE = "inference is stopping, and its engine is gone: another process answers"
_ABANDON_S = 10.0
"""How long a start that was called off may take to end."""


class EngineKeeper:
    """Has the one engine of this process.

    Args:
        start: starts an engine, in a thread of its own; blocks until it is ready.
        end_start: makes a ``start`` under way fail.
        model: what the metrics call it.
        max_restarts: engines that may die within ``window_s`` seconds before this gives up.
        changed: told True when an engine is ready, False when there is none.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        end_start: Callable[[], None],
        clock: Clock,
        *,
        model: str,
        max_restarts: int,
        window_s: float,
        changed: Callable[[bool], None],
    ) -> None:
        self._start = start
        self._end_start = end_start
        self._clock = clock
        self._model = model
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._changed = changed
        self._engine: Engine | None = None
        self._last: Engine | None = None  # not closed yet
        self._over = False
        self._stopped: str | None = None
        self._turn = asyncio.Event()  # there is an engine, or there will be none
        self._noticed = asyncio.Event()

    async def engine(self) -> Engine:
        """Return the engine; wait for it while it starts.

        Raises:
            Transient: there will be none in this process any more.
        """
        while True:
            await self._turn.wait()
            if self._engine is not None:
                return self._engine
            if self._stopped is not None:
                raise Transient(self._stopped)

    def lost(self, engine: Engine) -> None:
        """``engine`` was found dead."""
        if engine is self._engine:
            self._engine = None
            self._turn.clear()
            self._noticed.set()
            if self._over:
                self._end(_GONE)

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep an engine until ``stopping`` is set; the last one stays for the requests in flight, until :meth:`close`.

        Raises:
            EngineFailed: it does not start, or it dies again and again.
        """
        deaths: deque[float] = deque()
        self._changed(False)
        try:
            while (engine := await self._started(stopping)) is not None:
                self._engine = self._last = engine
                self._turn.set()
                self._changed(True)
                if not await self._dies(engine, stopping):
                    return
                self._changed(False)
                now = self._clock.monotonic()
                deaths.append(now)
                while deaths[0] < now - self._window_s:
                    deaths.popleft()
                metrics.ENGINE_DEATHS.labels(self._model).inc()
                log.error("the engine died", model=self._model, deaths=len(deaths), window_s=self._window_s)
                await asyncio.to_thread(engine.close)
                self._last = None
                if len(deaths) > self._max_restarts:
                    raise EngineFailed(
                        f"the engine died {len(deaths)} times within {self._window_s:g} s: its log on standard error says "
                        "why; max_restarts in INFERENCE_ENGINE says how often is borne"
                    )
        except EngineFailed as error:
            self._end(str(error))
            raise
        finally:
            self._over = True
            if self._engine is None:
                self._end(_GONE)

    def _end(self, reason: str) -> None:
        self._stopped = self._stopped or reason
        self._turn.set()

    async def _dies(self, engine: Engine, stopping: asyncio.Event) -> bool:
        """Wait until ``engine`` is dead (True) or nobody wants another one (False)."""
        while not stopping.is_set():
            if self._noticed.is_set() or engine.dead:
                self.lost(engine)
                self._noticed.clear()
                return True
            waits = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(self._noticed.wait())]
            await asyncio.wait(waits, timeout=_WATCH_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return False

    async def _started(self, stopping: asyncio.Event) -> Engine | None:
        """Return an engine that is ready; None where nobody wants one any more."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Engine] = loop.create_future()

        def settle(engine: Engine | None, error: BaseException | None) -> None:
            if not ready.done():
                if engine is not None:
                    ready.set_result(engine)
                elif error is not None:
                    ready.set_exception(error)

        def start() -> None:
            found: Engine | None = None
            failed: BaseException | None = None
            try:
                found = self._start()
            except BaseException as error:
                failed = error
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(settle, found, failed)

        # A daemon: a start that hangs must not keep a process alive that was told to stop.
        began = self._clock.monotonic()
        threading.Thread(target=start, name="engine start", daemon=True).start()
        asked = asyncio.ensure_future(stopping.wait())
        waited: set[asyncio.Future[object]] = {ready, asked}  # type: ignore[arg-type]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                engine = ready.result()
                log.info("the engine is ready", model=self._model, seconds=round(self._clock.monotonic() - began, 1))
                return engine
        finally:
            asked.cancel()
            if not ready.done():
                self._end_start()
                await asyncio.wait({ready}, timeout=_ABANDON_S)
        if ready.done() and ready.exception() is None:
            await asyncio.to_thread(ready.result().close)
        return None

    async def close(self) -> None:
        """End the engine: no request is in flight any more."""
        engine, self._engine, self._last = self._last, None, None
        self._end("inference is stopping")
        if engine is not None:
            await asyncio.to_thread(engine.close)
        self._end_start()  # one that was called off too early to be ended then
