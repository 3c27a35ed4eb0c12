"""Whose labels are taken, and how far they may move the challenger."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

import msgspec
from penstock.contracts.records import Label

from services.evaluation.learning.betting import suspicion
from services.evaluation.learning.rules import TRUSTED, ClassRules, LearningRules
from services.evaluation.learning.state import Learning, Tally

__all__ = ["Admission", "Suspect", "admitted", "author_slot", "refusing", "source_of", "trusted"]

_USER_SLOTS = 256
_TRUSTED_SLOTS = 64
_FADING = 200.0
"""Trusted labels over which the share of contradicting ones is taken."""
_FEW = 20.0
"""Trusted labels below which their share of contradicting ones says nothing."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Whom on-call is told of: an author or a whole source, and what it did."""

    who: str
    cause: str
    evidence: float


@dataclass(frozen=True, slots=True)
class Admission:
    """What is made of a label.

    Attributes:
        state: with the label counted.
        influence: how far it may move the log-odds of a text; 0 where it is not learned from.
        refused: why it is not; empty where it is.
        suspects: whom on-call is told of.
    """

    state: Learning
    influence: float
    refused: str
    suspects: tuple[Suspect, ...]


def trusted(label: Label) -> bool:
    """Return whether the label counts in the test of the challenger."""
    return label.source in TRUSTED


def source_of(label: Label) -> str:
    """Return the source that a label is counted under; one that is not known counts as users."""
    return label.source if trusted(label) else "user"


def author_slot(label: Label) -> str:
    """Return where the author's labels are counted.

    Authors of a team (those that are not named are one) share a bounded number of slots by hash, so memory is bounded: who
    makes up many authors gets no more than the slots, and two that meet in one share its bounds. Users cannot take the
    slots of the trusted.
    """
    slots, mark = (_TRUSTED_SLOTS, "t") if trusted(label) else (_USER_SLOTS, "u")
    digest = blake2b(f"{source_of(label)}\x1f{label.tenant_id}\x1f{label.author}".encode(), digest_size=4).digest()
    return f"{mark}{int.from_bytes(digest, 'big') % slots}"


def admitted(
    state: Learning, label: Label, contradicts: Callable[[], bool], rules: LearningRules, now: datetime
) -> Admission:
    """Count a label and say how far the challenger may follow it.

    Args:
        state: before it.
        label: the label.
        contradicts: says whether champion and challenger are both confident of the opposite. Not asked of labels over a
            limit: a flood of them costs next to nothing.
        rules: the bounds.
        now: timestamp of the label in the log.
    """
    mark, source, at = author_slot(label), source_of(label), now.timestamp()
    limits = rules.of(trusted(label))
    whole, author = _at(state.sources.get(source), now), _at(state.authors.get(mark), now)
    suspects: list[Suspect] = []
    refused = _over_limit(author, whole, limits, at)
    if refused == "author_rate":
        author = _tell(author, Suspect(_name(label), "rate", author.in_hour), suspects, rules, at)
    elif refused == "source_rate":
        whole = _tell(whole, Suspect(f"source {source}", "rate", whole.in_hour), suspects, rules, at)
    elif not refused:
        against, expected = contradicts(), _expected(state, rules)
        whole, _ = _heard(whole, f"source {source}", against, expected, suspects, rules, at)
        author, suspected = _heard(author, _name(label), against, expected, suspects, rules, at)
        if suspected and not trusted(label):
            refused = "suspected"
            author = msgspec.structs.replace(author, barred_until=at + rules.barred.total_seconds())
        refused = refused or _over_budget(state, author, trusted(label), rules)
    influence = 0.0 if refused else limits.influence
    author = msgspec.structs.replace(author, spent=author.spent + influence)
    state = msgspec.structs.replace(
        state, sources=state.sources | {source: whole}, authors=state.authors | {mark: author}
    )
    if refused:
        return Admission(refusing(state, refused), influence, refused, tuple(suspects))
    group = "trusted" if trusted(label) else "users"
    state = msgspec.structs.replace(
        state,
        spent=state.spent | {group: state.spent.get(group, 0.0) + influence},
        rates=_faded(state.rates, contradicts()) if trusted(label) else state.rates,
        taken=state.taken + 1,
    )
    return Admission(state, influence, "", tuple(suspects))


def refusing(state: Learning, cause: str) -> Learning:
    """Return the state with a label counted that is not learned from."""
    return msgspec.structs.replace(state, refused=state.refused | {cause: state.refused.get(cause, 0) + 1})


def _over_limit(author: Tally, whole: Tally, limits: ClassRules, at: float) -> str:
    if author.barred_until > at:
        return "suspected"
    if author.in_hour >= limits.author_an_hour:
        return "author_rate"
    return "source_rate" if whole.in_hour >= limits.an_hour else ""


def _heard(
    tally: Tally, who: str, against: bool, expected: float, suspects: list[Suspect], rules: LearningRules, at: float
) -> tuple[Tally, bool]:
    """Return the tally with a label more, and whether the evidence against it is enough to suspect it."""
    evidence = suspicion(tally.contradictions, against, expected)
    tally = msgspec.structs.replace(tally, in_hour=tally.in_hour + 1, contradictions=evidence)
    if evidence < rules.suspect_from:
        return tally, False
    tally = _tell(tally, Suspect(who, "contradiction", evidence), suspects, rules, at)
    return msgspec.structs.replace(tally, contradictions=0.0), True


def _over_budget(state: Learning, author: Tally, is_trusted: bool, rules: LearningRules) -> str:
    limits = rules.of(is_trusted)
    if not limits.influence:
        return "no_influence"
    group = state.spent.get("trusted" if is_trusted else "users", 0.0)
    if not is_trusted and group + limits.influence > rules.users_most(state.spent):
        return "users_share"
    most = max(limits.author_floor, limits.author_share * (group + limits.influence))
    return "author_share" if author.spent + limits.influence > most else ""


def _expected(state: Learning, rules: LearningRules) -> float:
    """Return the share of contradicting labels from which somebody differs from what the trusted say themselves."""
    labels, contradictions = state.rates
    share = contradictions / labels if labels >= _FEW else 0.0
    return min(0.9, max(rules.expected_contradictions, 2 * share))


def _faded(rates: tuple[float, float], contradicts: bool) -> tuple[float, float]:
    keep = 1 - 1 / _FADING
    return rates[0] * keep + 1, rates[1] * keep + contradicts


def _at(tally: Tally | None, now: datetime) -> Tally:
    """Return the tally in the hour of ``now``; the log's time may go back a little, an hour that is over does not return."""
    hour = int(now.timestamp() // 3600)
    if tally is None:
        return Tally(hour)
    return tally if hour <= tally.hour else msgspec.structs.replace(tally, hour=hour, in_hour=0)


def _tell(tally: Tally, suspect: Suspect, suspects: list[Suspect], rules: LearningRules, at: float) -> Tally:
    if at - tally.told.get(suspect.cause, -math.inf) < rules.repeat_after.total_seconds():
        return tally
    suspects.append(suspect)
    return msgspec.structs.replace(tally, told=tally.told | {suspect.cause: at})


def _name(label: Label) -> str:
    return f"{source_of(label)} {label.author or '(not named)'} of {label.tenant_id}"
