"""Requests whose answer nobody wants any more."""

from __future__ import annotations

import asyncio
from typing import Protocol

from penstock.contracts.records import GroundedRequest

__all__ = ["Cancellations", "NoCancellations"]


class Cancellations(Protocol):
    """Knows which requests were cancelled."""

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        """Return a future that has the reason as soon as ``request`` is cancelled; it may have it at once.

        Whoever asked for it cancels it when the request is answered.
        """
        ...


class NoCancellations:
    """Nobody cancels anything."""

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        return asyncio.get_running_loop().create_future()
