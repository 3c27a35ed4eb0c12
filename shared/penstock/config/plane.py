"""The configuration as a service sees it: dictionaries in memory that follow the ``config-*`` topics."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

from pydantic import ValidationError

from penstock.bus.following import EndNotReached, Following
from penstock.bus.types import Message, Transport
from penstock.clock import Clock, SystemClock
from penstock.config.canaries import CanaryExperiment, canary_experiment, canary_name
from penstock.config.kinds import (
    KINDS,
    Adapter,
    Alerting,
    ApiKey,
    EnergyFigures,
    Entry,
    Evaluator,
    Experiment,
    Policy,
    Price,
    Prompt,
    Route,
    Rubric,
    Team,
)
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import ConfigEntry
from penstock.telemetry import get_logger

__all__ = ["TOPICS", "ConfigError", "ConfigPlane", "parse_entry"]

log = get_logger(__name__)

TOPICS = tuple(f"config-{kind}" for kind in KINDS)
"""Topics of the configuration, one a kind."""


_ALWAYS = datetime.min.replace(tzinfo=UTC)


class ConfigError(Exception):
    """The configuration cannot be read; the message names the cause and the remedy."""


def parse_entry(record: ConfigEntry) -> Entry:
    """Return the entry in ``record``, validated.

    Raises:
        ValueError: the kind is unknown, the content does not validate, or the version is not the content's hash.
    """
    if record.kind not in KINDS:
        raise ValueError(f"unknown kind {record.kind!r}; there are {', '.join(KINDS)}")
    try:
        entry = KINDS[record.kind].model_validate_json(record.content)
    except ValidationError as error:
        causes = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'entry'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"content of {record.kind}/{record.name} is invalid: {causes}") from error
    if entry.version != record.version:
        raise ValueError(
            f"{record.kind}/{record.name} says version {record.version}, its content hashes to {entry.version}: "
            "publish it with `penstock config apply`"
        )
    return entry


class ConfigPlane:
    """The live configuration. Look-ups are reads of dictionaries: no I/O, no await, no copy.

    Fill it from the log with :meth:`open` and keep it current with :meth:`follow`; tests use :meth:`of`.
    """

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self._prices: dict[str, tuple[list[datetime], list[Price]]] = {}
        self._canaries: dict[str, CanaryExperiment] = {}
        self._source: Following | None = None

    @classmethod
    def of(cls, entries: Iterable[Entry] | Mapping[str, Iterable[Entry]]) -> ConfigPlane:
        """Return a plane that holds ``entries`` (or the values of a mapping of them by kind)."""
        plane = cls()
        for item in entries.values() if isinstance(entries, Mapping) else [entries]:
            for entry in item:
                if isinstance(entry, Prompt):
                    for label in entry.labels:
                        plane.put(f"{entry.name}@{label}", entry)
                plane.put(entry.key, entry)
        return plane

    def team(self, name: str) -> Team | None:
        """The team ``name``, or None."""
        return cast("Team | None", self._entries["teams"].get(name))

    def route(self, name: str) -> Route | None:
        """The route ``name``, or None."""
        return cast("Route | None", self._entries["routes"].get(name))

    def policy(self, name: str) -> Policy | None:
        """The policy ``name``, or None."""
        return cast("Policy | None", self._entries["policies"].get(name))

    def prompt(self, name: str, label: str = "production") -> Prompt | None:
        """The version of the prompt ``name`` that ``label`` (or a version's content hash) points at, or None."""
        return cast("Prompt | None", self._entries["prompts"].get(f"{name}@{label}"))

    def alerting(self, team: str) -> Alerting | None:
        """How the alerts of ``team`` reach on-call: its own entry, else ``default``, else None."""
        entries = self._entries["alerting"]
        return cast("Alerting | None", entries.get(team) or entries.get("default"))

    def evaluator(self, name: str) -> Evaluator | None:
        """How the evaluator ``name`` is used, or None: as it ships."""
        return cast("Evaluator | None", self._entries["evaluators"].get(name))

    def rubric(self, name: str) -> Rubric | None:
        """The rubric ``name``, or None."""
        return cast("Rubric | None", self._entries["rubrics"].get(name))

    def experiment(self, name: str) -> Experiment | None:
        """The experiment ``name``, or None; that of a route's canary goes by ``canary:ROUTE``."""
        return self._canaries.get(name) or cast("Experiment | None", self._entries["experiments"].get(name))

    def canaries(self) -> list[CanaryExperiment]:
        """The experiments that canaries of routes are, by name."""
        return [canary for _, canary in sorted(self._canaries.items())]

    def experiments(self, team: str) -> list[Experiment]:
        """Every experiment of ``team``, by name."""
        found = [cast("Experiment", entry) for _, entry in sorted(self._entries["experiments"].items())]
        return [experiment for experiment in found if experiment.team == team]

    @property
    def has_experiments(self) -> bool:
        """Whether there is any experiment, of a team or of a route's canary."""
        return bool(self._entries["experiments"] or self._canaries)

    def adapter(self, name: str) -> Adapter | None:
        """The adapter ``name``, or None."""
        return cast("Adapter | None", self._entries["adapters"].get(name))

    def energy(self, model: str) -> EnergyFigures | None:
        """What is stated of the energy of ``model``, else of any model, else None."""
        entries = self._entries["energy"]
        return cast("EnergyFigures | None", entries.get(model) or entries.get("*"))

    def api_key(self, key_id: str) -> ApiKey | None:
        """The API key ``key_id``, in force or not, or None."""
        return cast("ApiKey | None", self._entries["keys"].get(key_id))

    def price(self, model: str, at: datetime) -> Price | None:
        """The price of ``model`` in force at ``at``, or None: an unknown price is never zero."""
        instants, prices = self._prices.get(model, ([], []))
        position = bisect_right(instants, at)
        return prices[position - 1] if position else None

    def prices(self, model: str, since: datetime, until: datetime) -> list[Price]:
        """Every price of ``model`` that is in force between two instants, oldest first; empty where one is unknown."""
        instants, prices = self._prices.get(model, ([], []))
        first, last = bisect_right(instants, since), bisect_right(instants, until)
        return prices[first - 1 : last] if first else []

    def version(self, kind: str, key: str) -> str | None:
        """Content hash of an entry by its key (of a prompt: ``<name>@<label>``), or None."""
        entry = self._entries[kind].get(key)
        return entry.version if entry is not None else None

    def entries(self, kind: str) -> Mapping[str, Entry]:
        """Every entry of a kind by its key."""
        return self._entries[kind]

    def put(self, key: str, entry: Entry) -> None:
        """Set the entry under ``key``. A key that is revoked stays so: who rotated it at that moment did not know."""
        if isinstance(entry, ApiKey) and (known := self.api_key(key)) is not None and known.revoked_at is not None:
            return
        self._entries[entry.KIND][key] = entry
        if isinstance(entry, Price):
            self._index(entry.model)
        elif isinstance(entry, Route):
            self._on_trial(entry.name, canary_experiment(entry))

    def withdraw(self, kind: str, key: str) -> None:
        """Remove the entry under ``key``, if there is one."""
        entry = self._entries[kind].pop(key, None)
        if isinstance(entry, Price):
            self._index(entry.model)
        elif isinstance(entry, Route):
            self._on_trial(entry.name, None)

    def apply(self, record: ConfigEntry) -> None:
        """Take one record over.

        Raises:
            ValueError: it is invalid; the plane is as it was.
        """
        if not record.deleted:
            self.put(record.name, parse_entry(record))
        elif record.kind in KINDS:
            self.withdraw(record.kind, record.name)

    @classmethod
    async def open(
        cls, transport: Transport, codec: Codec, *, timeout_s: float = 30.0, clock: Clock | None = None
    ) -> ConfigPlane:
        """Return a plane that holds everything published so far.

        Raises:
            ConfigError: the end of the topics was not reached within ``timeout_s``.
            penstock.bus.KafkaUnavailable: Kafka is away, or a topic is missing (run `penstock topics apply`).
        """
        plane = cls()
        try:
            plane._source = await Following.open(
                transport,
                TOPICS,
                lambda messages: plane.take(messages, codec),
                timeout_s=timeout_s,
                clock=clock or SystemClock(),
            )
        except EndNotReached as error:
            raise ConfigError(str(error)) from error
        empty = [kind for kind in ("teams", "routes", "policies") if not plane._entries[kind]]
        if empty:
            log.warning("no configuration is published", kinds=empty, remedy="run `penstock config apply`")
        return plane

    async def follow(self, stopping: asyncio.Event | None = None) -> None:
        """Take over what is published from now on, until ``stopping`` is set or the task is cancelled.

        A broker that is away stops nobody: the plane keeps what it has, and the reader goes on when the broker is back.
        """
        if self._source is None:
            raise ConfigError("this configuration was not read from a log: there is nothing to follow")
        await self._source.follow(stopping)

    async def close(self) -> None:
        """Release the connection; what was read stays readable."""
        if self._source is not None:
            await self._source.close()

    def take(self, messages: Iterable[Message], codec: Codec) -> None:
        """Apply ``messages``; what is undecodable or invalid is logged and skipped, and the last good version stays."""
        for message in messages:
            try:
                record = codec.decode(message.topic, message.value)
                self.apply(cast("ConfigEntry", record))
            except (Undecodable, ValueError) as error:
                log.error(
                    "configuration entry skipped; the last good version stays",
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                    key=(message.key or b"").decode(errors="replace"),
                    cause=str(error),
                )

    def _on_trial(self, route: str, canary: CanaryExperiment | None) -> None:
        self._canaries.pop(canary_name(route), None)
        if canary is not None:
            self._canaries[canary.name] = canary

    def _index(self, model: str) -> None:
        prices = [cast("Price", entry) for entry in self._entries["prices"].values()]
        own = sorted((p.effective_from or _ALWAYS, p.key, p) for p in prices if p.model == model)
        if own:
            self._prices[model] = ([instant for instant, _, _ in own], [price for _, _, price in own])
        else:
            self._prices.pop(model, None)
