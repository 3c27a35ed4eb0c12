"""One function over many items, in their order, in this process or in several."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import Any, TypeVar

__all__ = ["map_in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 16
"""Items handed to a process at once: the hand-over costs as much as judging a short text."""
_AHEAD = 4
"""Batches a process may have waiting: bounds what is held in memory while the slowest item is judged."""

_work: Callable[[Any], Any] | None = None  # of a process of the pool; it serves one function only


def map_in_order(
    make: Callable[[], Callable[[Item], Result]], items: Iterable[Item], jobs: int = 1
) -> Iterator[Result]:
    """Yield ``make()(item)`` for each item in order; with ``jobs`` above 1, in so many processes that call ``make`` once.

    ``make``, items and results must then be picklable. Items are taken as results are asked for, so neither side piles
    up.
    """
    if jobs <= 1:
        yield from map(make(), items)
        return
    # Processes start afresh: runtimes with threads of their own, such as onnxruntime, do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(make,)) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        source = iter(items)
        try:
            while batch := list(islice(source, _BATCH)):
                waiting.append(pool.submit(_run, batch))
                if len(waiting) >= jobs * _AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _work
    _work = make()


def _run(batch: list[Any]) -> list[Any]:
    assert _work is not None
    return [_work(item) for item in batch]
