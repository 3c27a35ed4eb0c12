"""What the agent remembers of requests: a table of slots, each a few requests wide, so that memory has a bound. Pure.

A request has :data:`CHOICES` slots by the hash of its team and id, and takes the one that is free or holds the oldest
result: so nearly the oldest of all is displaced first, and hardly anything while there is room. One request whose result is
known holds a slot until its time is over or another's result comes; beside it up to :data:`WAITING` requests wait of which
scores or feedback came before the result. What waits never displaces a result: feedback on ids that do not exist cannot make
the agent forget.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, Evaluation, LlmResult, Passage

from services.evaluation.exchanges import QUALITY
from services.evaluation.feedback.opinions import Opinion

__all__ = [
    "CHOICES", "EARLY", "HEARD", "OPINIONS", "TEXT_CHARS", "WAITING", "Arrived", "Entry", "Heard", "Kept", "Limits", "Said",
    "Slot", "Taken", "heard", "kept", "overdue", "packed", "place", "slots_of", "swept", "take", "unpacked",
]  # fmt: skip

CHOICES = 8
"""Slots that a request may take."""
WAITING = 4
"""Requests without a result that one slot holds."""
OPINIONS = 16
"""Feedback events of one request that are kept for scores which come later."""
EARLY = 8
"""Feedback events of one request that wait for its result."""
HEARD = 8
"""Evaluation events of one request that are kept for feedback which comes later."""
TEXT_CHARS = 4_000
"""Characters kept of the prompt, of the answer, and of all passages together."""


class Said(msgspec.Struct, frozen=True, array_like=True):
    """What an evaluator said of a text."""

    score: float
    label: str
    version: str = ""


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """The scores of one evaluation event, by ``subject.name``.

    Attributes:
        completion: event_id of the answer that was scored before its release; empty where scores are of the result or of a
            judge's.
    """

    event_id: str
    said: dict[str, Said]
    completion: str = ""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a result: whose and of what it is, its texts as they were released, and the cache that answered."""

    event_id: str
    context: Context
    status: str
    model: str | None
    prompt: str = ""
    content: str = ""
    citations: list[Passage] = []
    cached_by: str = ""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One request.

    Attributes:
        until: when it is forgotten, seconds since the epoch.
        result: the packed :class:`Kept`; empty until the result has come.
        heard: in the order in which they came, at most :data:`HEARD`.
        opinions: likewise, at most :data:`OPINIONS`, or :data:`EARLY` while it waits.
        picked: whether it was given to annotators.
        completion: event_id of the answer that was released; empty until the result has come.
    """

    team: str
    request_id: str
    until: float
    result: bytes = b""
    heard: tuple[Heard, ...] = ()
    opinions: tuple[Opinion, ...] = ()
    picked: bool = False
    completion: str = ""

    @property
    def scores(self) -> list[Heard]:
        """What is said of what was released: an answer that was asked for again has scores of its own, and none here."""
        return [each for each in self.heard if each.completion in ("", self.completion)]


class Slot(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The requests of one slot."""

    joined: Entry | None = None
    waiting: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the memory.

    Attributes:
        slots: of one partition; so many results are remembered at most.
        keep: how long a result is remembered for feedback and scores that come later.
        patience: how long feedback and scores wait for their result, by the time of the results.
    """

    slots: int = 65_536
    keep: timedelta = timedelta(days=7)
    patience: timedelta = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Arrived:
    """Something about a request; one of the three is there."""

    team: str
    request_id: str
    result: bytes = b""
    completion: str = ""
    """event_id of the answer that the result releases; with ``result``."""
    heard: Heard | None = None
    opinion: Opinion | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A slot with something new in it.

    Attributes:
        entry: the request that it is about, as it stands now.
        before: as it stood before; ``None`` where nothing was known.
        fallen: feedback whose result had not come when its time or its place was lost.
    """

    slot: Slot
    entry: Entry
    before: Entry | None
    fallen: tuple[tuple[Entry, Opinion], ...] = ()


def slots_of(team: str, request_id: str, slots: int) -> tuple[str, ...]:
    """Return the keys of the slots that a request may take. Two teams may use the same id."""
    digest = blake2b(f"{team}/{request_id}".encode(), digest_size=4 * CHOICES).digest()
    return tuple(f"slot/{number % slots}" for number in struct.unpack(f">{CHOICES}I", digest))


def place(keys: Sequence[str], lookup: Callable[[str], Any], team: str, request_id: str, now: datetime) -> str:
    """Return the slot that a request has, else the one that it takes.

    Args:
        keys: of the slots that it may take.
        lookup: reads the slot of a key; ``None`` where it is empty.
    """
    at = now.timestamp()
    best, rank = keys[0], (WAITING + 1, 0.0)
    for key in keys:
        slot: Slot | None = lookup(key)
        if slot is None:
            found = 0, 0.0
        elif any(_is(each, team, request_id) for each in (slot.joined, *slot.waiting)):
            return key
        else:
            found = len(slot.waiting), slot.joined.until if slot.joined is not None and slot.joined.until >= at else 0.0
        if found < rank:
            best, rank = key, found
    return best


