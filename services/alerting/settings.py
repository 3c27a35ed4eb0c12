"""Settings of alerting, beside those of its monitors and of every service."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from penstock.config.alerting import Alerting
from pydantic import Field, SecretStr, field_validator

from services.alerting.destinations import Destinations, Refused
from services.alerting.incidents import Silence
from services.alerting.monitors.settings import MonitorSettings
from services.alerting.routing import built_in

__all__ = ["Settings"]


class _Silence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    match: dict[str, str]
    until: datetime
    reason: str = ""


class Settings(MonitorSettings):
    """What alerting reads from the environment."""

    alert_webhook_url: SecretStr | None = Field(
        None,
        description="Where alerts are posted while no alerting configuration is published, http or https; unset: they are "
        "printed to stdout.",
    )
    alert_webhook_secret: SecretStr | None = Field(
        None, description="Signs that webhook's body (Standard Webhooks); unset: it is sent unsigned."
    )
    alert_webhook_timeout_s: float = Field(10.0, description="Longest time of one try there.", gt=0, le=120)
    alert_webhook_retry_s: float = Field(
        21_600.0,
        description="Time after which no further try is begun there and the delivery is dead.",
        ge=0,
        le=604_800,
    )
    alert_group_wait_s: float = Field(
        2.0, description="How long an alert waits there for others of its team and kind.", ge=0, le=300
    )
    alert_window_s: float = Field(
        14_400.0, description="How often a condition that goes on is told again there.", ge=60, le=2_592_000
    )
    alert_allowed_destinations: list[str] = Field(
        [],
        description="JSON list of where receivers of the configuration may lead: names, *.names, addresses, networks, "
        "name=network; each with :port where only that is meant. Addresses in the environment need not be listed.",
    )
    alert_runbook_base_url: str = Field("", description="Put before the runbooks' paths; empty leaves the paths.")
    alert_group_most: int = Field(100, description="Most alerts of one message.", ge=1, le=500)
    alert_max_age_s: float = Field(86_400.0, description="Older alerts are suppressed as stale.", gt=0)
    alert_silences: list[dict[str, Any]] = Field(
        [],
        description='JSON list of {"match": {field: pattern}, "until": ISO time with zone, "reason": text}; fields are '
        "kind, name, severity, team, fingerprint and the alert's labels.",
    )
    alert_concurrency: int = Field(16, description="Alerts taken in at once in this process.", ge=2, le=1024)
    alert_per_receiver: int = Field(
        4, description="Messages on their way to one receiver at once in this process.", ge=1, le=100
    )
    alert_rebuild_s: float = Field(
        604_800.0,
        description="How far back alerts and deliveries are read when Redis was emptied; incidents that were last raised "
        "before are forgotten then.",
        gt=0,
    )

    @field_validator("alert_webhook_url")
    @classmethod
    def _http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("is no http:// or https:// address")
        return value

    @field_validator("alert_allowed_destinations")
    @classmethod
    def _destinations(cls, value: list[str]) -> list[str]:
        try:
            Destinations(value)
        except Refused as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("alert_silences")
    @classmethod
    def _silences(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for each in _parsed(value):
            if each.until.tzinfo is None:
                raise ValueError(f"until {each.until.isoformat()} has no time zone; append Z for UTC")
            if not each.match:
                raise ValueError('an empty match would silence nothing; name a field, or {"kind": "*"} for everything')
        return value

    def silences(self) -> tuple[Silence, ...]:
        """Return the silences that hold whatever people do."""
        return tuple(
            Silence(f"settings-{index}", each.match, None, each.until, "settings", each.reason)
            for index, each in enumerate(_parsed(self.alert_silences))
        )

    def otherwise(self) -> Alerting:
        """Return where alerts go while no alerting configuration is published."""
        return built_in(
            webhook=self.alert_webhook_url is not None,
            signed=self.alert_webhook_secret is not None,
            timeout_s=self.alert_webhook_timeout_s,
            retry_for_s=self.alert_webhook_retry_s,
            group_wait_s=self.alert_group_wait_s,
            repeat_interval_s=self.alert_window_s,
        )


def _parsed(value: list[dict[str, Any]]) -> tuple[_Silence, ...]:
    try:
        return msgspec.convert(value, tuple[_Silence, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"is no list of silences: {error}") from error
