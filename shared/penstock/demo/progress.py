"""What the terminal shows while the demo runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

__all__ = ["Progress"]

_LINE_EVERY_S = 5.0


class Progress:
    """Tells of one step after another. Use as a context manager; may be told from any thread.

    On a terminal the running step is a live line with its newest note; elsewhere a step is a line when it begins, a
    note at most every five seconds, and a line when it ends.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._begun = clock()
        self._title = ""
        self._step_begun = self._begun
        self._noted = 0.0
        self._status: Status | None = console.status("") if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._begun

    def step(self, title: str) -> None:
        """Begin a step."""
        self._title = title
        self._step_begun = self._clock()
        self._noted = 0.0
        if self._status is not None:
            self._status.update(f"[bold]{title}[/]")
        else:
            self._line(f"{title} ...")

    def note(self, text: str) -> None:
        """Say how far the step is."""
        if self._status is not None:
            self._status.update(f"[bold]{self._title}[/]  {text}")
        elif self._clock() - self._noted >= _LINE_EVERY_S:
            self._noted = self._clock()
            self._line(f"  {text}")

    def done(self, text: str) -> None:
        """End the step with what came of it."""
        self._line(f"[green]✓[/] {self._title}: {text} [dim]({self._clock() - self._step_begun:.1f} s)[/]")

    def warn(self, text: str) -> None:
        """Say something that a person should see, whatever the step."""
        self._line(f"[yellow]![/] {text}")

    def _line(self, text: str) -> None:
        self._console.print(f"[dim]{self.elapsed_s:5.1f}[/] {text}", highlight=False, soft_wrap=True)
