"""The demo's own logic: its corpus, its questions, its traffic, and what it accepts as a correct run."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import standardwebhooks
from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.envelope import event_id
from penstock.contracts.records import (
    Alert,
    AlertDelivery,
    Completion,
    Context,
    Cost,
    LlmResult,
    Message,
    Score,
    TeamSpend,
    Usage,
    Verdict,
)
from penstock.demo import corpus, questions
from penstock.demo.money import Money, Proof, money_problems, spending
from penstock.demo.outcome import Drift, Ingest, Outcome, latency, problems
from penstock.demo.questions import Question
from penstock.demo.traffic import LEAST_FOR_DRIFT, METERED_ROUTE, TEAM, Kind, Planned, plan
from penstock.demo.webhook import Receiver, signature_is_right

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INGESTED = Ingest(documents=1, indexed=1, chunks=1)
NO_DRIFT = Drift()


# -- corpus and questions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library() -> list[corpus.Source]:
    return corpus.standard_library()


def test_every_shipped_question_has_its_answer_in_its_document(library: list[corpus.Source]) -> None:
    texts = {document.document_id: " ".join(document.content.lower().split()) for document in library}
    for question in questions.shipped():
        assert question.document_id in texts, question
        assert question.expected is not None
        assert question.expected.lower() in texts[question.document_id], question


def test_no_shipped_question_gives_its_expected_words_away() -> None:
    for question in questions.shipped():
        for phrasing in question.phrasings:
            assert str(question.expected).lower() not in phrasing.lower(), question


def test_documents_are_told_apart_and_say_where_they_come_from(library: list[corpus.Source]) -> None:
    assert len({document.document_id for document in library}) == len(library) > 80
    assert all(document.title and document.source and document.content.strip() for document in library)


def test_modules_are_documented_without_being_imported(library: list[corpus.Source]) -> None:
    queue = next(document for document in library if document.document_id == "modules/queue")
    assert queue.title == "queue: A multi-producer, multi-consumer queue"
    assert "Queue.put(item, block, timeout)\nPut an item into the queue." in queue.content


def test_a_folder_gives_its_readable_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "guide.md").write_text("# The guide\n\nText.")
    (tmp_path / "page.html").write_text("<h1>Page</h1>")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.md").write_text("# hidden")
    found = {document.document_id: (document.title, document.content_type) for document in corpus.folder(tmp_path)}
    assert found == {"sub/guide.md": ("The guide", "text/markdown"), "page.html": ("page", "text/html")}


@pytest.mark.parametrize(
    ("content", "named"), [(b"", "holds no document"), (b"\xff\xfe\x00", "is not UTF-8"), (None, "is no folder")]
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, named: str) -> None:
    root = tmp_path / "docs"
    if content is not None:
        root.mkdir()
        (root / "a.txt").write_bytes(content)
    with pytest.raises(corpus.CorpusError, match=named):
        corpus.folder(root)


def test_a_blank_line_between_questions_marks_the_shift(tmp_path: Path) -> None:
    file = tmp_path / "questions.txt"
    file.write_text('\nWhat is a?\nWhat is b?\n\n{"question": "What is c?", "expected": "sea"}\nWhat is d?\n')
    assert [(q.phase, q.phrasings[0], q.expected) for q in questions.read(file)] == [
        ("A", "What is a?", None), ("A", "What is b?", None), ("B", "What is c?", "sea"), ("B", "What is d?", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"question": }', ":2: not JSON"),
        ('{"expected": "x"}', ':2: "question" is missing'),
        ('{"question": "q", "expected": 3}', ':2: "expected" is 3'),
        ('{"question": "q", "phase": "C"}', ":2: \"phase\" is 'C'"),
    ],
)
def test_a_malformed_question_is_named_with_its_line(tmp_path: Path, line: str, named: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(f"What is a?\n{line}\n")
    with pytest.raises(questions.QuestionError) as raised:
        questions.read(file)
    assert named in str(raised.value)


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(questions.QuestionError, match="holds no question"):
        questions.read(tmp_path / "empty")
    with pytest.raises(questions.QuestionError, match="No such file"):
        questions.read(tmp_path / "missing")


# -- traffic ---------------------------------------------------------------------------------------------------------


def test_the_shipped_traffic_shows_everything_and_is_enough_for_drift() -> None:
    planned = plan(questions.shipped(), "run")
    metered = [one for one in planned if one.route == METERED_ROUTE]
    assert [one.status for one in metered] == ["completed"] * 5 + ["rejected"] * 2
    assert len({one.conversation_id for one in metered}) == len({one.user_id for one in metered}) == 1
    kinds = Counter(one.kind for one in planned)
    assert set(kinds) == set(Kind)
    assert len({one.request_id for one in planned}) == len(planned)
    assert [one.phase for one in planned] == sorted(one.phase for one in planned)
    for phase in "AB":
        assert sum(one.phase == phase and one.tenant == TEAM for one in planned) >= LEAST_FOR_DRIFT
    assert {one.tenant for one in planned if one.kind is Kind.QUESTION} == {TEAM, "research", "acme"}


@pytest.mark.parametrize("requests", [30, 100, 174, 400])
def test_as_many_requests_are_sent_as_were_asked_for(requests: int) -> None:
    planned = plan(questions.shipped(), "run", requests)
    assert len(planned) == requests
    assert sum(one.kind is Kind.PII for one in planned) == 4


def test_too_few_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        plan(questions.shipped(), "run", 10)


def test_private_texts_stand_in_what_is_sent() -> None:
    for one in plan(questions.shipped(), "run"):
        assert all(value in one.text for value in one.private)
        assert bool(one.private) == (one.kind in (Kind.PII, Kind.SECRET))


def test_questions_of_one_topic_make_one_phase() -> None:
    planned = plan([Question("A", ("What is a?",))], "run")
    assert {one.phase for one in planned} == {"A"}


# -- what is accepted ------------------------------------------------------------------------------------------------


def result(request_id: str = "r-1", *, ordinal: int = 0, status: str = "completed", **fields: object) -> LlmResult:
    plain: dict[str, object] = {
        "event_id": event_id(request_id, "release", ordinal), "request_id": request_id, "tenant_id": TEAM,
        "occurred_at": NOW, "causation_id": "", "context": Context(requested_at=NOW), "status": status,
        "prompt": "What is a?", "content": "A is the first letter.",
    }  # fmt: skip
    return LlmResult(**{**plain, **fields})  # type: ignore[arg-type]


def derived(record: type[msgspec.Struct], **fields: object) -> object:
    envelope = {"event_id": "e", "request_id": "r-1", "tenant_id": TEAM, "occurred_at": NOW, "causation_id": ""}
    return record(**{**envelope, **fields})


def judged(released: LlmResult) -> object:
    """The verdict that ``released`` stands on."""
    digest = released_digest(released.request_id, released_texts(released))
    return derived(
        Verdict,
        event_id="v",
        stage="output",
        action="allow",
        policy_name="default",
        policy_version="1",
        released=digest,
    )


def complete(kind: Kind = Kind.QUESTION, score: float = 0.1, **changes: object) -> Outcome:
    """An outcome with which nothing is wrong, but for ``changes``."""
    context = Context(requested_at=NOW)
    planned = Planned("r-1", kind, "A", TEAM, "What is a?", "completed", expected="first LETTER")
    usage = Usage(input_tokens=10, output_tokens=5)
    toxicity = Score(name="toxicity", subject="prompt", score=score)
    fields: dict[str, object] = {
        "planned": planned,
        "latency_s": 0.1,
        "results": (result(),),
        "verdicts": (judged(result()),),
        "completion": derived(
            Completion, context=context, messages=[Message(role="user", content="What is a?")], model="m", backend="b"
        ),
        "costs": (derived(Cost, context=context, model="m", priced=True, amount=Decimal("0.000001"), usage=usage),),
        "scores": (toxicity,),
    }
    return Outcome(**{**fields, **changes})  # type: ignore[arg-type]


def accepted(*outcomes: Outcome, ingest: Ingest = INGESTED, drift: Drift = NO_DRIFT, demanded: bool = False) -> str:
    return "\n".join(problems(outcomes, ingest, drift, drift_demanded=demanded))


def test_a_correct_run_has_no_problem() -> None:
    assert accepted(complete()) == ""
    assert complete().as_expected is True


def test_a_missing_result_is_named_with_the_place_where_it_was_seen_last() -> None:
    missing = complete(results=(), last_seen="seen last on requests-grounded")
    assert accepted(missing) == f"request r-1 (question, team {TEAM}): no result; seen last on requests-grounded"


def test_repeats_of_one_result_are_one_and_another_result_is_a_problem() -> None:
    assert "2 different results" in accepted(complete(results=(result(), result(ordinal=1, status="failed"))))


def test_another_status_than_expected_is_a_problem_with_its_reason() -> None:
    failed = result(status="failed", code="model_unavailable", reason="no target answered")
    assert "is failed (model_unavailable: no target answered), not completed" in accepted(complete(results=(failed,)))


def pii(**changes: object) -> Outcome:
    planned = Planned("r-1", Kind.PII, "A", TEAM, "I am jane@example.org", "completed", private=("jane@example.org",))
    masked = derived(Verdict, stage="input", action="mask", policy_name="default", policy_version="1")
    shown = (result(prompt="I am <EMAIL_ADDRESS>"),)
    return complete(**{"planned": planned, "verdicts": (masked, judged(shown[0])), "results": shown, **changes})


def test_personal_data_must_be_masked_everywhere_behind_the_guardrails() -> None:
    assert accepted(pii()) == ""
    assert "ja************** was not masked" in accepted(pii(results=(result(content="Dear jane@example.org"),)))
    leaked = derived(
        Completion, context=Context(requested_at=NOW), model="m", backend="b",
        messages=[Message(role="user", content="I am jane@example.org")],
    )  # fmt: skip
    assert "was not masked" in accepted(pii(completion=leaked))
    assert "says that it was masked" in accepted(pii(verdicts=()))


def test_every_release_must_stand_on_its_verdict() -> None:
    assert "no verdict" in accepted(complete(verdicts=()))
    assert "is not the one that was judged" in accepted(complete(results=(result(content="swapped"),)))


def test_money_and_scores_must_follow_every_answer() -> None:
    assert "nothing on costs" in accepted(complete(costs=()))
    assert "no toxicity score" in accepted(complete(scores=()))


def test_abuse_must_score_higher_than_questions() -> None:
    assert accepted(complete(score=0.1), complete(Kind.ABUSE, score=0.9)) == ""
    assert "no more toxic" in accepted(complete(score=0.3), complete(Kind.ABUSE, score=0.2))


def test_documents_must_all_be_accounted_for() -> None:
    lost = Ingest(documents=3, indexed=1, chunks=1, failed=("b: failed: too long",), missing=("c",))
    found = accepted(complete(), ingest=lost)
    assert "document b: failed: too long" in found
    assert "document c: nothing was heard of it" in found
    assert "nor of" not in found
    many = Ingest(documents=60, indexed=10, chunks=1, missing=tuple(f"d{number}" for number in range(50)))
    assert accepted(complete(), ingest=many).count("nothing was heard") == 3
    assert "nor of 47 more of the 60 documents" in accepted(complete(), ingest=many)


def shift(*, outcome: str | None = "delivered", received: dict[str, bool] | None = None) -> Drift:
    alert = derived(
        Alert, kind="drift", name="topic_shift", severity="warning", title="t", description="d", fingerprint="f"
    )
    delivery = derived(
        AlertDelivery, fingerprint="f", alert_kind="drift", channel="webhook", destination="d", outcome=outcome
    )
    return Drift((alert,), (delivery,) if outcome else (), {"f": True} if received is None else received)  # type: ignore[arg-type]


def test_a_demanded_drift_alert_must_arrive_signed_and_recorded() -> None:
    assert accepted(complete(), drift=shift(), demanded=True) == ""
    assert accepted(complete(), drift=NO_DRIFT, demanded=False) == ""
    assert "raised no drift alert" in accepted(complete(), drift=NO_DRIFT, demanded=True)
    assert "none reached the webhook" in accepted(complete(), drift=shift(received={}), demanded=True)
    assert "does not say so" in accepted(complete(), drift=shift(outcome=None), demanded=True)
    assert "wrong signature" in accepted(complete(), drift=shift(received={"f": False}), demanded=True)


def cost(request_id: str, kind: str = "completion", amount: str | None = "0.000001") -> Cost:
    return derived(  # type: ignore[return-value]
        Cost, event_id=f"cost-{request_id}-{kind}", request_id=request_id, context=Context(requested_at=NOW), kind=kind,
        model="m", priced=amount is not None, amount=None if amount is None else Decimal(amount),
        usage=Usage(input_tokens=10, output_tokens=5),
    )  # fmt: skip


def test_spending_adds_up_exactly_by_team_kind_and_model() -> None:
    completion, embedding = spending([cost("a"), cost("b", "embedding"), cost("c"), cost("d", amount=None)])
    assert (completion.team, completion.kind, completion.model, completion.calls) == (TEAM, "completion", "m", 3)
    assert (completion.amount, completion.unpriced) == (Decimal("0.000002"), 1)
    assert (completion.input_tokens, completion.output_tokens) == (30, 15)
    assert (embedding.kind, embedding.calls, embedding.amount) == ("embedding", 1, Decimal("0.000001"))


def test_an_embedding_must_be_priced_beside_its_answer() -> None:
    answered = derived(
        Completion, context=Context(requested_at=NOW), messages=[], model="m", backend="b", embedding_tokens=3
    )
    assert "nothing on costs" in accepted(complete(completion=answered))
    both = (cost("r-1"), cost("r-1", "embedding"))
    assert accepted(complete(completion=answered, costs=both)) == ""


# -- money -----------------------------------------------------------------------------------------------------------


def visited(**changes: object) -> Money:
    """A visitor of whom nothing is wrong, but for ``changes``: two answers within the budget, one refusal."""
    spend = derived(
        TeamSpend, window="day", window_start=NOW, amount=Decimal("0.004"), calls=2, budget=Decimal("0.005"),
        budget_name="visitor", subject="run-visitor",
    )  # fmt: skip
    refused = result("m-3", status="rejected", code="over_budget", reason="the budget allows 0.005 USD")
    alert = {"kind": "cost", "severity": "warning", "title": "t", "description": "d", "fingerprint": "f"}
    fields: dict[str, object] = {
        "costs": [cost("m-1", amount="0.002"), cost("m-2", amount="0.002"), cost("other", amount="0.7")],
        "visitor": spend,
        "metered": [(Kind.METERED, result("m-1")), (Kind.METERED, result("m-2")), (Kind.OVER_BUDGET, refused)],
        "alerts": [derived(Alert, name=name, **alert) for name in ("budget_threshold", "budget_exhausted")],
    }
    return Money(**{**fields, **changes})  # type: ignore[arg-type]


def money_accepted(money: Money, proof: Proof | None = None) -> str:
    return "\n".join(money_problems(money, proof or Proof()))


def test_a_kept_budget_has_no_problem() -> None:
    assert money_accepted(visited()) == ""
    assert visited().told
    assert not visited(alerts=[]).told


def test_a_budget_that_is_exceeded_or_not_told_is_a_problem() -> None:
    dear = [cost("m-1", amount="0.003"), cost("m-2", amount="0.002000000001")]
    assert "spent 0.005000000001 USD of a hard budget of 0.005" in money_accepted(visited(costs=dear))
    assert "the costs say 0.005000000001" in money_accepted(visited(costs=dear))
    assert "nothing on team-spend" in money_accepted(visited(visitor=None))


def test_a_refusal_must_be_for_the_budget_and_on_call_must_hear_of_it() -> None:
    other = [(Kind.OVER_BUDGET, result("m-3", status="rejected", code="rate_limited", reason="too many"))]
    assert "refused for rate_limited, not for its budget" in money_accepted(visited(metered=other))
    found = money_accepted(visited(alerts=[]))
    assert "no alert budget_exhausted" in found
    assert "no alert budget_threshold" in found


def test_a_ledger_that_differs_is_a_problem() -> None:
    assert "ledger verify: exit code 1: a window differs" in money_accepted(
        visited(), Proof(failure="exit code 1: a window differs")
    )


def test_percentiles_are_by_nearest_rank() -> None:
    outcomes = [complete(latency_s=number / 100) for number in range(1, 101)]
    figures = latency([*outcomes, complete(latency_s=None)], elapsed_s=10.0)
    assert figures is not None
    assert (figures.p50, figures.p95, figures.p99, figures.slowest) == (0.5, 0.95, 0.99, 1.0)
    assert (figures.count, figures.throughput) == (100, 10.0)
    assert latency([complete(latency_s=None)], elapsed_s=1.0) is None


# -- webhook ---------------------------------------------------------------------------------------------------------


def signed(secret: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers as a library makes them that this project did not write."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    signature = standardwebhooks.Webhook(secret).sign("n1", moment, body.decode())
    return {"webhook-id": "n1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def test_only_a_fresh_signature_over_this_body_is_right() -> None:
    secret, other = "whsec_c2VjcmV0", "whsec_b3RoZXI="
    headers = signed(secret, 1_000, b"{}")
    assert signature_is_right(secret, headers, b"{}", 1_010.0)
    assert signature_is_right(
        secret, headers | {"webhook-signature": f"v1,AA {headers['webhook-signature']}"}, b"{}", 1_010.0
    )
    assert not signature_is_right(secret, headers, b"{ }", 1_010.0)
    assert not signature_is_right(other, headers, b"{}", 1_010.0)
    assert not signature_is_right(secret, headers, b"{}", 2_000.0)
    assert not signature_is_right(secret, headers | {"webhook-id": "n2"}, b"{}", 1_010.0)
    assert not signature_is_right(secret, {}, b"{}", 1_010.0)


def test_the_receiver_answers_by_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    body = json.dumps({"version": 2, "alerts": [{"fingerprint": "f"}]}).encode()
    with Receiver() as receiver:
        environment = receiver.environment()
        timestamp = int(datetime.now(UTC).timestamp())

        def post(headers: dict[str, str]) -> int:
            request = urllib.request.Request(environment["ALERT_WEBHOOK_URL"], body, headers)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                return error.code

        assert post({"webhook-id": "n1", "webhook-timestamp": "1", "webhook-signature": "v1,AA"}) == 401
        assert receiver.received() == {"f": False}
        assert post(signed(environment["ALERT_WEBHOOK_SECRET"], timestamp, body)) == 204
        assert receiver.received() == {"f": True}
    assert not any(thread.name == "webhook" for thread in threading.enumerate())