def kept(result: LlmResult) -> Kept:
    """Return what is kept of a result."""
    left, citations = TEXT_CHARS, []
    for passage in result.citations:
        if left <= 0:
            break
        citations.append(msgspec.structs.replace(passage, text=passage.text[:left]))
        left -= len(passage.text)
    return Kept(
        event_id=result.event_id,
        context=result.context,
        status=result.status,
        model=result.model,
        prompt=result.prompt[:TEXT_CHARS],
        content=result.content[:TEXT_CHARS],
        citations=citations,
        cached_by=result.cached_by or "",
    )


def packed(one: Kept) -> bytes:
    """Return the compressed bytes of what is kept of a result."""
    return zlib.compress(msgspec.msgpack.encode(one))


def unpacked(result: bytes) -> Kept:
    """Return what :func:`packed` packed."""
    return msgspec.msgpack.decode(zlib.decompress(result), type=Kept)


def heard(evaluation: Evaluation) -> Heard | None:
    """Return the scores of an evaluation; ``None`` where it has none of a prompt or an answer."""
    said = {
        f"{score.subject}.{score.name}": Said(score.score, score.label, score.version)
        for score in evaluation.scores
        if score.subject in ("prompt", "answer")
    }
    cause = evaluation.causation_id
    completion = cause if evaluation.event_id == event_id(cause, QUALITY, 0) else ""
    return Heard(evaluation.event_id, said, completion) if said else None


def take(slot: Slot | None, arrived: Arrived, now: datetime, limits: Limits) -> Taken:
    """Return the slot with what arrived."""
    at = now.timestamp()
    slot, fallen = swept(slot or Slot(), now, by_results=bool(arrived.result))
    joined, waiting = slot.joined, slot.waiting
    before = next((each for each in (joined, *waiting) if _is(each, arrived.team, arrived.request_id)), None)
    entry = before or Entry(arrived.team, arrived.request_id, at + limits.patience.total_seconds())
    was_joined = bool(entry.result)
    entry, too_many = _merged(entry, arrived)
    fallen = (*fallen, *((entry, each) for each in too_many))
    others = tuple(each for each in waiting if each is not before)
    if not entry.result:
        others = (*others, entry)
        if len(others) > WAITING:
            fallen = (*fallen, *((others[0], each) for each in others[0].opinions))
            others = others[1:]
        return Taken(Slot(joined, others), entry, before, fallen)
    if not was_joined:
        # Their dead letters are no longer needed.
        said = tuple(msgspec.structs.replace(each, value=b"", key=b"") for each in entry.opinions)
        entry = msgspec.structs.replace(entry, until=at + limits.keep.total_seconds(), opinions=said)
    return Taken(Slot(entry, others), entry, before, fallen)


def swept(slot: Slot, now: datetime, *, by_results: bool) -> tuple[Slot, tuple[tuple[Entry, Opinion], ...]]:
    """Return a slot without what is overdue, and the feedback that was lost with it.

    The topics are read side by side, and after an outage one may be days ahead of another. What waits for its result has
    waited long enough only when the results themselves (``by_results``) have come so far.
    """
    at = now.timestamp()
    joined = slot.joined if slot.joined is not None and slot.joined.until >= at else None
    late = [each for each in slot.waiting if by_results and each.until < at]
    if joined is slot.joined and not late:
        return slot, ()
    left = Slot(joined, tuple(each for each in slot.waiting if each not in late))
    return left, tuple((each, one) for each in late for one in each.opinions)


def overdue(slot: Slot, now: datetime) -> bool:
    """Tell whether feedback stands in a slot whose result should have come before this result."""
    return any(each.opinions and each.until < now.timestamp() for each in slot.waiting)


def _is(entry: Entry | None, team: str, request_id: str) -> bool:
    return entry is not None and entry.request_id == request_id and entry.team == team


def _merged(entry: Entry, arrived: Arrived) -> tuple[Entry, tuple[Opinion, ...]]:
    """Return a request with what arrived, and feedback that waits and has no more room."""
    if arrived.result:
        if entry.result:
            return entry, ()
        return msgspec.structs.replace(entry, result=arrived.result, completion=arrived.completion), ()
    new = arrived.heard
    if new is not None and all(each.event_id != new.event_id for each in entry.heard):
        return msgspec.structs.replace(entry, heard=(*entry.heard, new)[-HEARD:]), ()
    opinion = arrived.opinion
    if opinion is None or any(each.event_id == opinion.event_id for each in entry.opinions):
        return entry, ()
    if entry.result:
        opinion = msgspec.structs.replace(opinion, value=b"", key=b"")
    opinions = (*entry.opinions, opinion)
    most = OPINIONS if entry.result else EARLY
    lost = () if entry.result else opinions[:-most]
    return msgspec.structs.replace(entry, opinions=opinions[-most:]), lost
