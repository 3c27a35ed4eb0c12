"""How far a long reading has come, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from rich.console import Console
from rich.status import Status

__all__ = ["Progress"]

_T = TypeVar("_T")
_EVERY_S = 0.2


class Progress:
    """A line on standard error that says what is being read.

    Args:
        quiet: say nothing, as where standard output is for a machine.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._read: Counter[str] = Counter()
        self._shown_at = 0.0
        self._status: Status | None = None
        if sys.stderr.isatty() and not quiet:
            self._status = Console(stderr=True).status("connecting")

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Clear the line, for what is printed or asked next; it comes back with the next message."""
        if self._status is not None:
            self._status.stop()

    def advance(self, what: str) -> None:
        """Count one more message."""
        self._read[what] += 1
        now = time.monotonic()
        if self._status is not None and now - self._shown_at >= _EVERY_S:
            self._shown_at = now
            self._status.start()
            self._status.update(", ".join(f"{number:,} {name}" for name, number in self._read.items()) + " read")

    def say(self, text: str) -> None:
        """Show what is waited for."""
        if self._status is not None:
            self._status.start()
            self._status.update(text)

    async def counted(self, what: str, items: AsyncIterator[_T]) -> AsyncIterator[Any]:
        """Yield ``items``, counting them."""
        async for item in items:
            self.advance(what)
            yield item
