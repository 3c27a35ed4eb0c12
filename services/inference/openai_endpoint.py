"""Any OpenAI-compatible endpoint as backend."""

from __future__ import annotations

import asyncio
import math
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import aiohttp
from penstock.clock import Clock, SystemClock
from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest, Usage
from penstock.telemetry import get_logger, metrics

from services.inference.adapters import BackendError
from services.inference.core import Answered
from services.inference.openai_body import body_of, refused_parameter
from services.inference.openai_http import drain, events, post, quoted, whole
from services.inference.openai_reply import Reply, excerpt
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from services.inference.prompt import Prompt, prompt_of
from services.inference.usage import usage_of

__all__ = ["OpenAIBackend", "retry_after_s"]

log = get_logger(__name__)

# Retried: nothing was generated. 408 and 409 are what proxies say of a call they never passed on.
_RETRIED_STATUS = frozenset({408, 409, 429, 500, 502, 503, 504})
# The request is what is wrong: another one may well be answered.
_OF_REQUEST_STATUS = frozenset({400, 413, 422})
_TRIES = 3
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
"""What is waited before another try, where the endpoint does not say; from one to the next it doubles."""
_STREAMED = "text/event-stream"


class _Refused(BackendError):
    """Nothing was generated.

    Attributes:
        after_s: seconds that the endpoint asks to wait for; None where it does not say.
    """

    def __init__(
        self, reason: str, *, retriable: bool = False, of_request: bool = False, after_s: float | None = None
    ) -> None:
        super().__init__(reason, retriable=retriable, of_request=of_request)
        self.after_s = after_s


@dataclass(slots=True)
class _Call:
    """What is asked, of whom, and what has come of it."""

    request: GroundedRequest
    target: Target
    prompt: Prompt
    pieces: Pieces
    progress: Progress
    url: str
    body: bytes
    key: str | None
    first_token_us: int | None = None

    @property
    def named(self) -> str:
        """How the endpoint is called where whoever asks may read it: not by its address."""
        return f"target {self.target.label}"

    def usage(self, reply: Reply) -> tuple[Usage, bool]:
        """Return the tokens of the call, and whether any had to be estimated."""
        most = self.request.sampling.max_completion_tokens
        return usage_of(
            reply.usage,
            prompt_size=self.prompt.size,
            answer_size=reply.size,
            most_output=None if most is None else most * self.request.sampling.n,
        )

    def note(self, reply: Reply) -> None:
        """Keep what the endpoint has just said of its usage."""
        usage, estimated = self.usage(reply)
        self.progress.answer_size, self.progress.usage = reply.size, None if estimated else usage


