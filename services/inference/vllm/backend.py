"""The backend of the engine in this process: a request goes in, tokens come out, and an engine that dies is no failure."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Protocol

from penstock.config.kinds import Adapter, Target
from penstock.contracts.records import GroundedRequest
from penstock.telemetry import get_logger, metrics

from services.inference.adapters import BackendError
from services.inference.core import Answered
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from services.inference.prompt import Prompt, prompt_of
from services.inference.vllm.adapters import AdapterError, Adapters
from services.inference.vllm.gathering import Gathered
from services.inference.vllm.protocol import AdapterRefused, Engine, EngineDied, Generation, LoadedAdapter, Refused
from services.inference.vllm.sampling import QUIET_INTERVAL, SamplingError, asked_of, engine_priority, reading_interval
from services.inference.vllm.settings import EngineSettings
from services.inference.vllm.tools import may_call

__all__ = ["Engines", "VllmBackend"]

log = get_logger(__name__)

_NAME = "vllm"
_NEWEST = 0.1
"""Weight of the newest answer in the pace of tokens."""
_BORNE_DEATHS = 2
"""A request is generated again after the engine died under it once, and more often where more restarts are allowed."""


class Engines(Protocol):
    """Has the engine of this process."""

    async def engine(self) -> Engine:
        """Return it; wait for it while it starts.

        Raises:
            Transient: there will be none.
        """
        ...

    def lost(self, engine: Engine) -> None:
        """``engine`` was found dead."""
        ...


class VllmBackend:
    """Answers by the engine of this process.

    A request whose engine dies is generated again by the next one, which is waited for; what was generated counts as
    wasted. One that was in ``max_restarts`` engines when they died is given up, before inference stops because of it.

    Args:
        find_adapter: returns what is registered under a name.
    """

    def __init__(
        self, engines: Engines, settings: EngineSettings, find_adapter: Callable[[str], Adapter | None]
    ) -> None:
        self._engines = engines
        self._settings = settings
        self._adapters = Adapters(find_adapter, settings)
        self._pace_s: float | None = None  # that a token takes, of late
        self._calls = itertools.count(1)

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        adapter = await self._adapter(target)
        prompt = prompt_of(request)
        stream = _Stream(pieces)
        deaths = 0
        while True:
            engine = await self._engines.engine()
            try:
                async with asyncio.timeout(target.timeout_s) as limit:
                    return await self._generated(engine, request, target, adapter, prompt, stream, progress)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                reason = f"{target.model}: no answer within {target.timeout_s:.0f} s"
                raise BackendError(reason, cancelled=progress.began) from error
            except EngineDied:
                self._engines.lost(engine)
                log.warning("generated again: the engine died", request_id=request.request_id, model=target.model)
                progress.began, progress.usage = False, None
                stream.begin_again()
                deaths += 1
                if deaths >= max(_BORNE_DEATHS, self._settings.max_restarts):
                    # It may be what they die of: the others are answered without it.
                    raise BackendError(
                        f"target {target.model}: the engine died {deaths} times under the request"
                    ) from None

    async def _adapter(self, target: Target) -> LoadedAdapter | None:
        if target.model in self._settings.names:
            return None
        try:
            return await self._adapters.loaded(target.model)
        except AdapterError as error:
            raise BackendError(f"target {target.model}: {error}") from error

    async def _generated(
        self,
        engine: Engine,
        request: GroundedRequest,
        target: Target,
        adapter: LoadedAdapter | None,
        prompt: Prompt,
        stream: _Stream,
        progress: Progress,
    ) -> Answered:
        started = time.perf_counter()
        sampling = request.sampling
        try:
            tools = engine.tools(prompt.messages, sampling, request.event_id) if may_call(sampling) else None
            rendered = await engine.render(prompt.messages, tools)
            room = engine.context_tokens - rendered.tokens
            if room < 1:
                raise Refused(
                    f"the prompt has {rendered.tokens:,} tokens, which leaves none of the {engine.context_tokens:,} of the "
                    "context window for an answer; shorten the conversation, or attach fewer passages"
                )
            interval = reading_interval(self._pace_s) if stream.wanted else QUIET_INTERVAL
            asked = asked_of(sampling, room=room, defaults=engine.defaults, interval=interval, tools=tools)
            progress.began = True
            # A request may be here more than once (a shadow is one beside it), and each is stopped by itself.
            generation = await engine.submit(
                f"{request.event_id}.{next(self._calls)}",
                rendered,
                asked,
                priority=engine_priority(request.context.priority),
                adapter=adapter,
            )
        except (Refused, SamplingError) as error:
            progress.began = False
            raise BackendError(f"target {target.model}: {error}", of_request=True) from error
        except AdapterRefused as error:
            progress.began = False
            raise BackendError(f"target {target.model}: {error}") from error
        gathered = Gathered(rendered.tokens, sampling.top_logprobs)
        first_token_us = None
        try:
            while not gathered.finished:
                new = gathered.take(await generation.next())
                progress.usage = gathered.usage()
                if gathered.broken:
                    raise EngineDied("the engine gave the request up")
                if first_token_us is None and progress.usage.output_tokens:
                    first_token_us = _since(started)
                if tools is None:
                    await stream.add(new)
        except Refused as error:
            await _last_word(generation, gathered, progress)
            reason = f"target {target.model}: the engine could not go on: {error}"
            raise BackendError(reason, charged=gathered.usage().output_tokens > 0) from error
        except EngineDied:
            await _last_word(generation, gathered, progress)
            metrics.WASTED_TOKENS.labels(_NAME, target.model, "engine").inc(gathered.wasted_tokens)
            raise
        except BaseException:
            await _last_word(generation, gathered, progress)
            raise
        if gathered.failed:
            raise BackendError(f"target {target.model}: the engine broke off inside the answer", charged=True)
        try:
            first, *others = gathered.answers(asked.copies, None if tools is None else tools.read)
        except Exception as error:  # vLLM's parsers are many, and raise what they like of what a model says
            reason = f"target {target.model}: what the model said cannot be read as calls of tools: {error}"
            raise BackendError(reason, charged=True) from error
        if tools is not None:
            # What are words and what are calls is known at the end.
            await stream.add(first.content)
        await stream.end()
        usage, model_us = gathered.usage(), _since(started)
        if first_token_us is not None and usage.output_tokens > 1:
            pace_s = (model_us - first_token_us) / 1e6 / (usage.output_tokens - 1)
            self._pace_s = pace_s if self._pace_s is None else self._pace_s + _NEWEST * (pace_s - self._pace_s)
        return Answered(
            model=target.model,
            backend=_NAME,
            content=first.content,
            finish_reason=first.finish_reason,
            usage=usage,
            model_us=model_us,
            first_token_us=first_token_us,
            reduced_input_tokens=prompt.reduced_tokens(usage.input_tokens),
            alternatives=tuple(others),
            logprobs=tuple(first.logprobs),
            engine_queue_us=gathered.queue_us,
            tool_calls=tuple(first.tool_calls),
        )


async def _last_word(generation: Generation, gathered: Gathered, progress: Progress) -> None:
    """Stop ``generation``, and count what it came to."""
    rest = await generation.abort()
    if rest is not None:
        gathered.take(rest)
    progress.usage = gathered.usage()


class _Stream:
    """An answer on its way to a reader, who is never told anything else than what was said before.

    An answer that is generated again says the same at first, where its sampling is repeatable: the reader gets what follows.
    Where it says something else, the stream is broken off, and the answer comes as a whole.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._said = ""  # to the reader
        self._repeated: str | None = None  # of that, by the present engine; None where it has caught up
        self.wanted = not isinstance(pieces, NoPieces)

    def begin_again(self) -> None:
        """The answer begins anew."""
        self._repeated = "" if self._said else None

    async def add(self, text: str) -> None:
        """Take the next of the answer."""
        if not self.wanted or not text:
            return
        if self._repeated is not None:
            self._repeated += text
            length = min(len(self._repeated), len(self._said))
            if self._repeated[:length] != self._said[:length]:
                await self._break()
                return
            if len(self._repeated) < len(self._said):
                return
            text, self._repeated = self._repeated[length:], None
        self._said += text
        await self._pieces.add(text)

    async def end(self) -> None:
        """The answer is complete."""
        if self.wanted and self._repeated is not None and self._repeated != self._said:
            await self._break()  # it ends before it said as much as the first time

    async def _break(self) -> None:
        self.wanted = False
        await self._pieces.break_off()


def _since(started: float) -> int:
    """Microseconds since ``started`` of the performance counter."""
    return int((time.perf_counter() - started) * 1e6)
