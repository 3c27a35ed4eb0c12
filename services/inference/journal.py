"""What earlier readings of a request have come to: a request that is read again is not answered twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.config.kinds import Target
from penstock.contracts.records import GroundedRequest, Usage

from services.inference.calling import Flight

__all__ = ["FIRST", "Earlier", "Journal", "NoJournal", "Wasted"]


@dataclass(frozen=True, slots=True)
class Wasted:
    """A call that a process was at when it died: what is known to have been used."""

    target: Target
    usage: Usage


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier readings of a request have come to.

    Attributes:
        answered: its completion stands in the log, so nothing is left to do.
        wasted: calls that died with their process; they are paid for, and the request is answered again.
    """

    answered: bool = False
    wasted: tuple[Wasted, ...] = ()


FIRST = Earlier()
"""It is read for the first time."""


class Journal(Protocol):
    """Keeps what is in flight where it outlives the process."""

    async def earlier(self, request: GroundedRequest) -> Earlier:
        """Return what earlier readings of ``request`` have come to."""
        ...

    def opened(self, flight: Flight) -> None:
        """``flight`` begins: from now on its progress is kept."""
        ...

    def closed(self, flight: Flight) -> None:
        """``flight`` has ended, however."""
        ...


class NoJournal:
    """Knows of nothing: for tests, and for targets that cost nothing."""

    async def earlier(self, request: GroundedRequest) -> Earlier:
        return FIRST

    def opened(self, flight: Flight) -> None:
        return

    def closed(self, flight: Flight) -> None:
        return
