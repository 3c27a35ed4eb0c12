"""What a call took from the grid, estimated from figures that the configuration states. Pure."""

from __future__ import annotations

from penstock.config.kinds import EnergyFigures
from penstock.contracts.records import Energy, Usage

__all__ = ["estimated_energy"]

_JOULES_PER_KWH = 3.6e6


def estimated_energy(figures: EnergyFigures | None, usage: Usage, grid_grams_per_kwh: float | None) -> Energy | None:
    """Return the estimate for a call; None where nothing is stated of its model.

    A prompt token that came from a cache of prefixes is not computed again, so it takes nothing.

    Args:
        grid_grams_per_kwh: grid intensity where this process runs, grams of CO2 equivalent; for figures that state none.
    """
    if figures is None:
        return None
    computed = max(0, usage.input_tokens - usage.cached_input_tokens)
    joules = figures.overhead * (
        figures.joules_per_request
        + figures.joules_per_input_token * computed
        + figures.joules_per_output_token * usage.output_tokens
    )
    stated = figures.grid_grams_per_kwh
    grid = grid_grams_per_kwh if stated is None else stated
    grams = None if grid is None else joules / _JOULES_PER_KWH * grid
    return Energy(joules=joules, co2e_grams=grams, basis=f"{figures.key}@{figures.version}")
