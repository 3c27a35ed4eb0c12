"""Alerts as lines on the terminal: the way to on-call of a trial."""

from __future__ import annotations

import sys
from typing import TextIO

from services.alerting.channels.protocol import Attempt, Notification
from services.alerting.rendering import left_out, render

__all__ = ["Console"]


class Console:
    """Prints alerts."""

    name = "console"
    destination = "stdout"

    def __init__(self, runbook_base_url: str = "", stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._base = runbook_base_url

    async def send(self, notification: Notification) -> Attempt:
        """Print each alert as a few lines."""
        rest = left_out(notification)
        try:
            colour = self._stream.isatty()
            self._stream.write("".join(render(alert, self._base, colour) for alert in notification.alerts))
            if rest:
                self._stream.write(f"{rest}\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            return Attempt(outcome="retry", reason=f"{self.destination} cannot be written: {type(error).__name__}")
        return Attempt(outcome="delivered")

    async def aclose(self) -> None:
        """Nothing is open."""
