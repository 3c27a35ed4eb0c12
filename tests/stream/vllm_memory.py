"""An engine in memory that dies when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from penstock.contracts.records import Message, Sampling

from services.inference.vllm.protocol import EngineDied, LoadedAdapter, Refused, Rendered
from services.inference.vllm.sampling import Asked
from services.inference.vllm.tools import Tools

__all__ = ["MemoryEngine"]


@dataclass
class MemoryEngine:
    """Says ``tokens`` one by one; ends after ``lives`` of them where that is given."""

    tokens: Sequence[str] = ("One", " two", " three", " four")
    lives: int | None = None
    dead: bool = False
    closed: bool = False
    context_tokens: int = 100
    defaults: Mapping[str, Any] = field(default_factory=dict)
    submitted: list[tuple[str, int, LoadedAdapter | None]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    held: asyncio.Event | None = None
    """Where given, nothing is said after the first token before it is set."""
    calls: Tools | None = None
    """How it calls tools; None where it does not."""

    def tools(self, messages: Sequence[Message], sampling: Sampling, event_id: str) -> Tools:
        if self.calls is None:
            raise Refused("nothing here reads calls of tools")
        return self.calls

    async def render(self, messages: Sequence[Message], tools: Tools | None = None) -> Rendered:
        size = sum(len(message.content.split()) for message in messages)
        if size > self.context_tokens:
            raise Refused("too long")
        return Rendered(size, messages)

    async def submit(
        self, request_id: str, prompt: Rendered, asked: Asked, *, priority: int, adapter: LoadedAdapter | None
    ) -> MemoryGeneration:
        if self.dead:
            raise EngineDied("gone")
        self.submitted.append((request_id, priority, adapter))
        return MemoryGeneration(self, request_id)

    def close(self) -> None:
        self.closed = self.dead = True


@dataclass
class MemoryGeneration:
    engine: MemoryEngine
    request_id: str
    said: int = 0

    async def next(self) -> Any:
        await asyncio.sleep(0)
        if self.said and self.engine.held is not None:
            await self.engine.held.wait()
        if self.engine.lives is not None and self.said >= self.engine.lives:
            self.engine.dead = True
        if self.engine.dead:
            raise EngineDied("gone")
        text = self.engine.tokens[self.said]
        self.said += 1
        return self.output(text, "stop" if self.said == len(self.engine.tokens) else None)

    async def abort(self) -> Any:
        self.engine.aborted.append(self.request_id)
        # One token more had come and was not fetched.
        return self.output("!", "abort")

    def output(self, text: str, reason: str | None) -> Any:
        part = SimpleNamespace(index=0, text=text, token_ids=[self.said], logprobs=None, finish_reason=reason)
        return SimpleNamespace(outputs=[part], finished=reason is not None, metrics=None, num_cached_tokens=0)