class OpenAIBackend:
    """Any endpoint that answers POST {base_url}/chat/completions as OpenAI does, with server-sent events where pieces of
    the answer are wanted.

    A call, with its tries, ends within the target's ``timeout_s``. It is tried again where nothing was generated: no
    connection, or a status that says so; never once a model may have begun.

    Args:
        session: the connections that all calls share.
        environment: where the keys of endpoints are; the process's by default.
        clock: for deadlines of requests, and for endpoints that give a date to wait for.
        jitter: numbers from 0 to 1 that spread tries.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._session = session
        self._environment = os.environ if environment is None else environment
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._estimated: set[tuple[str, str]] = set()

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        call = self._prepared(request, target, pieces, progress)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(target.timeout_s):
                reply = await self._tried(call, asyncio.get_running_loop().time() + target.timeout_s)
            first = reply.answer()
        except TimeoutError as error:
            if progress.began:
                # The model may have generated: another try could pay twice.
                raise BackendError(f"{call.named}: no answer within {target.timeout_s:g} s", cancelled=True) from error
            raise BackendError(f"{call.named}: no connection within {target.timeout_s:g} s") from error
        except BackendError as error:
            progress.began = error.charged
            raise
        usage, estimated = call.usage(reply)
        if estimated:
            self._note_estimate(target)
        return Answered(
            model=reply.model or target.model,
            backend="openai",
            content=first.content,
            finish_reason=first.finish_reason,
            usage=usage,
            model_us=_since(started),
            first_token_us=call.first_token_us,
            reduced_input_tokens=call.prompt.reduced_tokens(usage.input_tokens),
            alternatives=tuple(reply.alternatives()),
            logprobs=tuple(first.logprobs),
            tool_calls=tuple(first.tool_calls),
        )

    def _prepared(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> _Call:
        if target.base_url is None:
            raise BackendError(f"target {target.label}: base_url is missing; set it in the route")
        url = f"{target.base_url.rstrip('/')}/chat/completions"
        key = None
        if target.api_key_env:
            key = self._environment.get(target.api_key_env, "").strip()
            if not key:
                raise BackendError(
                    f"target {target.label}: the environment variable {target.api_key_env} with its key is not set"
                )
            if not (key.isascii() and key.isprintable()):
                raise BackendError(
                    f"target {target.label}: the environment variable {target.api_key_env} holds what no key consists of"
                )
        prompt = prompt_of(request)
        body = body_of(request.sampling, prompt, target, stream=not isinstance(pieces, NoPieces))
        return _Call(request, target, prompt, pieces, progress, url, body, key)

    def _note_estimate(self, target: Target) -> None:
        metrics.ESTIMATED_USAGE.labels("openai", target.model).inc()
        place = (str(target.base_url), target.model)
        if place not in self._estimated:
            self._estimated.add(place)
            log.warning(
                "the endpoint gives no usage: tokens are estimated from above, by bytes",
                model=target.model,
                base_url=target.base_url,
            )

    async def _tried(self, call: _Call, until: float) -> Reply:
        """Return the reply to the first try that nobody refuses; ``until`` is the last moment for another, of the loop."""
        wait_s = _FIRST_WAIT_S
        for _ in range(_TRIES - 1):
            try:
                return await self._asked(call)
            except _Refused as error:
                call.progress.began = False
                # At least what the endpoint asks for, and not all of them at the same moment.
                if error.after_s is None:
                    after_s = wait_s * self._jitter()
                else:
                    after_s = error.after_s + _FIRST_WAIT_S * self._jitter()
                if not error.retriable or after_s >= self._left_s(call, until):
                    raise
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            await asyncio.sleep(after_s)
        return await self._asked(call)

    def _left_s(self, call: _Call, until: float) -> float:
        """Return the seconds until nobody waits for the answer any more."""
        left = until - asyncio.get_running_loop().time()
        deadline = call.request.context.deadline_at
        return left if deadline is None else min(left, (deadline - self._clock.now()).total_seconds())

    async def _asked(self, call: _Call) -> Reply:
        """Return the reply to one try.

        Raises:
            BackendError: there is none. It is a _Refused where nothing was generated.
        """
        started = time.perf_counter()
        sampling = call.request.sampling
        reply = Reply(
            call.named,
            sampling.n,
            wants_logprobs=sampling.top_logprobs is not None,
            takes_calls=sampling.tools is not None,
            event_id=call.request.event_id,
        )
        try:
            response = await post(self._session, call.url, call.key, _sent(call), len(call.body))
            try:
                if response.status != 200:
                    raise self._refused(call, response, await quoted(response))
                if response.headers.get("Content-Type", "").startswith(_STREAMED):
                    await _read_stream(call, reply, response, started)
                else:
                    text = reply.take_completion(await whole(response))
                    call.note(reply)
                    await call.pieces.add(text)
            finally:
                response.close()
        except aiohttp.ClientError as error:
            # Where an endpoint is, is nothing that whoever asks is told: the log has it.
            log.warning("endpoint failed", url=call.url, reason=f"{type(error).__name__}: {error}")
            if call.progress.began:
                raise BackendError(f"{call.named}: {type(error).__name__} within the answer", charged=True) from error
            # A host that does not even say no, or is another than it says, is the same in a moment.
            retriable = isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, ssl.SSLError)
            raise _Refused(f"{call.named}: cannot connect ({type(error).__name__})", retriable=retriable) from error
        return reply

    def _refused(self, call: _Call, response: aiohttp.ClientResponse, payload: bytes) -> _Refused:
        """Return the error for an answer that has not the status of one."""
        status = response.status
        of_request = status in _OF_REQUEST_STATUS
        reason = f"{call.named}: HTTP {status}"
        if of_request:
            reason += f": {excerpt(payload)}"
        else:
            # It may be about the key or the account, which are not those of whoever asks.
            log.warning("endpoint refused", url=call.url, status=status, reason=excerpt(payload))
        if of_request and (name := refused_parameter(call.request.sampling, payload)):
            reason += (
                f"; the endpoint does not take {name} as it was sent: change sampling.{name} or leave it out, or ask a "
                "route whose endpoint takes it"
            )
        elif 300 <= status < 400:
            reason += "; it redirects: set base_url to where the endpoint is"
        return _Refused(
            reason,
            retriable=status in _RETRIED_STATUS,
            of_request=of_request,
            after_s=retry_after_s(response.headers, self._clock.now()),
        )


async def _read_stream(call: _Call, reply: Reply, response: aiohttp.ClientResponse, started: float) -> None:
    progress = call.progress
    stream = events(response)
    async for event in stream:
        if event == b"[DONE]":
            await drain(stream)
            return
        reported = reply.usage
        text = reply.take_chunk(event)
        if reply.usage is not reported:
            call.note(reply)
        elif reply.size != progress.answer_size:
            # What the last words took nobody has said.
            progress.answer_size, progress.usage = reply.size, None
        if reply.size and call.first_token_us is None:
            # A call of a tool is the first that is said where it stands before any words.
            call.first_token_us = _since(started)
        if text:
            await call.pieces.add(text)


async def _sent(call: _Call) -> AsyncIterator[bytes]:
    """Yield the request's body: from here on a model may be at work."""
    call.progress.began = True
    yield call.body


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that an endpoint asks to wait for; None where it does not say, or nothing that makes sense.

    Read are Retry-After (seconds or a date, https://www.rfc-editor.org/rfc/rfc9110#field.retry-after) and the
    milliseconds of Retry-After-Ms, which OpenAI and Azure send beside it.
    """
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        said = headers.get(name)
        if said is None:
            continue
        try:
            seconds = float(said) * unit_s
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(said) - now).total_seconds()
            except (ValueError, TypeError):  # TypeError: a date of no zone.
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _since(started: float) -> int:
    """Microseconds since ``started`` of the performance counter."""
    return int((time.perf_counter() - started) * 1e6)
