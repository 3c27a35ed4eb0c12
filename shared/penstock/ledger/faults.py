"""What can be wrong with the ledger, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

__all__ = ["FAULTS", "Fault"]

FAULTS: Mapping[str, str] = {
    "undecodable": "cannot be decoded, so it is in no sum",
    "conflict": "a cost stands on the log again under its event_id, with other content; the first counts",
    "underived": "a cost whose event_id no call leads to: something else than pricing wrote it",
    "no_cost": "a call that has no cost",
    "no_call": "a cost whose call should be on the log and is not",
    "other_amount": "the amount is not what the call costs at the price that is named",
    "other_saving": "the saving, or the time that was priced, is not that of the call at the price that is named",
    "other_call": "the cost says something else than the call it was made of",
    "unknown_price": "the price that is named was never published",
    "other_price": "the price is not the one that was in force at the call",
    "window": "the newest sum on team-spend is not the ledger's",
    "no_window": "team-spend has no sum of a window that the ledger has costs for",
    "counter": "what Redis says was spent is not what the ledger says",
    "no_counter": "Redis has no counter of a hard budget that the ledger has costs for",
    "reserved": "what a counter holds reserved is not what the open reservations hold in it",
    "over_limit": "a hard budget is exceeded",
}
"""By kind."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        where: the window, the counter, or topic/partition/offset with request and team.
        ledger: what the ledger says.
        live: what the other side says.
        difference: the other side less the ledger, USD; None where it is no question of amounts.
        cause: what likely led to it, and the remedy.
    """

    kind: str
    where: str
    ledger: str = ""
    live: str = ""
    difference: Decimal | None = None
    cause: str = ""

    @property
    def description(self) -> str:
        """What the kind means."""
        return FAULTS[self.kind]
