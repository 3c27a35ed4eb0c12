"""The audit: a release without its verdict is found, one with it is proven, and a story keeps what verdicts keep."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.audit import FAULTS, Fault, Verification, concerns, story
from penstock.bus import Message as Logged
from penstock.cli.audit import written_with
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.records import (
    Alert,
    Alternative,
    Cancellation,
    Completion,
    Context,
    Cost,
    DeadLetter,
    Energy,
    Finding,
    LlmRequest,
    LlmResult,
    Message,
    Passage,
    Record,
    ResultChunk,
    TargetFailure,
    Usage,
    Verdict,
)

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
CONTEXT = Context(requested_at=NOW)


def result(request_id: str = "r", content: str = "an answer", **changes: Any) -> LlmResult:
    made = LlmResult(
        event_id=f"result-{request_id}", request_id=request_id, tenant_id="support", occurred_at=NOW,
        causation_id=f"completion-{request_id}", context=CONTEXT, status="completed", content=content,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def piece(request_id: str = "r", sequence: int = 0, content: str = "an ") -> ResultChunk:
    return ResultChunk(
        event_id=f"piece-{request_id}-{sequence}", request_id=request_id, tenant_id="support", occurred_at=NOW,
        causation_id=f"chunk-{request_id}-{sequence}", context=CONTEXT, sequence=sequence, content=content,
    )  # fmt: skip


def verdict(of: LlmResult | ResultChunk, stage: str = "output", **changes: Any) -> Verdict:
    made = Verdict(
        event_id=f"verdict-{of.event_id}", request_id=of.request_id, tenant_id=of.tenant_id,
        occurred_at=NOW, causation_id=of.causation_id, stage=stage, action="allow", policy_name="default",
        policy_version="v", scores={"pii": 0.0}, sequence=of.sequence if isinstance(of, ResultChunk) else None,
        released=released_digest(of.request_id, released_texts(of)),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def verified(records: list[Record]) -> Verification:
    verification = Verification()
    for offset, record in enumerate(records):
        place = ("topic", 0, offset)
        if isinstance(record, LlmResult):
            verification.result(record, place)
        elif isinstance(record, ResultChunk):
            verification.piece(record, place)
    for record in records:
        if isinstance(record, Verdict):
            verification.verdict(record)
    return verification


def kinds(*records: Record) -> list[str]:
    return [fault.kind for fault in verified(list(records)).faults()]


def test_releases_with_their_verdicts_are_proven() -> None:
    cited = result("cited", citations=[Passage(passage_id="p", document_id="d", text="evidence", score=1.0)])
    streamed = [piece(sequence=0), piece(sequence=1, content="answer")]
    assert (
        kinds(result(), cited, *streamed, verdict(result()), verdict(cited), *(verdict(p, "piece") for p in streamed))
        == []
    )


@pytest.mark.parametrize(
    ("releases", "verdicts", "fault"),
    [
        ([result()], [], "no_verdict"),
        ([piece()], [], "no_verdict"),
        ([result()], [verdict(result(), tenant_id="other")], "no_verdict"),
        ([result()], [verdict(result(), causation_id="another completion")], "no_verdict"),
        ([result()], [verdict(result(), stage="input")], "no_verdict"),
        ([piece()], [verdict(piece(), stage="output")], "no_verdict"),
        ([result()], [verdict(result(), mode="shadow")], "no_verdict"),
        ([result()], [verdict(result(), action="block", released="")], "not_allowed"),
        ([result()], [verdict(result(), action="review", released="")], "not_allowed"),
        ([result(content="swapped")], [verdict(result())], "other_text"),
        ([result(status="blocked", code="pii")], [], "text_of_an_ended_request"),
        ([result(), result(event_id="another")], [verdict(result())], "two_results"),
    ],
)  # fmt: skip
def test_a_release_that_does_not_stand_on_its_verdict_is_found(
    releases: list[Record], verdicts: list[Record], fault: str
) -> None:
    assert fault in kinds(*releases, *verdicts)
    assert fault in FAULTS


def test_a_citation_that_was_not_judged_is_found() -> None:
    judged = result()
    slipped = result(citations=[Passage(passage_id="p", document_id="d", text="never judged", score=1.0)])
    assert kinds(slipped, verdict(judged)) == ["other_text"]


def test_what_a_person_approved_is_proven_by_their_verdict() -> None:
    held = verdict(result(), action="review", released="")
    said = verdict(result(), stage="review", reviewer="mara", scores={})
    assert kinds(result(), held, said) == []
    assert kinds(result(), said, held) == []


def test_the_same_event_twice_is_no_fault() -> None:
    done = verified([result(), result(), verdict(result())])
    assert list(done.faults()) == []
    assert done.summary.duplicates == 1


def test_a_verdict_older_than_digests_proves_that_it_was_judged() -> None:
    done = Verification()
    done.result(result(), ("llm-results", 0, 0))
    done.verdict(verdict(result(), released="", scores={}), is_older=True)
    assert list(done.faults()) == []
    assert done.summary.undigested == 1


def test_a_verdict_of_today_without_a_digest_proves_nothing() -> None:
    assert kinds(result(), verdict(result(), released="", scores={})) == ["not_allowed"]
    assert kinds(piece(), verdict(piece(), "piece", released="", scores={})) == ["not_allowed"]


def test_a_piece_that_stands_elsewhere_than_it_was_judged_is_found() -> None:
    assert kinds(piece(sequence=3), verdict(piece(sequence=3), "piece", sequence=2)) == ["no_verdict"]


def test_the_version_of_a_verdict_is_read_from_its_message() -> None:
    catalogue = Catalogue.load()
    codec = Codec.offline(catalogue)
    value = codec.encode("verdicts", verdict(result()))
    assert written_with(Logged("verdicts", 0, 0, 0, None, value)) == codec.schema_id("verdicts")


@given(st.lists(st.text("ab\0", max_size=3), max_size=4), st.lists(st.text("ab\0", max_size=3), max_size=4))
def test_only_the_same_texts_have_the_same_digest(one: list[str], other: list[str]) -> None:
    assert (released_digest("r", one) == released_digest("r", other)) == (one == other)


def test_ended_requests_need_no_verdict() -> None:
    assert kinds(result(status="expired", content="", code="deadline_exceeded"), piece(content="")) == []


def test_the_fault_names_the_place() -> None:
    verification = Verification()
    verification.result(result(), ("llm-results", 3, 17))
    verification.undecodable(("llm-results", 0, 4))
    undecodable, missing = verification.faults()
    assert missing == Fault("no_verdict", "llm-results", 3, 17, "support", "r")
    assert (undecodable.kind, undecodable.offset) == ("undecodable", 4)
    assert "no verdict" in missing.description


@given(st.integers(1, 30), st.data(), st.randoms(use_true_random=False))
def test_exactly_the_planted_releases_are_found(count: int, data: st.DataObject, shuffled: random.Random) -> None:
    releases = [result(f"r{number}") for number in range(count)]
    planted = data.draw(st.sets(st.sampled_from(range(count))))
    proofs = [verdict(release) for number, release in enumerate(releases) if number not in planted]
    shuffled.shuffle(proofs)
    faults = list(verified([*releases, *proofs]).faults())
    assert {fault.request_id for fault in faults} == {f"r{number}" for number in planted}


def test_a_story_is_told_in_order_without_what_people_wrote() -> None:
    request = LlmRequest(
        event_id="q", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="",
        messages=[Message(role="user", content="my mail is ann@example.org")],
    )  # fmt: skip
    found = Finding(scanner="pii", kind="EMAIL_ADDRESS", start=11, end=26, score=1.0, action="mask", fingerprint="ab12")
    judged = verdict(result(), occurred_at=NOW + timedelta(seconds=1), findings=[found])
    ended = result(occurred_at=NOW + timedelta(seconds=1))
    events = [("llm-results", 0, 1, ended), ("verdicts", 0, 1, judged), ("llm-requests", 0, 1, request)]
    chapters = story([*events, ("llm-results", 0, 2, ended)])
    assert [chapter.topic for chapter in chapters] == ["llm-requests", "verdicts", "llm-results"]
    assert chapters[2].repeats == 1
    told = " ".join([chapter.headline + " ".join(chapter.details) for chapter in chapters])
    assert "EMAIL_ADDRESS at 11-26, score 1.00 -> mask, fingerprint ab12" in told
    assert "ann@example.org" not in told
    with_texts = " ".join(" ".join(chapter.details) for chapter in story(events, texts=True))
    assert "ann@example.org" in with_texts


def test_evidence_that_names_a_request_belongs_to_its_story() -> None:
    envelope: dict[str, Any] = {
        "event_id": "e", "request_id": "", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
    }  # fmt: skip
    alert = Alert(
        **envelope,
        kind="drift",
        name="shift",
        severity="warning",
        fingerprint="f",
        title="t",
        description="d",
        sample_requests=["r"],
    )
    letter = DeadLetter(
        **envelope, service="intake", group="intake", origin_topic="llm-requests", origin_partition=0, origin_offset=3,
        origin_value=b"\x00..r7..", code="invalid_record", reason="why",
    )  # fmt: skip
    assert concerns(alert, "r")
    assert not concerns(alert, "s")
    assert concerns(letter, "r7")
    assert not concerns(letter, "s7")


def test_the_story_tells_what_was_paid_and_what_was_saved() -> None:
    common: dict[str, Any] = {
        "request_id": "r", "tenant_id": "support", "occurred_at": NOW, "causation_id": "", "context": CONTEXT,
    }  # fmt: skip
    cached = Completion(
        event_id="completion", messages=[], model="m", backend="openai", kind="cached", cached_by="exact",
        cached_from="older", **common,
    )  # fmt: skip
    zero = Decimal("0.000000000000")
    saved = Cost(
        event_id="saved", kind="cached", model="m", priced=True, price_version="v1", amount=zero, input_amount=zero,
        output_amount=zero, compute_amount=zero, saved={"exact_cache": Decimal("0.000080400000")}, **common,
    )  # fmt: skip
    embedded = Cost(
        event_id="embedded", kind="embedding", model="e", priced=True, price_version="v2",
        amount=Decimal("0.000000000002"), input_amount=Decimal("0.000000000002"), **common,
    )  # fmt: skip
    unknown = Cost(event_id="unknown", model="new", priced=False, accounted_at=NOW - timedelta(hours=1), **common)
    told = story(
        [("completions", 0, 0, cached), ("costs", 0, 1, saved), ("costs", 0, 2, embedded), ("costs", 0, 3, unknown)]
    )
    assert [chapter.headline for chapter in told] == [
        "the exact cache answers with the event older: no model is called",
        "cost of m (cached): 0.000000000000 USD, price v1",
        "cost of e (embedding): 0.000000000002 USD, price v2",
        "cost of new (completion): no price is known",
    ]
    assert [chapter.details for chapter in told[1:]] == [
        ("saved 0.000080400000 USD: exact cache", "counts at 2026-01-05 09:00:00Z"),
        ("prompt 0.000000000002 USD", "counts at 2026-01-05 09:00:00Z"),
        ("counts at 2026-01-05 08:00:00Z",),
    ]


def test_the_story_tells_of_a_cancellation_of_what_was_paid_for_and_of_alternatives() -> None:
    cancelled = Cancellation(
        event_id="x", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="", reason="they left"
    )
    given_up = Completion(
        event_id="c", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="", context=CONTEXT, messages=[],
        model="m", backend="vllm", finish_reason="cancelled", error="they left", ends_as="cancelled",
        usage=Usage(input_tokens=7, output_tokens=3),
    )  # fmt: skip
    spoken = msgspec.structs.replace(
        given_up, event_id="d", finish_reason="stop", error=None, ends_as=None, content="a", model="n",
        alternatives=[Alternative(content="the other one")], energy=Energy(joules=36.0, co2e_grams=0.004, basis="n@1"),
        failures=[TargetFailure(target="m", reason="HTTP 503")],
    )  # fmt: skip
    other = verdict(result(), stage="alternative", sequence=1)
    out = result(alternatives=[Alternative(content="the other one")])
    chapters = story([("t", 0, n, record) for n, record in enumerate([cancelled, given_up, spoken, other, out])])
    told = "\n".join([line for chapter in chapters for line in (chapter.headline, *chapter.details)])
    for words in (
        "support cancels it: they left",
        "m (vllm) is given up: they left",
        "7 + 3 tokens are paid for",
        "1 alternatives",
        "m gave no answer: HTTP 503",
        "took about 36 J, 0.004 g CO2e (an estimate by n@1)",
        "verdict on the alternative 1: allow",
    ):
        assert words in told
    assert "the other one" not in told
    shown = story([("t", 0, 0, out)], texts=True)
    assert "alternative: the other one" in shown[0].details


def test_an_alternative_stands_on_a_verdict_of_its_own() -> None:
    out = result(alternatives=[Alternative(content="the other one")])
    own = verdict(out, stage="alternative", sequence=1)
    own = msgspec.structs.replace(own, released=released_digest("r", ["the other one"]))
    assert kinds(out, verdict(out), own) == []
    assert kinds(out, verdict(out)) == ["no_verdict"]
    assert kinds(out, verdict(out), msgspec.structs.replace(own, released="", action="block")) == ["not_allowed"]
    assert kinds(out, verdict(out), msgspec.structs.replace(own, mode="shadow")) == ["no_verdict"]
    # On its own verdict alone, added to a result that was judged without it.
    assert kinds(out, verdict(result()), own) == ["other_text"]
    assert "text_of_an_ended_request" in kinds(msgspec.structs.replace(out, status="cancelled", content=""))
