"""The client without async: the asynchronous one on an event loop in a thread of its own. Works in a notebook."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from penstock.client.asynchronous import Client
from penstock.client.publishing import Question
from penstock.client.vectors import Embeddings
from penstock.contracts.records import LlmResult, ResultChunk
from penstock.settings import KafkaSettings

__all__ = ["SyncClient"]

T = TypeVar("T")


class SyncClient:
    """A producer and consumer of the public topics, blocking. Use as a context manager; arguments as for ``Client``."""

    def __init__(
        self, settings: KafkaSettings | None = None, *, tenant: str | None = None, **replacements: Any
    ) -> None:
        self._client = Client(settings, tenant=tenant, **replacements)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="penstock-client", daemon=True)

    def __enter__(self) -> SyncClient:
        self._thread.start()
        try:
            self._wait(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._wait(self._client.__aexit__(*exc))
        finally:
            self._end()

    def submit(self, question: Question = (), **options: Any) -> str:
        """As :meth:`Client.submit`."""
        return self._wait(self._client.submit(question, **options))

    def result(self, request_id: str, timeout_s: float = 60.0, *, tenant: str | None = None) -> LlmResult:
        """As :meth:`Client.result`."""
        return self._wait(self._client.result(request_id, timeout_s, tenant=tenant))

    def ask(self, question: Question, **options: Any) -> LlmResult:
        """As :meth:`Client.ask`."""
        return self._wait(self._client.ask(question, **options))

    def embed(self, texts: str | Sequence[str], **options: Any) -> Embeddings:
        """As :meth:`Client.embed`."""
        return self._wait(self._client.embed(texts, **options))

    def cancel(self, request_id: str, **options: Any) -> None:
        """As :meth:`Client.cancel`."""
        self._wait(self._client.cancel(request_id, **options))

    def feedback(self, request_id: str, **options: Any) -> str:
        """As :meth:`Client.feedback`."""
        return self._wait(self._client.feedback(request_id, **options))

    def document(self, document_id: str, content: str = "", **options: Any) -> str:
        """As :meth:`Client.document`."""
        return self._wait(self._client.document(document_id, content, **options))

    def stream(self, question: Question, **options: Any) -> Iterator[ResultChunk | LlmResult]:
        """As :meth:`Client.stream`."""
        return self._iterate(self._client.stream(question, **options))

    def results(self, group: str, *, tenant: str | None = None) -> Iterator[LlmResult]:
        """As :meth:`Client.results`."""
        return self._iterate(self._client.results(group, tenant=tenant))

    def _iterate(self, stream: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self._wait(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            self._wait(stream.aclose())

    def _wait(self, job: Coroutine[Any, Any, T] | Any) -> T:
        async def run() -> T:
            return await job

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
