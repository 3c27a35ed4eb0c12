"""What the backend asks of an engine, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.contracts.records import Message, Sampling

from services.inference.vllm.gathering import Output
from services.inference.vllm.sampling import Asked
from services.inference.vllm.tools import Tools

__all__ = ["AdapterRefused", "Engine", "EngineDied", "Generation", "LoadedAdapter", "Refused", "Rendered"]


class EngineDied(Exception):
    """The engine is gone, with all it was at work on."""


class Refused(Exception):
    """The engine does not take a request; the message says why."""


class AdapterRefused(Exception):
    """The engine cannot load an adapter; the message says why."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the engine takes it.

    Attributes:
        tokens: how many it has.
        engine_input: of vLLM.
    """

    tokens: int
    engine_input: Any


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter whose weights were verified. ``number`` is its own among those of this process, from 1."""

    name: str
    number: int
    path: str


class Generation(Protocol):
    """A request that the engine is at work on."""

    async def next(self) -> Output:
        """Return what is new.

        Raises:
            EngineDied: nothing will come any more.
            Refused: the engine could not go on with it.
        """
        ...

    async def abort(self) -> Output | None:
        """Stop it; return what was generated and not fetched, if anything was."""
        ...


class Engine(Protocol):
    """Generates for many requests at once."""

    @property
    def context_tokens(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Sampling parameters of the model's generation config, in vLLM's names."""
        ...

    @property
    def dead(self) -> bool:
        """Whether its process has ended."""
        ...

    def tools(self, messages: Sequence[Message], sampling: Sampling, event_id: str) -> Tools:
        """Return what the tools of the request ``event_id`` come to.

        Raises:
            Refused: the model calls no tools, or not these.
        """
        ...

    async def render(self, messages: Sequence[Message], tools: Tools | None = None) -> Rendered:
        """Return the prompt of a conversation, by the chat template, which is given ``tools``.

        Raises:
            Refused: the template or the context window does not take it.
        """
        ...

    async def submit(
        self, request_id: str, prompt: Rendered, asked: Asked, *, priority: int, adapter: LoadedAdapter | None
    ) -> Generation:
        """Put a request into the engine's queue.

        Raises:
            Refused: its parameters are not possible here.
            AdapterRefused: ``adapter`` cannot be loaded.
            EngineDied: the engine is gone.
        """
        ...

    def close(self) -> None:
        """End its process. Blocks until that is done, seconds at the most."""
        ...
