"""Who waits at this replica for which request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["RequestKey", "Waiter", "Waiters"]

RequestKey = tuple[str, str]
"""(team, request_id): a request_id is one team's own."""


class Waiter:
    """Somebody who waits for news of one request."""

    __slots__ = ("_news",)

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def look(self) -> None:
        """Forget the news so far: call it before looking at what there is, so that none is missed."""
        self._news.clear()

    def wake(self) -> None:
        """There is news."""
        self._news.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when there is news, or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return


class Waiters:
    """All who wait at this replica."""

    def __init__(self) -> None:
        self._waiting: dict[RequestKey, set[Waiter]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def waiting(self, key: RequestKey) -> Iterator[Waiter]:
        """Be told of news of a request until the block is left."""
        waiter = Waiter()
        self._waiting.setdefault(key, set()).add(waiter)
        try:
            yield waiter
        finally:
            others = self._waiting[key]
            others.discard(waiter)
            if not others:
                del self._waiting[key]

    def wake(self, keys: Iterable[RequestKey]) -> None:
        """Tell those who wait for one of ``keys``."""
        for key in keys:
            for waiter in self._waiting.get(key, ()):
                waiter.wake()

    def wake_all(self) -> None:
        """Tell everybody: news may have been lost."""
        self.wake(list(self._waiting))
