"""Settings of drift, beside those of every service."""

from __future__ import annotations

from datetime import timedelta

from penstock.settings import ServiceSettings
from pydantic import Field

from services.drift.core import Parameters
from services.drift.reference import TopicParameters
from services.drift.scalar import ScalarParameters

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What drift reads from the environment. The detectors' inner constants are calibrated together and stay in the
    code."""

    # No request waits for this service: on a full machine it lets those go first that one waits for.
    gather_ms: int = Field(25, description="How long messages are gathered, in and out.", ge=0, le=5000)
    niceness: int = Field(5, description="How far the process steps back for others, as of nice(1).", ge=0, le=19)

    drift_topic_reference: int = Field(
        40, description="Messages with an embedding before a segment's topic is watched.", ge=24, le=1000
    )
    drift_topic_threshold: float = Field(
        3.0, description="Standardised statistic that makes a candidate topic shift; higher is less sensitive.", gt=0
    )
    drift_scalar_warm_up: int = Field(40, description="Values before a signal is watched.", ge=20, le=1000)
    drift_scalar_delta: float = Field(0.0075, description="Confidence of ADWIN; lower is less sensitive.", gt=0, lt=1)
    drift_idle_days: float = Field(14, description="A segment without events for so long is forgotten.", gt=0)
    drift_checkpoint_s: float = Field(
        1.0, description="Seconds between two writes of the changed segments to the changelog.", gt=0, le=10
    )

    def parameters(self) -> Parameters:
        """Return the detectors' parameters."""
        return Parameters(
            topic=TopicParameters(reference=self.drift_topic_reference, threshold=self.drift_topic_threshold),
            scalar=ScalarParameters(warm_up=self.drift_scalar_warm_up, delta=self.drift_scalar_delta),
            idle=timedelta(days=self.drift_idle_days),
        )
