"""Puts the engine of this process together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from penstock.config.kinds import Adapter
from penstock.service import Runtime

from services.inference.vllm.backend import VllmBackend
from services.inference.vllm.engine import end_processes, import_vllm, prepare_environment, start_engine
from services.inference.vllm.keeper import EngineKeeper
from services.inference.vllm.settings import EngineSettings

__all__ = ["open_backend"]

_PART = "engine"


async def open_backend(
    runtime: Runtime[Any], settings: EngineSettings, find_adapter: Callable[[str], Adapter | None]
) -> VllmBackend:
    """Return the backend of an engine that starts now: /readyz says 503 until it is up, and requests wait for it.

    Args:
        find_adapter: returns what is registered under a name.

    Raises:
        EngineFailed: vLLM is not installed here.
    """
    prepare_environment(os.environ)
    # Before the consumer joins its group: the import keeps the interpreter to itself for longer than a heartbeat.
    await asyncio.to_thread(import_vllm)

    def changed(ready: bool) -> None:
        if ready:
            runtime.ready(_PART)
        else:
            runtime.not_ready(_PART)

    keeper = EngineKeeper(
        lambda: start_engine(settings),
        end_processes,
        runtime.clock,
        model=settings.names[0],
        max_restarts=settings.max_restarts,
        window_s=settings.restart_window_s,
        changed=changed,
    )
    changed(False)
    runtime.on_stop(keeper.close)
    runtime.background(keeper.run(runtime.stopping))
    return VllmBackend(keeper, settings, find_adapter)
