"""Proof that no result and no streamed piece left without its verdict. Pure; shares no code with the release gate.

A released text stands on a verdict of its own: same team, same request, caused by the same event, from a policy in
force, and with the digest of this very text. So does each alternative of a result, beside the verdict on all of it. A
policy in shadow judges nothing here. The digests are counted anew from the released events
(:mod:`penstock.contracts.digest`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.records import Alternative, LlmResult, ResultChunk, Status, Verdict

__all__ = ["FAULTS", "Fault", "Summary", "Verification"]

FAULTS: Mapping[str, str] = {
    "no_verdict": "released, and no verdict on what it was made of is in the log",
    "not_allowed": "released against its verdict, which lets nothing out",
    "other_text": "the released text is not the one that was judged",
    "text_of_an_ended_request": "a result that was not completed carries an answer",
    "two_results": "two different results for one request",
    "undecodable": "cannot be decoded, so it cannot be verified",
}
"""What can be wrong, by kind."""

_JUDGING_STAGES = {
    LlmResult: frozenset({"output", "review"}),
    ResultChunk: frozenset({"piece"}),
    Alternative: frozenset({"alternative"}),
}

Place = tuple[str, int, int]
"""(topic, partition, offset)."""
_Key = tuple[str, str, str]
"""(tenant_id, request_id, causation_id)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A release that does not stand on its verdict, and where it lies in the log."""

    kind: str
    topic: str
    partition: int
    offset: int
    tenant_id: str = ""
    request_id: str = ""

    @property
    def description(self) -> str:
        return FAULTS[self.kind]


@dataclass(slots=True)
class Summary:
    """What was looked at. ``undigested`` are releases whose verdict was made before verdicts carried digests."""

    results: int = 0
    released: int = 0
    pieces: int = 0
    verdicts: int = 0
    duplicates: int = 0
    undigested: int = 0
    by_status: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Pending:
    """A release that waits for its verdict."""

    place: Place
    digest: str
    stages: frozenset[str]
    sequence: int | None
    seen: str = ""
    """The nearest to a proof so far: empty, not_allowed or other_text."""


class Verification:
    """Takes releases, then verdicts, in any order within each; :meth:`faults` says what is left unproven.

    Memory grows with the releases that wait for their verdict, some 500 bytes each.
    """

    def __init__(self) -> None:
        self.summary = Summary()
        self._pending: dict[_Key, list[_Pending]] = {}
        self._faults: list[Fault] = []
        self._ended: dict[tuple[str, str], str] = {}

    @property
    def waiting(self) -> int:
        """Releases whose verdict was not seen yet."""
        return sum(map(len, self._pending.values()))

    def result(self, record: LlmResult, place: Place) -> None:
        """Take a result over."""
        self.summary.results += 1
        self.summary.by_status[record.status] += 1
        request = (record.tenant_id, record.request_id)
        if request not in self._ended:
            self._ended[request] = record.event_id
        elif self._ended[request] == record.event_id:
            self.summary.duplicates += 1  # the same event twice, as after a crash
        else:
            self._fault("two_results", place, record)
        if record.status == Status.COMPLETED:
            self.summary.released += 1
            self._await(record, place)
            for alternative in record.alternatives:
                self._await(record, place, alternative)
        elif any(released_texts(record)):
            self._fault("text_of_an_ended_request", place, record)

    def piece(self, record: ResultChunk, place: Place) -> None:
        """Take a streamed piece over; one without text releases nothing."""
        self.summary.pieces += 1
        if record.content:
            self._await(record, place)

    def undecodable(self, place: Place) -> None:
        """Note a message that cannot be read."""
        fault = Fault("undecodable", *place)
        if fault not in self._faults:
            self._faults.append(fault)

    def verdict(self, record: Verdict, *, is_older: bool = False) -> None:
        """Take a verdict over, and settle the releases that stand on it.

        ``is_older`` says that it was written with an older version of the record: the first one had no digest.
        """
        self.summary.verdicts += 1
        if record.mode != "enforce":
            return
        key = (record.tenant_id, record.request_id, record.causation_id)
        waiting = self._pending.get(key)
        if waiting is None:
            return
        left = [pending for pending in waiting if not self._settles(record, pending, is_older=is_older)]
        if left:
            self._pending[key] = left
        else:
            del self._pending[key]

    def faults(self) -> Iterator[Fault]:
        """Yield everything that is wrong once all verdicts were taken over."""
        yield from self._faults
        for (tenant_id, request_id, _), waiting in self._pending.items():
            for pending in waiting:
                yield Fault(pending.seen or "no_verdict", *pending.place, tenant_id, request_id)

    def _await(self, record: LlmResult | ResultChunk, place: Place, part: Alternative | None = None) -> None:
        released = part or record
        digest = released_digest(record.request_id, released_texts(released))
        waiting = self._pending.setdefault((record.tenant_id, record.request_id, record.causation_id), [])
        sequence = record.sequence if isinstance(record, ResultChunk) else None
        waiting.append(_Pending(place, digest, _JUDGING_STAGES[type(released)], sequence))

    def _settles(self, verdict: Verdict, pending: _Pending, *, is_older: bool) -> bool:
        if verdict.stage not in pending.stages:
            return False
        # Alternatives before it may have been left out: its own number is not known.
        if verdict.stage != "alternative" and verdict.sequence != pending.sequence:
            return False
        if verdict.released == pending.digest:
            return True
        if (
            is_older
            and not verdict.released
            and verdict.stage == "output"
            and verdict.action in ("allow", "flag", "mask")
        ):
            self.summary.undigested += 1
            return True
        pending.seen = "other_text" if verdict.released else pending.seen or "not_allowed"
        return False

    def _fault(self, kind: str, place: Place, record: LlmResult) -> None:
        self._faults.append(Fault(kind, *place, record.tenant_id, record.request_id))
