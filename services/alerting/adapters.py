"""What alerting touches outside the log: a webhook, the console, and Redis as the memory of what was delivered."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol, TextIO, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from penstock.bus import Transient
from penstock.clock import Clock
from penstock.contracts.records import Alert
from penstock.telemetry import get_logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.alerting.core import (
    Receipt,
    Remembered,
    backoff,
    idempotency_key,
    meaning_of,
    payload,
    remembered,
    signature,
)
from services.alerting.rendering import render

__all__ = ["Channel", "Console", "Memory", "RedisMemory", "Webhook"]

log = get_logger(__name__)
T = TypeVar("T")

Answered = Callable[[], Awaitable[Receipt | None]]
"""Asks whether the alerts have been acknowledged elsewhere meanwhile."""


class Channel(Protocol):
    """A way to on-call."""

    name: str
    destination: str

    async def deliver(self, alerts: Sequence[Alert], answered: Answered) -> Receipt:
        """Deliver alerts of one group, at least one; returns when that has succeeded or is given up."""
        ...


class Memory(Protocol):
    """Remembers, over restarts and between replicas, what was delivered."""

    async def last(self, fingerprint: str) -> Remembered | None:
        """Return the last delivered alert of a fingerprint."""
        ...

    async def receipt(self, event_id: str) -> Receipt | None:
        """Return how the delivery of an alert ended, if it has."""
        ...

    async def remember(self, alert: Alert, receipt: Receipt) -> None:
        """Keep how the delivery of an alert ended."""
        ...


class Console:
    """Prints alerts: the default, where no webhook is set."""

    name = "console"
    destination = "stdout"

    def __init__(self, runbook_base_url: str = "", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._base = runbook_base_url

    async def deliver(self, alerts: Sequence[Alert], answered: Answered) -> Receipt:
        """Print each alert as a few lines."""
        colour = self._stream.isatty()
        self._stream.write("".join(render(alert, self._base, colour) for alert in alerts))
        self._stream.flush()
        return Receipt("delivered", self.name, self.destination, attempts=1)


class Webhook:
    """Posts groups of alerts as signed JSON, and tries again until a deadline where that may help."""

    name = "webhook"

    def __init__(
        self,
        client: httpx.AsyncClient,
        url: str,
        secret: str | None,
        clock: Clock,
        *,
        timeout_s: float,
        retry_s: float,
        runbook_base_url: str = "",
        dice: random.Random | None = None,
    ) -> None:
        """Create the channel.

        Args:
            client: sends; must not follow redirects.
            url: where to post.
            secret: signs the body; ``None`` sends it unsigned.
            clock: measures the deadline and sleeps between tries.
            timeout_s: longest time of one try, however slowly the receiver drips its answer.
            retry_s: time after which no further try is begun.
            runbook_base_url: put before the runbooks' paths.
            dice: jitter.
        """
        parts = urlsplit(url)
        # Paths and queries of webhooks are often the credential itself.
        self.destination = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
        self._client = client
        self._url = url
        self._secret = secret.encode() if secret else None
        self._clock = clock
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._base = runbook_base_url
        self._dice = dice or random.Random()

    async def deliver(self, alerts: Sequence[Alert], answered: Answered) -> Receipt:
        """Post the alerts; 2xx is an acknowledgement, 5xx, 408, 425, 429 and silence are tried again, all else is
        final."""
        body = payload(alerts, self._base)
        deadline = self._clock.monotonic() + self._retry_s
        attempts = 0
        while True:
            attempts += 1
            status_code, retry_after_s, problem = await self._post(body, idempotency_key(alerts))
            meaning = "retry" if status_code is None else meaning_of(status_code)
            if meaning == "delivered":
                return Receipt("delivered", self.name, self.destination, attempts, status_code)
            if meaning == "dead":
                reason = f"{self.destination} refused it with {status_code}; it will not be tried again"
                return Receipt("dead", self.name, self.destination, attempts, status_code, reason)
            pause_s = backoff(attempts, self._dice.random(), retry_after_s)
            log.warning(
                "delivery failed", destination=self.destination, attempt=attempts, reason=problem, again_s=pause_s
            )
            if self._clock.monotonic() + pause_s > deadline:
                reason = f"{problem}; given up after {attempts} tries in {self._retry_s:g} s"
                return Receipt("dead", self.name, self.destination, attempts, status_code, reason)
            await self._clock.sleep(pause_s)
            # After a rebalance another replica may have delivered it while this one waited.
            if (receipt := await answered()) is not None:
                return receipt

    async def _post(self, body: bytes, key: str) -> tuple[int | None, float | None, str]:
        """Try once; return the status (``None`` without an answer), the pause that was asked for, and what went
        wrong."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "penstock-alerting",
            "Idempotency-Key": key,
        }
        if self._secret is not None:
            headers["Penstock-Signature"] = signature(self._secret, int(self._clock.now().timestamp()), body)
        try:
            async with asyncio.timeout(self._timeout_s):
                # Streamed and left unread: only the status counts, and a body may be endless.
                async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                    pause = response.headers.get("Retry-After", "")
                    return (
                        response.status_code,
                        float(pause) if pause.isdigit() else None,
                        f"HTTP {response.status_code}",
                    )
        except TimeoutError:
            return None, None, f"no answer within {self._timeout_s:g} s"
        except httpx.HTTPError as error:
            return None, None, f"{type(error).__name__}: {error}"


class RedisMemory:
    """Keeps receipts by event_id, and the last delivered alert by fingerprint."""

    def __init__(self, redis: Redis, window: timedelta, max_age: timedelta) -> None:
        """Create the memory.

        Args:
            redis: connection.
            window: how long repetitions are recognised.
            max_age: older alerts are not delivered, so their receipts need not be kept.
        """
        self._redis = redis
        # A resolution may come long after; a week is as long as anyone waits for one.
        self._last_s = int(max(window, timedelta(days=7)).total_seconds())
        self._receipt_s = int((max_age + timedelta(hours=1)).total_seconds())

    async def last(self, fingerprint: str) -> Remembered | None:
        value = await _reply(self._redis.get(f"penstock:alerts:last:{fingerprint}"))
        return msgspec.json.decode(value, type=Remembered) if value else None

    async def receipt(self, event_id: str) -> Receipt | None:
        value = await _reply(self._redis.get(f"penstock:alerts:receipt:{event_id}"))
        return msgspec.json.decode(value, type=Receipt) if value else None

    async def remember(self, alert: Alert, receipt: Receipt) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        encoded = msgspec.json.encode(receipt)
        pipeline.set(f"penstock:alerts:receipt:{alert.event_id}", encoded, ex=self._receipt_s)
        if receipt.outcome == "delivered":
            last = msgspec.json.encode(remembered(alert))
            pipeline.set(f"penstock:alerts:last:{alert.fingerprint}", last, ex=self._last_s)
        await _reply(pipeline.execute())


async def _reply(call: Awaitable[T]) -> T:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise Transient(f"Redis is away, so what was delivered is not known: {error}") from error
