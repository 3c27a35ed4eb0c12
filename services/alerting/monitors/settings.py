"""Settings of the monitors, beside those of alerting."""

from __future__ import annotations

from penstock.settings import ServiceSettings
from pydantic import Field, model_validator

from services.alerting.monitors.conditions import Pace
from services.alerting.monitors.dlq import DlqRules
from services.alerting.monitors.health import HealthRules
from services.alerting.monitors.lag import LagRules

__all__ = ["MonitorSettings"]


class MonitorSettings(ServiceSettings):
    """What the monitors read from the environment. Durations are in seconds."""

    monitor_enabled: bool = Field(True, description="Whether this process may watch the platform.")
    monitor_interval_s: float = Field(15.0, description="Time between two looks at the cluster.", ge=1, le=300)
    monitor_repeat_s: float = Field(
        3600.0, description="How often a condition that goes on is raised again, with its present figures.", ge=60
    )
    monitor_ignored_groups: tuple[str, ...] = Field(
        (),
        description="JSON list of consumer groups, patterns (* and ?), that are not watched: "
        '["guardrails-stream"]; the name of a service stands for one that is not deployed.',
    )
    monitor_dlq_window_s: float = Field(600.0, description="Dead letters are counted over this.", ge=60, le=3600)
    monitor_dlq_warning: int = Field(5, description="Dead letters in the window that make it a warning.", ge=1)
    monitor_dlq_critical: int = Field(50, description="Dead letters in the window that make it critical.", ge=1)
    monitor_lag_s: float = Field(
        300.0, description="Age of a group's oldest unread message from which it lags, unless it catches up.", gt=0
    )
    monitor_lag_critical_s: float = Field(1800.0, description="Age from which that is critical.", gt=0)
    monitor_stuck_s: float = Field(
        300.0, description="Time without progress on a partition with unread messages.", ge=30
    )
    monitor_absent_s: float = Field(60.0, description="Time that a group may be without members: a restart.", ge=0)
    monitor_rebalance_s: float = Field(180.0, description="Time that a group may take to settle.", ge=10)
    monitor_unreachable_s: float = Field(
        30.0, description="Time that Redis or the registry may be away, or a topic missing.", ge=0
    )
    monitor_clock_s: float = Field(60.0, description="How far a message's time may lie ahead of ours.", ge=1)

    @model_validator(mode="after")
    def _ascending(self) -> MonitorSettings:
        if self.monitor_dlq_critical < self.monitor_dlq_warning:
            raise ValueError("MONITOR_DLQ_CRITICAL is below MONITOR_DLQ_WARNING: nothing would be a warning")
        if self.monitor_lag_critical_s < self.monitor_lag_s:
            raise ValueError("MONITOR_LAG_CRITICAL_S is below MONITOR_LAG_S: nothing would be a warning")
        return self

    def pace(self) -> Pace:
        """Return how often conditions are told."""
        return Pace(repeat_s=self.monitor_repeat_s)

    def dlq_rules(self) -> DlqRules:
        """Return when dead letters are told."""
        return DlqRules(
            window_s=self.monitor_dlq_window_s, warning=self.monitor_dlq_warning, critical=self.monitor_dlq_critical
        )

    def lag_rules(self) -> LagRules:
        """Return when a group lags or stands still."""
        return LagRules(late_s=self.monitor_lag_s, critical_s=self.monitor_lag_critical_s, stuck_s=self.monitor_stuck_s)

    def health_rules(self) -> HealthRules:
        """Return what counts as unwell, and for how long."""
        return HealthRules(
            absent_s=self.monitor_absent_s,
            rebalance_s=self.monitor_rebalance_s,
            unreachable_s=self.monitor_unreachable_s,
            clock_s=self.monitor_clock_s,
        )
