"""A golden set through the stream on the in-memory log: every request answered once, whatever breaks off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from penstock import Client
from penstock.bus import MemoryBus
from penstock.clock import SystemClock
from penstock.config.kinds import Prompt, Route, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Completion, Context, Cost, LlmRequest, LlmResult, Passage

from services.evaluation.golden.answers import AnswerFile, Run, RunError
from services.evaluation.golden.dataset import parse_dataset
from services.evaluation.golden.replay import NotAnswered, Patience, replay
from services.evaluation.golden.variants import (
    Ask,
    Configured,
    Request,
    Unfit,
    Variant,
    asks_of,
    request_of,
    variants_of,
)

CASES = parse_dataset([json.dumps({"id": f"c{n}", "question": f"question {n}"}) for n in range(8)], "set", "set").cases
VARIANTS = [Variant("a", route="a"), Variant("b", route="b")]
QUICK = Patience(deadline_s=5, grace_s=1, cost_s=0.3, rate_s=0)
PLANE = ConfigPlane.of(
    [
        Team(name="support", allowed_routes=("a", "b"), default_route="a", allowed_policies=("strict",)),
        Route(name="a", targets=[{"backend": "extractive", "model": "m"}]),  # type: ignore[arg-type]
        Route(name="b", targets=[{"backend": "extractive", "model": "m"}]),  # type: ignore[arg-type]
        Route(name="closed", targets=[{"backend": "extractive", "model": "m"}]),  # type: ignore[arg-type]
        Prompt(
            name="polite",
            template=[{"role": "user", "content": "Please: {{question}} {{tone}}"}],  # type: ignore[arg-type]
            variables={"question": {"description": "q"}, "tone": {"description": "t", "required": False}},  # type: ignore[dict-item]
        ),
    ]
)
CONFIGURED = Configured(PLANE.team, PLANE.route, PLANE.prompt, PLANE.policy)
Answering = Callable[[LlmRequest, int], str]
"""Status of the n-th request that arrives, or nothing where it is not answered."""


class Stack:
    """Answers requests as the stream does: one result an id, its completion and its costs."""

    def __init__(self, bus: MemoryBus, answering: Answering = lambda request, number: "completed") -> None:
        self.bus = bus
        self.answering = answering
        self.asked: list[LlmRequest] = []
        self.priced = True

    async def run(self) -> None:
        reader = await self.bus.read(["llm-requests"])
        while True:
            for message in await reader.poll(0.05):
                request = self.bus.codec.decode(message.topic, message.value)
                assert isinstance(request, LlmRequest)
                # Intake drops what it has seen.
                if all(one.request_id != request.request_id for one in self.asked):
                    self.asked.append(request)
                    await self._answer(request, self.answering(request, len(self.asked)))

    async def _answer(self, request: LlmRequest, status: str) -> None:
        if not status:
            return
        now = request.occurred_at + timedelta(milliseconds=250)
        context = Context(requested_at=request.occurred_at, route=request.route, purpose=request.purpose)
        envelope = {
            "request_id": request.request_id,
            "tenant_id": request.tenant_id,
            "occurred_at": now,
            "causation_id": "",
        }
        completed = status == "completed"
        passage = Passage(passage_id="p", document_id="d", text="evidence", score=1.0)
        if completed:
            completion = Completion(
                **envelope, event_id=event_id(request.request_id, "inference", 0), context=context, messages=[],
                passages=[passage], citations=["p"], model="m", backend="extractive", embedding_tokens=3,
                grounding="grounded",
            )  # fmt: skip
            await self.bus.publish("completions", request.request_id, completion)
        result = LlmResult(
            **envelope, event_id=event_id(request.request_id, "gate", 0), context=context, calls=int(completed),
            status="rejected" if status == "rate_limited" else status, code=None if completed else status, model="m",
            content=f"answer of {request.route}" if completed else "", prompt=request.messages[0].content,
            retry_after_ms=1 if status == "rate_limited" else None,
        )  # fmt: skip
        await self.bus.publish("llm-results", request.request_id, result)
        if completed and self.priced:
            for number, amount in enumerate(("0.000000000123", "0.000000000001")):
                cost = Cost(
                    **envelope, event_id=event_id(request.request_id, "cost", number), context=context, model="m",
                    kind="completion" if number == 0 else "embedding", priced=True, amount=Decimal(amount),
                )  # fmt: skip
                await self.bus.publish("costs", request.tenant_id, cost)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), SystemClock())


@asynccontextmanager
async def running(bus: MemoryBus, stack: Stack) -> AsyncIterator[Client]:
    task = asyncio.create_task(stack.run())
    try:
        async with Client(tenant="support", transport=bus, codec=bus.codec) as client:
            yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def a_run() -> Run:
    return Run(
        run="run-1",
        started_at=SystemClock().now(),
        dataset="set",
        dataset_version="v",
        team="support",
        key_id="3xk9t2mqv5rd",
        variants=VARIANTS,
    )


def planned() -> tuple[list[Ask], dict[Ask, tuple[Request, str]]]:
    team = PLANE.team("support")
    assert team is not None
    asks = asks_of(CASES, VARIANTS, 1, seed=3)
    by_id, variants = {case.id: case for case in CASES}, {one.name: one for one in VARIANTS}
    return asks, {
        ask: (request_of(by_id[ask.case], variants[ask.variant], team, CONFIGURED), by_id[ask.case].version)
        for ask in asks
    }


async def test_every_case_is_asked_of_every_variant_once_and_priced_exactly(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    stack = Stack(bus)
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        await replay(bus, bus.codec, client, kept, asks, requests, resumed=False, patience=QUICK)
    kept.close()
    assert len(stack.asked) == len(asks) == 16
    assert {(one.purpose, one.tags["golden_run"], one.key_id) for one in stack.asked} == {
        ("evaluation", "run-1", "3xk9t2mqv5rd")
    }
    answers = AnswerFile.open(tmp_path / "run").answers
    assert {answer.ask for answer in answers} == set(asks)
    assert {answer.cost for answer in answers} == {Decimal("0.000000000124")}
    assert {answer.latency_ms for answer in answers} == {250.0}
    assert {(answer.variant, answer.content) for answer in answers} == {("a", "answer of a"), ("b", "answer of b")}
    assert (answers[0].passages[0].text, answers[0].grounding) == ("evidence", "grounded")


async def test_a_run_that_was_broken_off_asks_only_what_is_missing(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    # The first process is ended while requests are under way: six have results, nobody kept the last of them.
    stack = Stack(bus, lambda request, number: "completed" if number <= 6 else "")
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        broken = asyncio.create_task(
            replay(bus, bus.codec, client, kept, asks, requests, resumed=False, patience=QUICK)
        )
        async with asyncio.timeout(10):
            while len(stack.asked) < 8 or len(kept.answers) < 2:
                await asyncio.sleep(0.01)
        broken.cancel()
        await asyncio.gather(broken, return_exceptions=True)
    kept.close()
    with (tmp_path / "run" / "answers.jsonl").open("ab") as file:
        file.write(b'{"case": "cut off by the cr')
    under_way = list(stack.asked[6:])
    stack.answering = lambda request, number: "completed"
    again = AnswerFile.open(tmp_path / "run")
    async with running(bus, stack) as client:
        # What the first process had sent is answered now, as it would be by services that were away.
        for request in under_way:
            await stack._answer(request, "completed")
        await replay(bus, bus.codec, client, again, asks, requests, resumed=True, patience=QUICK)
    again.close()
    assert len(stack.asked) == 16
    assert len({one.request_id for one in stack.asked}) == 16
    done = AnswerFile.open(tmp_path / "run")
    assert {answer.ask for answer in done.answers} == set(asks)
    assert {answer.cost for answer in done.answers} == {Decimal("0.000000000124")}
    sent = len(bus.messages("llm-requests"))
    async with running(bus, stack) as client:
        await replay(bus, bus.codec, client, done, asks, requests, resumed=True, patience=QUICK)
    assert len(bus.messages("llm-requests")) == sent


async def test_what_is_not_answered_is_named_and_the_rest_is_kept(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    stack = Stack(bus, lambda request, number: "completed" if number != 3 else "")
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        with pytest.raises(NotAnswered, match=r"of 16 requests have no result.*--resume"):
            await replay(
                bus, bus.codec, client, kept, asks, requests, resumed=False, concurrency=1,
                patience=Patience(deadline_s=0.2, grace_s=0.1, cost_s=0.3),
            )  # fmt: skip
    kept.close()
    assert len(AnswerFile.open(tmp_path / "run").answers) == 2


async def test_requests_that_end_otherwise_are_answers_with_that_status(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    ends = ("blocked", "failed", "expired", "completed")
    stack = Stack(bus, lambda request, number: ends[number % 4])
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        await replay(bus, bus.codec, client, kept, asks, requests, resumed=False, patience=QUICK)
    counts = {status: sum(answer.status == status for answer in kept.answers) for status in ends}
    assert counts == dict.fromkeys(ends, 4)
    # No model was asked: that is known to have cost nothing.
    assert {answer.cost for answer in kept.answers if answer.status != "completed"} == {Decimal(0)}
    kept.close()


async def test_over_the_teams_rate_it_waits_and_asks_again(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    stack = Stack(bus, lambda request, number: "rate_limited" if number in (1, 2, 5) else "completed")
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        await replay(bus, bus.codec, client, kept, asks, requests, resumed=False, patience=QUICK)
    assert {answer.status for answer in kept.answers} == {"completed"}
    assert len(stack.asked) == 16 + 3
    kept.close()


async def test_an_answer_whose_costs_do_not_come_has_none(bus: MemoryBus, tmp_path: Path) -> None:
    asks, requests = planned()
    stack = Stack(bus)
    stack.priced = False
    kept = AnswerFile.create(tmp_path / "run", a_run())
    async with running(bus, stack) as client:
        await replay(bus, bus.codec, client, kept, asks, requests, resumed=False, patience=QUICK)
    assert {answer.cost for answer in kept.answers} == {None}
    kept.close()


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    AnswerFile.create(tmp_path / "run", a_run())
    with pytest.raises(RunError, match="--resume"):
        AnswerFile.create(tmp_path / "run", a_run())
    with pytest.raises(RunError, match="holds no run"):
        AnswerFile.open(tmp_path / "other")


def test_options_that_are_repeated_make_variants() -> None:
    assert [one.name for one in variants_of(["a", "b"], ["p@2"], [])] == ["a", "b"]
    assert [(one.prompt, one.label) for one in variants_of([], ["p@1", "p", "@x"], [])] == [
        ("p", "1"), ("p", "production"), (None, "x"),
    ]  # fmt: skip
    both = variants_of(["a", "b"], [], ["loose", "strict"])
    assert [(one.name, one.route, one.policy) for one in both] == [
        ("a loose", "a", "loose"),
        ("b strict", "b", "strict"),
    ]
    assert [one.name for one in variants_of(["a", "a"], [], [])] == ["a", "a (2)"]
    assert [one.name for one in variants_of([], [], [])] == ["default"]
    with pytest.raises(Unfit, match="--route 2 times, --policy 3 times"):
        variants_of(["a", "b"], [], ["x", "y", "z"])
    with pytest.raises(Unfit, match="NAME@LABEL"):
        variants_of([], ["p@"], [])


def test_a_prompt_gets_the_question_and_what_does_not_fit_is_found_before_anything_is_sent() -> None:
    team = PLANE.team("support")
    assert team is not None
    case = CASES[0]
    request = request_of(case, Variant("p", route="a", prompt="polite"), team, CONFIGURED)
    assert (request.prompt, request.variables, request.messages) == ("polite", {"question": "question 0"}, [])
    for variant, said in (
        (Variant("v", route="nope"), "no route 'nope'"),
        (Variant("v", route="closed"), "allowed_routes"),
        (Variant("v", route="a", prompt="polite", label="canary"), "no version 'canary'"),
        (Variant("v", route="a", label="canary"), "no prompt whose version"),
        (Variant("v", route="a", policy="strict"), "no policy 'strict'"),
    ):
        with pytest.raises(Unfit, match=said):
            request_of(case, variant, team, CONFIGURED)


def test_an_answer_once_given_has_one_identity_a_run() -> None:
    ask = Ask("c", "v", 1)
    assert ask.request_id("run") == ask.request_id("run")
    others = {
        ask.request_id("other"),
        ask.request_id("run", 1),
        Ask("c", "v").request_id("run"),
        Ask("v", "c", 1).request_id("run"),
    }
    assert len(others | {ask.request_id("run")}) == 5
