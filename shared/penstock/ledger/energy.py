"""What model calls took from the grid, added up: estimates, from the energy that inference wrote into completions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.contracts.records import Completion
from penstock.ledger.dimensions import Selection
from penstock.ledger.reading import identity
from penstock.ledger.tables import Column, Sheet

__all__ = ["ENERGY_DIMENSIONS", "EnergyReport"]

_JOULES_PER_WH = 3600.0

ENERGY_DIMENSIONS: Mapping[str, Callable[[Completion], str | None]] = {
    "team": lambda completion: completion.tenant_id,
    "user": lambda completion: completion.context.user_id,
    "model": lambda completion: completion.request_model or completion.model,
    "backend": lambda completion: completion.backend,
    "route": lambda completion: completion.context.route,
    "kind": lambda completion: completion.kind,
    "day": lambda completion: f"{completion.occurred_at:%Y-%m-%d}",
    "month": lambda completion: f"{completion.occurred_at:%Y-%m}",
    "basis": lambda completion: None if completion.energy is None else completion.energy.basis,
}
"""What energy can be added up by; ``basis`` is the entry of config-energy that the figures come from."""

_SUMS = (
    Column("watt_hours", "number", always=True),
    Column("co2e_grams", "number", always=True),
    Column("calls", "integer", always=True),
    Column("calls_without_estimate", "integer"),
    Column("calls_without_grid", "integer"),
)


@dataclass(slots=True)
class _Sums:
    joules: float = 0.0
    grams: float = 0.0
    calls: int = 0
    without_estimate: int = 0
    without_grid: int = 0

    def cells(self) -> tuple[float, float, int, int, int]:
        return (
            self.joules / _JOULES_PER_WH,
            self.grams,
            self.calls,
            self.without_estimate,
            self.without_grid,
        )


@dataclass(slots=True)
class EnergyReport:
    """Adds up completions, each once, by ``names`` of :data:`ENERGY_DIMENSIONS`: those that ``wanted`` asks for by team and
    by the instant at which they ended. Answers from a cache are no calls.

    Calls of models without an entry in config-energy, and energy without an intensity of the grid, are counted apart: in
    no sum, rather than as nothing.
    """

    names: Sequence[str]
    wanted: Selection = field(default_factory=Selection)
    total: _Sums = field(default_factory=_Sums)
    _lines: dict[tuple[str, ...], _Sums] = field(default_factory=dict)
    _seen: set[bytes | str] = field(default_factory=set)

    def add(self, completion: Completion) -> None:
        """Take a completion; one that was taken already, or that nobody asks for, adds nothing."""
        own = identity(completion.event_id)
        if completion.cached_from is not None or own in self._seen or not self._is_wanted(completion):
            return
        self._seen.add(own)
        key = tuple(ENERGY_DIMENSIONS[name](completion) or "" for name in self.names)
        for sums in (self._lines.setdefault(key, _Sums()), self.total):
            sums.calls += 1
            if completion.energy is None:
                sums.without_estimate += 1
                continue
            sums.joules += completion.energy.joules
            if completion.energy.co2e_grams is None:
                sums.without_grid += 1
            else:
                sums.grams += completion.energy.co2e_grams

    def _is_wanted(self, completion: Completion) -> bool:
        wanted, at = self.wanted, completion.occurred_at
        return (
            (wanted.team is None or completion.tenant_id == wanted.team)
            and (wanted.since is None or at >= wanted.since)
            and (wanted.until is None or at < wanted.until)
        )

    def sheet(self) -> Sheet:
        """Return the lines, those that took most first."""
        lines = sorted(self._lines.items(), key=lambda line: (-line[1].joules, line[0]))
        return Sheet(
            columns=(*(Column(name, "text", always=True) for name in self.names), *_SUMS),
            rows=[(*key, *sums.cells()) for key, sums in lines],
            total=("total", *[""] * (len(self.names) - 1), *self.total.cells()),
            title="Estimated from the figures of config-energy",
        )
