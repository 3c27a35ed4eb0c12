"""When messages that cannot be processed are too many to be put aside."""

from __future__ import annotations

from collections import deque

__all__ = ["DeadLetterLimit", "TooManyDeadLetters"]


class TooManyDeadLetters(Exception):
    """Most messages fail: it is the deploy or an upstream that is bad. Stopping keeps the rest in its topic."""


class DeadLetterLimit:
    """Watches the share of dead letters among the newest messages."""

    def __init__(self, max_ratio: float, min_messages: int, window: int = 1000) -> None:
        self._recent: deque[bool] = deque(maxlen=max(window, min_messages))
        self._dead = 0
        self._max_ratio = max_ratio
        self._min_messages = min_messages

    def saw(self, dead: bool) -> None:
        """Count one message.

        Raises:
            TooManyDeadLetters: the share is above the limit.
        """
        if len(self._recent) == self._recent.maxlen and self._recent[0]:
            self._dead -= 1
        self._recent.append(dead)
        self._dead += dead
        seen = len(self._recent)
        if dead and seen >= self._min_messages and self._dead / seen > self._max_ratio:
            raise TooManyDeadLetters(
                f"{self._dead} of the last {seen} messages were dead letters, more than the limit of "
                f"{self._max_ratio:.0%}; stopped rather than divert everything. See the newest entries of the dlq "
                "topic; mend the cause, restart, and replay them with `penstock dlq replay`"
            )
