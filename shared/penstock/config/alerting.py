"""Where alerts go: receivers, the routes that lead to them, who is called when nobody answers."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from penstock.config.entry import Entry, FieldError, Name, Part

__all__ = ["AlertRoute", "Alerting", "Escalation", "Receiver"]

_SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")


def _variable(value: str) -> str:
    if not _SECRET_NAME.fullmatch(value):
        raise ValueError(
            "must be the name of an environment variable (capitals, digits and '_'): the secret itself has no place in "
            "the configuration, which everyone may read"
        )
    return value


def _mailbox(value: str) -> str:
    if not re.fullmatch(r"[^@\s<>,;]+@[^@\s<>,;]+", value):
        raise ValueError("must be one address such as oncall@example.com")
    return value


Variable = Annotated[str, AfterValidator(_variable)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]


class Receiver(Part):
    """Someone, or something, that alerts are delivered to. Addresses that are secrets, and secrets, are read from the
    environment of alerting: the configuration names the variable."""

    name: Name = Field(description="Name of the receiver, as routes call it.")
    type: Literal["webhook", "slack", "pagerduty", "alertmanager", "email", "console"] = Field(
        description="How it is spoken to."
    )
    url: str | None = Field(
        default=None,
        description="Where to post, http or https: the address of a webhook or of Alertmanager (without /api/v2/alerts); "
        "for pagerduty the events API, where it is not PagerDuty's own; for email smtp:// or smtps:// with host and port.",
    )
    url_env: Variable | None = Field(default=None, description="Variable that holds url, where it is a secret (Slack).")
    secret_env: Variable | None = Field(
        default=None,
        description="Variable that holds the signing secret of a webhook, the routing key of PagerDuty, the password of "
        "the mail account, or the bearer token of Alertmanager.",
    )
    username: str | None = Field(default=None, description="Account at the mail server.")
    sender: Mailbox | None = Field(default=None, description="From whom e-mail comes.")
    to: tuple[Mailbox, ...] = Field(default=(), description="To whom e-mail goes.")
    timeout_s: float = Field(default=10.0, gt=0, le=120, description="Longest time of one try, seconds.")
    retry_for_s: float = Field(
        default=21_600.0, ge=0, le=604_800, description="Time after which no further try is begun, seconds."
    )
    send_resolved: bool = Field(default=True, description="Whether it is told when a condition has ended.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.url is not None and self.url_env is not None:
            raise FieldError(("url_env",), "stands beside url: give one of them")
        if self.type in {"webhook", "slack", "alertmanager"} and self.url is None and self.url_env is None:
            raise FieldError(("url",), f"is missing: a receiver of type {self.type} needs it, or url_env")
        if self.url is not None:
            schemes = {"smtp", "smtps"} if self.type == "email" else {"http", "https"}
            parts = urlsplit(self.url)
            if parts.scheme not in schemes or not parts.hostname:
                raise FieldError(
                    ("url",),
                    f"must begin with {' or '.join(f'{scheme}://' for scheme in sorted(schemes))} and name a host",
                )
            if parts.username or parts.password:
                raise FieldError(
                    ("url",), "holds credentials: put the whole address into a variable and name it in url_env"
                )
        if self.type == "pagerduty" and self.secret_env is None:
            raise FieldError(("secret_env",), "is missing: PagerDuty needs the integration's routing key")
        if self.type == "email":
            if not self.to or self.sender is None:
                raise FieldError(("to",), "and sender are needed by a receiver of type email")
            if self.url is None and self.url_env is None:
                raise FieldError(("url",), "is missing: name the mail server, such as smtp://mail.example.com:587")
        return self


class Escalation(Part):
    """Who is told when nobody has acknowledged an alert."""

    after_s: float = Field(gt=0, le=604_800, description="Seconds after the first delivery.")
    receivers: tuple[Name, ...] = Field(min_length=1, description="Receivers that are told then.")
    severity: Literal["info", "warning", "critical"] = Field(
        default="warning", description="Alerts below this severity are not escalated."
    )


class AlertRoute(Part):
    """Which alerts go where, together with which others, and how often. The first route that matches counts."""

    match: dict[str, str] = Field(
        default_factory=dict,
        description="Patterns (* and ?) by kind, name, severity, team, fingerprint or label; all must match. Empty "
        "matches every alert.",
    )
    receivers: tuple[Name, ...] = Field(
        default=(), description="Receivers; none drops the alerts, which stay on record."
    )
    group_by: tuple[str, ...] = Field(
        default=("team", "kind"), description="Alerts that agree in these fields are sent together."
    )
    group_wait_s: float = Field(default=10.0, ge=0, le=3600, description="How long the first alert of a group waits.")
    group_interval_s: float = Field(
        default=60.0, ge=0, le=86_400, description="How long later alerts of the same group are gathered."
    )
    repeat_interval_s: float = Field(
        default=14_400.0, ge=60, le=2_592_000, description="How often a condition that goes on is told again."
    )
    most_per_hour: int = Field(
        default=60, ge=1, description="Messages to one receiver in an hour; what is beyond is told in one summary."
    )
    resolve_after_s: float | None = Field(
        default=None,
        gt=0,
        le=2_592_000,
        description="An alert that was not raised again for so long is resolved; null: never by time.",
    )
    escalate: tuple[Escalation, ...] = Field(default=(), description="Who is told when nobody acknowledges, in steps.")

    def covers(self, fields: dict[str, str]) -> bool:
        """Tell whether an alert with these fields takes this route."""
        return all(name in fields and fnmatchcase(fields[name], pattern) for name, pattern in self.match.items())


class Alerting(Entry):
    """How the alerts of a team reach on-call. The entry ``default`` is for every team that has none of its own name."""

    KIND: ClassVar[str] = "alerting"

    name: Name = Field(description="default, or the name of a team.")
    receivers: tuple[Receiver, ...] = Field(min_length=1, description="Who can be told.")
    routes: tuple[AlertRoute, ...] = Field(min_length=1, description="Which alerts go where; the first match counts.")

    @property
    def key(self) -> str:
        return self.name

    def receiver(self, name: str) -> Receiver:
        """Return a receiver by name.

        Raises:
            KeyError: there is none; :meth:`_check` keeps routes from naming it.
        """
        for each in self.receivers:
            if each.name == name:
                return each
        raise KeyError(name)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.name for each in self.receivers]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("receivers", index, "name"), f"{name!r} is taken by another receiver")
        for index, route in enumerate(self.routes):
            for position, name in enumerate(route.receivers):
                if name not in names:
                    raise FieldError(
                        ("routes", index, "receivers", position),
                        f"names {name!r}; the receivers are {', '.join(names)}",
                    )
            for step, escalation in enumerate(route.escalate):
                for position, name in enumerate(escalation.receivers):
                    if name not in names:
                        raise FieldError(
                            ("routes", index, "escalate", step, "receivers", position),
                            f"names {name!r}; the receivers are {', '.join(names)}",
                        )
            if not route.match and index < len(self.routes) - 1:
                raise FieldError(
                    ("routes", index, "match"), "is empty, so no alert reaches the routes after it: put it last"
                )
        return self
