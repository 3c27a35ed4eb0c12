"""Settings of alerting, beside those of every service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
from penstock.settings import ServiceSettings
from pydantic import Field, SecretStr, field_validator

from services.alerting.core import Policy, Silence

__all__ = ["Settings"]


class Settings(ServiceSettings):
    """What alerting reads from the environment."""

    alert_webhook_url: SecretStr | None = Field(
        None, description="Where alerts are posted, http or https; unset: they are printed to stdout."
    )
    alert_webhook_secret: SecretStr | None = Field(
        None, description="Signs the webhook's body (HMAC-SHA-256); unset: it is sent unsigned."
    )
    alert_webhook_timeout_s: float = Field(10.0, description="Longest time of one try.", gt=0, le=120)
    alert_webhook_retry_s: float = Field(
        300.0, description="Time after which no further try is begun and the delivery is dead.", ge=0
    )
    alert_runbook_base_url: str = Field("", description="Put before the runbooks' paths; empty leaves the paths.")
    alert_group_wait_s: float = Field(
        2.0, description="How long an alert waits for others of its team and kind, to be sent together.", ge=0, le=300
    )
    alert_group_most: int = Field(20, description="Most alerts of one delivery.", ge=1, le=500)
    alert_window_s: float = Field(3600.0, description="Repetitions within this are suppressed.", ge=0)
    alert_max_age_s: float = Field(86_400.0, description="Older alerts are suppressed as stale.", gt=0)
    alert_silences: list[dict[str, Any]] = Field(
        [],
        description='JSON list of {"match": {field: pattern}, "until": ISO time with zone, "reason": text}; fields are '
        "kind, name, severity, team, fingerprint and the alert's labels.",
    )
    alert_concurrency: int = Field(64, description="Alerts in flight at once in this process.", ge=2, le=1024)

    @field_validator("alert_webhook_url")
    @classmethod
    def _http(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("is no http:// or https:// address")
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

    def policy(self) -> Policy:
        """Return what is held back."""
        return Policy(
            window=timedelta(seconds=self.alert_window_s),
            max_age=timedelta(seconds=self.alert_max_age_s),
            silences=_parsed(self.alert_silences),
        )


def _parsed(value: list[dict[str, Any]]) -> tuple[Silence, ...]:
    try:
        return msgspec.convert(value, tuple[Silence, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"is no list of silences: {error}") from error
