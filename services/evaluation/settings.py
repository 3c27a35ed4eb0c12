"""Settings of evaluation, beside those of every service."""

from __future__ import annotations

from datetime import timedelta

from penstock.embedding import EmbeddingSettings
from penstock.settings import ServiceSettings
from pydantic import Field

from services.evaluation.core.cost_rules import CacheRateRules, CostWatchRules, SpendRateRules
from services.evaluation.core.watch import WatchRules
from services.evaluation.feedback.settings import FeedbackSettings
from services.evaluation.learning.settings import LearningSettings
from services.evaluation.toxicity import Mode

__all__ = ["Settings"]


class Settings(FeedbackSettings, LearningSettings, EmbeddingSettings, ServiceSettings):
    """What evaluation reads from the environment."""

    # No request waits for this service: on a full machine it lets those go first that one waits for.
    gather_ms: int = Field(25, description="How long messages are gathered, in and out.", ge=0, le=5000)
    niceness: int = Field(10, description="How far the process steps back for others, as of nice(1).", ge=0, le=19)

    toxicity_severe: float = Field(
        0.95, description="Score of a single text that alerts, where its team sets none.", gt=0, le=1
    )
    toxicity_rate: float = Field(0.1, description="Share of toxic texts that alerts.", gt=0, le=1)
    toxicity_rate_texts: int = Field(50, description="Texts the window must hold before the share counts.", ge=1)
    toxicity_window_s: float = Field(600.0, description="Window of the share, seconds of event time.", ge=60)
    alert_repeat_s: float = Field(600.0, description="An alert about one condition is not repeated before.", ge=0)
    spend_rate_factor: float = Field(
        2.0, description="Spending is an anomaly from this many times the usual rate of the hour of the week.", gt=1
    )
    spend_rate_excess: float = Field(0.05, description="And so much above it, USD an hour.", ge=0)
    cache_rate_fall: float = Field(0.1, description="Fall of a cache's hit rate that alerts, absolute.", gt=0, le=1)
    cache_rate_cost: float = Field(1.0, description="And costs so much, USD a day.", ge=0)
    toxicity_mode: Mode = Field(
        "cascade",
        description="Texts whose meaning is embedded beside their words: none (hashed), those that their words leave open "
        "(cascade), or all (embedded).",
    )
    evaluator_modules: str = Field(
        "", description="Importable modules with evaluators of the teams' own, separated by commas."
    )
    checkpoint_interval_s: float = Field(0.2, description="Longest time between two checkpoints.", gt=0, le=10)

    def cost_watch_rules(self) -> CostWatchRules:
        """Return the parameters of the watches over costs."""
        return CostWatchRules(
            spend_rate=SpendRateRules(factor=self.spend_rate_factor, least_excess=self.spend_rate_excess),
            cache_rate=CacheRateRules(least_fall=self.cache_rate_fall, least_cost=self.cache_rate_cost),
        )

    def watch_rules(self) -> WatchRules:
        """Return when toxic texts are an alert."""
        return WatchRules(
            severe_from=self.toxicity_severe,
            rate_from=self.toxicity_rate,
            rate_texts=self.toxicity_rate_texts,
            window=timedelta(seconds=self.toxicity_window_s),
            repeat_after=timedelta(seconds=self.alert_repeat_s),
        )
