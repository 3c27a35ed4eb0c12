"""Settings of feedback and annotation."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field

from services.evaluation.feedback.core import FeedbackRules
from services.evaluation.feedback.memory import Limits
from services.evaluation.feedback.picking import PickRules

__all__ = ["FeedbackSettings"]


class FeedbackSettings(BaseModel):
    """What the agent ``feedback`` reads from the environment."""

    feedback_results: int = Field(
        65_536, description="Results a partition remembers for feedback; one costs about 1 kB.", ge=1
    )
    feedback_keep_h: float = Field(168.0, description="Hours a result is remembered.", gt=0)
    feedback_patience_h: float = Field(24.0, description="Hours feedback waits for its result.", gt=0)
    annotation_sample: float = Field(0.01, description="Share of the results annotated at random.", ge=0, le=1)
    annotation_doubly: float = Field(0.2, description="Share of the tasks that two people label.", ge=0, le=1)
    annotation_margin: float = Field(0.1, description="A score so near its threshold is uncertain.", gt=0, le=1)
    annotation_hourly: int = Field(
        5, description="Most tasks of a team, reason, hour and partition; 0 gives nothing to annotators.", ge=0
    )

    def feedback_rules(self) -> FeedbackRules:
        """Return the parameters of the agent."""
        return FeedbackRules(
            limits=Limits(
                slots=self.feedback_results,
                keep=timedelta(hours=self.feedback_keep_h),
                patience=timedelta(hours=self.feedback_patience_h),
            ),
            picking=PickRules(
                sample=self.annotation_sample,
                doubly=self.annotation_doubly,
                margin=self.annotation_margin,
                hourly=self.annotation_hourly,
            ),
        )
