"""Energy: what a model's tokens take from the grid, as the configuration states it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from penstock.config.entry import Entry, ModelName

__all__ = ["EnergyFigures"]


class EnergyFigures(Entry):
    """Figures of one model. What is computed from them is an estimate, and says so."""

    KIND: ClassVar[str] = "energy"

    model: ModelName = Field(description="Model as routes name it; * for models without an entry of their own.")
    joules_per_input_token: float = Field(
        ge=0, allow_inf_nan=False, description="Energy of a prompt token that is not cached, J."
    )
    joules_per_output_token: float = Field(ge=0, allow_inf_nan=False, description="Energy of a generated token, J.")
    joules_per_request: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Energy of a request whatever its length, J."
    )
    overhead: float = Field(
        default=1.0, ge=1, le=5, description="Power usage effectiveness of the data centre: what all of it takes, by what "
        "its computers take (ISO/IEC 30134-2)."
    )  # fmt: skip
    grid_grams_per_kwh: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Grid intensity where the model runs, grams of CO2 equivalent per kWh; null: as inference says of its "
        "own place (GRID_GRAMS_PER_KWH).",
    )
    source: str = Field(min_length=1, max_length=500, description="Where the figures come from, and when.")

    @property
    def key(self) -> str:
        return self.model
