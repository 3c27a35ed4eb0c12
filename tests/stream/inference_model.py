"""A model that a test holds in its hand: it counts its calls, and answers when it is let."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import Clock, SystemClock
from penstock.config.kinds import Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Context, GroundedRequest, Message, Usage
from penstock.settings import ServiceSettings

from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.core import Answered
from services.inference.pieces import Pieces
from services.inference.progress import Progress

TARGET = Target(backend="vllm", model="tiny", timeout_s=60)
ROUTES = ConfigPlane.of([Route(name="default", targets=(TARGET,), retrieval=Retrieval(enabled=False))])
PROMPT_TOKENS, TOKENS_SO_FAR, ANSWER_TOKENS = 10, 3, 7


class HeldModel:
    """Generates three tokens, waits until it is let go on, and then the rest. ``held`` are the request_ids it holds."""

    def __init__(self, *, hold: bool = True) -> None:
        self.calls: Counter[str] = Counter()
        self.held: set[str] = set()
        self.aborted: list[str] = []
        self.order: list[str] = []
        self._open = asyncio.Event()
        if not hold:
            self._open.set()

    def let_go(self) -> None:
        self._open.set()

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        self.calls[request.request_id] += 1
        self.order.append(request.request_id)
        progress.began = True
        await pieces.add("one two three")
        progress.usage = Usage(input_tokens=PROMPT_TOKENS, output_tokens=TOKENS_SO_FAR)
        self.held.add(request.request_id)
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.aborted.append(request.request_id)
            # The engine says what it came to when it is stopped.
            progress.usage = Usage(input_tokens=PROMPT_TOKENS, output_tokens=TOKENS_SO_FAR + 1)
            raise
        finally:
            self.held.discard(request.request_id)
        await pieces.add(" four five six seven")
        return Answered(
            model="tiny-1",
            backend="vllm",
            content="one two three four five six seven",
            finish_reason="stop",
            usage=Usage(input_tokens=PROMPT_TOKENS, output_tokens=ANSWER_TOKENS),
            model_us=1000,
        )


def a_request(request_id: str, clock: Clock, **changes: Any) -> GroundedRequest:
    context = {"requested_at": clock.now()} | {
        name: changes.pop(name) for name in ("deadline_at", "priority", "conversation_id") if name in changes
    }
    fields: dict[str, Any] = {
        "event_id": f"event-{request_id}", "request_id": request_id, "tenant_id": "support", "occurred_at": clock.now(),
        "causation_id": "c", "context": Context(**context), "messages": [Message(role="user", content="Count to seven.")],
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


class Process:
    """A process of inference on a log in memory."""

    def __init__(self, bus: MemoryBus, model: HeldModel, clock: Clock, concurrency: int = 4, **parts: Any) -> None:
        self.stop = asyncio.Event()
        producer = Producer(bus.producer(), bus.codec, "inference", clock)
        hop = inference_hop(ROUTES, {"vllm": model}, MemoryAnswers(clock), clock, concurrency, producer, **parts)
        settings = ServiceSettings(stop_timeout_s=0.2, retry_timeout_s=5)
        self.task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), settings, self.stop))

    async def stopped(self) -> None:
        """Stop it, as a signal does."""
        self.stop.set()
        await asyncio.wait_for(self.task, 10)


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for ``condition``."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


__all__ = [
    "ANSWER_TOKENS",
    "PROMPT_TOKENS",
    "ROUTES",
    "TARGET",
    "TOKENS_SO_FAR",
    "HeldModel",
    "Process",
    "a_request",
    "until",
]
