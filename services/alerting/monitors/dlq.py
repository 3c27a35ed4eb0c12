"""Dead letters over time, pure: which service gives up what, how fast, and where it stands in the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from penstock.contracts.records import LogRange, Severity

from services.alerting.monitors.conditions import Finding

__all__ = ["NAMES", "Cause", "DlqRules", "DlqState", "Episode", "Letter", "observe"]

NAMES = frozenset({"dead_letters"})
"""Names of the alerts that are raised here."""

_SAMPLES = 5
_ORIGINS = 4


class DlqRules(msgspec.Struct, frozen=True):
    """When dead letters are told.

    Attributes:
        window_s: letters are counted over this; a cause without one for so long is over.
        warning: letters in the window from which it is a warning; a lone one is information.
        critical: letters in the window from which it is critical.
    """

    window_s: float = 600.0
    warning: int = 5
    critical: int = 50


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter, without the message it is about.

    Attributes:
        place: where it stands.
        written_at: when it was written, by its own time.
        origin: where the message stands that was given up.
        request_id: the message's request, empty where it cannot be read.
    """

    place: LogRange
    written_at: datetime
    service: str
    code: str
    origin: LogRange
    reason: str
    request_id: str = ""


class Cause(NamedTuple):
    """What dead letters are counted by."""

    service: str
    code: str
    origin_topic: str


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """The letters of one cause since it began.

    Attributes:
        minutes: letters by minute (Unix time / 60), ascending, of the window alone.
        place: first to last letter in the service's DLQ.
        origins: where the newest given-up messages stand.
        samples: their requests.
        reason: of the newest letter.
    """

    minutes: tuple[tuple[int, int], ...]
    total: int
    place: LogRange
    origins: tuple[LogRange, ...]
    samples: tuple[str, ...]
    reason: str

    def within(self, rules: DlqRules, now: datetime) -> int:
        """Return the letters in the window that ends now."""
        oldest = (now.timestamp() - rules.window_s) / 60
        return sum(count for minute, count in self.minutes if minute >= oldest)


DlqState = Mapping[Cause, Episode]
"""What is counted; constant size per cause."""


def observe(
    state: DlqState, letters: Sequence[Letter], rules: DlqRules, now: datetime
) -> tuple[DlqState, list[Finding]]:
    """Count ``letters`` and return what holds now.

    A letter that was written before the window counts as now: it was waiting while nobody looked.
    """
    episodes = dict(state)
    for letter in letters:
        cause = Cause(letter.service, letter.code, letter.origin.topic)
        episodes[cause] = _counted(episodes.get(cause), letter, rules, now)
    kept = {cause: episode for cause, episode in episodes.items() if episode.within(rules, now)}
    return kept, [_finding(cause, episode, rules, now) for cause, episode in sorted(kept.items())]


def _counted(episode: Episode | None, letter: Letter, rules: DlqRules, now: datetime) -> Episode:
    written = letter.written_at
    at = written if timedelta() <= now - written <= timedelta(seconds=rules.window_s) else now
    minute = int(at.timestamp() // 60)
    samples = (letter.request_id,) if letter.request_id else ()
    if episode is None:
        return Episode(
            minutes=((minute, 1),),
            total=1,
            place=letter.place,
            origins=(letter.origin,),
            samples=samples,
            reason=letter.reason,
        )
    oldest = (now.timestamp() - rules.window_s) / 60
    counts = {number: count for number, count in episode.minutes if number >= oldest}
    counts[minute] = counts.get(minute, 0) + 1
    place = episode.place
    if place.partition == letter.place.partition:
        place = msgspec.structs.replace(place, last_offset=max(place.last_offset, letter.place.last_offset))
    else:  # a topic of more than one partition: the newest letter's is as good a place to begin as any
        place = letter.place
    return Episode(
        minutes=tuple(sorted(counts.items())),
        total=episode.total + 1,
        place=place,
        origins=_joined(episode.origins, letter.origin),
        samples=(*[each for each in episode.samples if each not in samples], *samples)[-_SAMPLES:],
        reason=letter.reason,
    )


def _joined(ranges: tuple[LogRange, ...], new: LogRange) -> tuple[LogRange, ...]:
    last = ranges[-1]
    if (last.topic, last.partition) == (new.topic, new.partition) and new.first_offset == last.last_offset + 1:
        return (*ranges[:-1], msgspec.structs.replace(last, last_offset=new.last_offset))
    return (*ranges, new)[-_ORIGINS:]


def _finding(cause: Cause, episode: Episode, rules: DlqRules, now: datetime) -> Finding:
    count = episode.within(rules, now)
    severity = (
        Severity.CRITICAL if count >= rules.critical else Severity.WARNING if count >= rules.warning else Severity.INFO
    )
    service, code, origin = cause
    return Finding(
        kind="dlq",
        name="dead_letters",
        subject=cause,
        severity=severity,
        title=f"{service} gave up {count} message{'s' if count > 1 else ''} of {origin}: {code}",
        description=(
            f"{count} message(s) of {origin} went to dlq-{service} with {code} within {rules.window_s / 60:g} minutes, "
            f"{episode.total} since this began. The newest says: {episode.reason}"
        ),
        suggested_action=(
            f"Read them with `penstock dlq show {service}`; mend the cause; then `penstock dlq replay {service} "
            f"--code {code}`. If a release of {service} or of a writer of {origin} came with it, roll that back."
        ),
        labels={"service": service, "code": code, "topic": origin},
        figures={
            "letters": float(count),
            "per_minute": round(count / (rules.window_s / 60), 3),
            "total": float(episode.total),
        },
        evidence=(episode.place, *episode.origins),
        samples=episode.samples,
        clear_s=rules.window_s / 2,
    )
