"""What is known of very many requests at 16 bytes each: the outcome of each, or what its call was."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from hashlib import blake2b

import numpy as np

from penstock.contracts.records import Cost, LlmResult
from penstock.ledger.dimensions import UNKNOWN_OUTCOME

__all__ = ["Outcomes", "RequestNumbers"]


class RequestNumbers:
    """A small number for each request, found by team and request id; the one that was put last counts.

    A request is known by 64 bits of BLAKE2b of its team and id: among a million requests, two share them with a
    probability of 3e-8 (n^2 / 2^65).
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._numbers = array("Q")
        self._sorted = True

    def __len__(self) -> int:
        return len(self._hashes)

    def put(self, team: str, request_id: str, number: int) -> None:
        """Remember ``number``, 0 or more, of a request."""
        self._hashes.append(_hash(team, request_id))
        self._numbers.append(number)
        self._sorted = False

    def position(self, team: str, request_id: str) -> int | None:
        """Return where a request stands, from 0 and below ``len``, until the next :meth:`put`; None if nowhere."""
        if not self._sorted:
            self._sort()
        wanted = _hash(team, request_id)
        position = bisect_right(self._hashes, wanted) - 1
        return position if position >= 0 and self._hashes[position] == wanted else None

    def get(self, team: str, request_id: str) -> int | None:
        """Return the number of a request; None where it has none."""
        position = self.position(team, request_id)
        return None if position is None else self._numbers[position]

    def at(self, position: int) -> int:
        """Return the number at a position."""
        return self._numbers[position]

    def _sort(self) -> None:
        # Stable, so that of several of one request the last stays last, where bisect_right finds it.
        order = np.argsort(np.frombuffer(self._hashes, dtype=np.uint64), kind="stable")
        self._hashes = array("Q", np.frombuffer(self._hashes, dtype=np.uint64)[order].tobytes())
        self._numbers = array("Q", np.frombuffer(self._numbers, dtype=np.uint64)[order].tobytes())
        self._sorted = True


class Outcomes:
    """How requests ended: the status of each one's result."""

    def __init__(self) -> None:
        self._requests = RequestNumbers()
        self._statuses: dict[str, int] = {}
        self._names: list[str] = []

    def add(self, result: LlmResult) -> None:
        """Remember a result."""
        number = self._statuses.setdefault(result.status, len(self._names))
        if number == len(self._names):
            self._names.append(result.status)
        self._requests.put(result.tenant_id, result.request_id, number)

    def of(self, cost: Cost) -> str:
        """Return the status of the result of a cost's request; ``unknown`` where none was added."""
        number = self._requests.get(cost.tenant_id, cost.request_id)
        return UNKNOWN_OUTCOME if number is None else self._names[number]


def _hash(team: str, request_id: str) -> int:
    # A team's name holds no NUL, so no two pairs read alike.
    return int.from_bytes(blake2b(f"{team}\0{request_id}".encode(), digest_size=8).digest(), "little")
