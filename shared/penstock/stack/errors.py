"""What can go wrong with the local stack. Every message names the cause and the remedy."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ArtifactError", "Interrupted", "NotReady", "PartFailed", "PortInUse", "StackError"]


class StackError(Exception):
    """The stack cannot do what was asked; the message names the cause and the remedy."""


class ArtifactError(StackError):
    """Software the stack runs on could not be fetched or is not what it should be."""


class PortInUse(StackError):
    """A port that was asked for by number belongs to another process."""


class NotReady(StackError):
    """A part does not answer yet; the message says what it answered instead."""


class Interrupted(StackError):
    """The start was called off from outside."""


class PartFailed(StackError):
    """A part did not come up.

    Attributes:
        part: its name.
        log: where it wrote what it had to say.
        log_tail: the last lines of that, already read.
    """

    def __init__(self, part: str, reason: str, log: Path, log_tail: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason
        self.log = log
        self.log_tail = log_tail
