"""Evaluation's Faust agents in Faust's own test context, over the log in memory: completions in, books out; and its hop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import faust
import msgspec
import pytest
from faust.events import Event as FaustEvent
from faust.types.tuples import Message as FaustMessage
from penstock.bus import MemoryBus, Message, Producer, run_hops
from penstock.clock import ManualClock
from penstock.config.kinds import Budget, Evaluator, Price, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import event_id
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    DeadLetter,
    DocumentIndexed,
    LlmResult,
    Record,
    Score,
    TeamSpend,
    Usage,
)  # fmt: skip
from penstock.stateful import Checkpointing, StallGuard, StatefulProcessor
from prometheus_client import REGISTRY

from services.evaluation.adapters import ToxicityInForce
from services.evaluation.app import Classifiers, declare, processors
from services.evaluation.evaluators.own import FunctionEvaluator
from services.evaluation.exchanges import scored
from services.evaluation.learning import Champions
from services.evaluation.learning.toxicity_learner import ToxicityLearner
from services.evaluation.scoring import Scorer, scoring_hop
from services.evaluation.settings import Settings
from services.evaluation.toxicity import ToxicityModel

TOPICS = Catalogue.load().topics
NAMES = ("pricing", "spend", "watching", "feedback", "learning", "judging", "experiments")
CATALOGUE = Catalogue(
    topics={
        **TOPICS,
        # Tables write their changelogs to the same log.
        **{f"evaluation-{n}-changelog": replace(TOPICS["costs"], name=f"evaluation-{n}-changelog") for n in NAMES},
    },
    root=Catalogue.load().root,
)
INSULT = "you are a worthless piece of shit"


@dataclass
class Agents:
    """The agents, and the log they read and write."""

    bus: MemoryBus
    agents: dict[str, Any]
    processors: dict[str, StatefulProcessor[Any, Any]]
    read: dict[tuple[str, str], int] = field(default_factory=dict)

    async def pump(self, name: str, topics: Sequence[str]) -> None:
        """Give an agent what is new on its topics and checkpoint."""
        for topic in topics:
            messages = self.bus.messages(topic)
            for message in messages[self.read.get((name, topic), 0) :]:
                await self._put(self.agents[name], message)
            self.read[name, topic] = len(messages)
        await self.processors[name].checkpoint()

    async def _put(self, agent: Any, message: Message) -> None:
        raw = FaustMessage(
            message.topic, message.partition, message.offset, message.timestamp_ms / 1000, 0, list(message.headers),
            message.key, message.value, None, generation_id=agent.app.consumer_generation_id,
        )  # fmt: skip
        async with agent.new_value_processed:
            await agent.stream().channel.put(FaustEvent(agent.app, message.key, message.value, {}, raw))
            await agent.new_value_processed.wait()

    async def everything(self) -> None:
        await self.pump("pricing", ["completions", "documents-indexed"])
        await self.pump("spend", ["costs"])
        await self.pump("watching", ["evaluations"])

    def out(self, topic: str) -> list[Any]:
        return [self.bus.codec.decode(topic, message.value) for message in self.bus.messages(topic)]


@pytest.fixture
async def agents() -> AsyncIterator[Agents]:
    clock = ManualClock()
    bus = MemoryBus(CATALOGUE, clock)
    settings = Settings()
    config = ConfigPlane.of(
        [
            Price(model="m", input_cost_per_token=Decimal("1E-6"), output_cost_per_token=Decimal("2E-6")),
            Team(name="team", budgets=(Budget(name="daily", limit=Decimal("0.01"), alerts=(1.0,)),)),
        ]
    )
    app = faust.App(
        "evaluation", broker="kafka://127.0.0.1:1", store="memory://", key_serializer="raw", value_serializer="raw"
    )
    declared = declare(
        app,
        processors(config, Classifiers({}, {}), settings, 4),
        dict.fromkeys(NAMES, 4),
        codec=bus.codec,
        output=Producer(bus.producer(), bus.codec, "evaluation", clock),
        clock=clock,
        guard=StallGuard(clock, 8.0),
        checkpointing=Checkpointing(interval_s=3600),
    )
    async with AsyncExitStack() as started:
        running = {
            agent.name.rpartition(".")[2]: await started.enter_async_context(agent.test_context())
            for agent in list(app.agents.values())
        }
        yield Agents(bus, running, {processor.name: processor for processor in declared.tables})
        for processor in declared.tables:
            await processor.close()


def completion(number: int, model: str = "m", answer: str = "", tokens: tuple[int, int] = (1000, 500)) -> Completion:
    at = ManualClock().now()
    return Completion(
        event_id=event_id("test", "completion", number), request_id=f"r{number}", tenant_id="team", occurred_at=at,
        causation_id="", context=Context(requested_at=at), messages=[], model=model, backend="openai", content=answer,
        usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]),
    )  # fmt: skip


def result(number: int, prompt: str) -> LlmResult:
    at = ManualClock().now()
    return LlmResult(
        event_id=event_id("test", "result", number), request_id=f"r{number}", tenant_id="team", occurred_at=at,
        causation_id="", context=Context(requested_at=at), status="completed", prompt=prompt, content="Hm.",
    )  # fmt: skip


async def publish(agents: Agents, topic: str, *records: Record) -> None:
    for record in records:
        await agents.bus.publish(topic, "k", record)


async def test_completions_become_costs_spend_and_a_budget_alert(agents: Agents) -> None:
    await publish(agents, "completions", *(completion(n) for n in range(6)), completion(2), completion(9, "unknown"))
    await agents.everything()
    costs: list[Cost] = agents.out("costs")
    assert len(costs) == 7  # the repeated completion gave nothing
    assert {cost.amount for cost in costs} == {Decimal("0.002"), None}
    spend = {s.window: s for s in agents.out("team-spend") if isinstance(s, TeamSpend) and s.budget_name is None}
    assert (spend["day"].amount, spend["day"].calls, spend["day"].unpriced_calls) == (Decimal("0.012"), 7, 1)
    assert {s.amount for s in spend.values()} == {Decimal("0.012")}
    # One newest total a window, not one a cost.
    assert len(agents.out("team-spend")) == len(spend) + 1
    (daily,) = [s for s in agents.out("team-spend") if s.budget_name == "daily"]
    assert (daily.amount, daily.budget, daily.subject) == (Decimal("0.012"), Decimal("0.01"), None)
    assert sorted(alert.name for alert in agents.out("alerts")) == ["budget_threshold", "unpriced_model"]


async def test_a_cost_that_is_late_by_more_than_a_quarter_is_put_aside_and_changes_no_total(agents: Agents) -> None:
    at = ManualClock().now()
    paid = [
        Cost(
            event_id=event_id("test", "cost", days), request_id=f"r{days}", tenant_id="team", occurred_at=at,
            accounted_at=at - timedelta(days=days), causation_id="", context=Context(requested_at=at), model="m",
            priced=True, amount=Decimal("0.001"),
        )
        for days in (0, 91, 93)
    ]  # fmt: skip
    await publish(agents, "costs", *paid)
    await agents.everything()
    (letter,) = agents.out("dlq-evaluation")
    assert (letter.origin_topic, letter.code) == ("costs", "step_failed")
    assert "TooLate" in letter.reason
    days = [s for s in agents.out("team-spend") if s.window == "day" and s.budget_name is None]
    assert sorted((at - s.window_start).days for s in days) == [0, 91]


async def test_toxic_texts_alert(agents: Agents) -> None:
    toxic = Score(name="toxicity", subject="prompt", score=0.97, label="toxic")
    await publish(agents, "evaluations", *(emit.record for emit in scored(result(0, INSULT), [toxic])))
    await agents.everything()
    (alert,) = agents.out("alerts")
    assert (alert.name, alert.sample_requests) == ("severe_prompt", ["r0"])


async def test_the_hop_scores_texts_of_results_and_answers_of_completions() -> None:
    before = _scores("count", "loud"), _scores("sum", "loud")
    clock = ManualClock()
    bus = MemoryBus(CATALOGUE, clock)
    model = ToxicityModel.load()
    toxicity = ToxicityInForce(model, Champions([ToxicityLearner(model)]), None, "hashed")
    config = ConfigPlane.of([Evaluator(name="loud", threshold=0.9), Evaluator(name="rare", rate=0.0)])
    quality = [
        FunctionEvaluator("loud", "1", lambda exchange: float(exchange.answer.isupper()), labels=("quiet", "loud")),
        FunctionEvaluator("rare", "1", lambda exchange: 1.0),
    ]
    hop = scoring_hop(Scorer(quality, toxicity, config), lambda answer: [])
    stop = asyncio.Event()
    running = asyncio.create_task(run_hops([hop], bus, bus.codec, clock, Settings(dlq_min_messages=1000), stop))
    asked = msgspec.structs.replace(
        completion(3, answer="OK"), context=Context(requested_at=clock.now(), purpose="judge")
    )
    failed = msgspec.structs.replace(completion(4), error="no target answered")
    await bus.publish("llm-results", "r0", result(0, INSULT))
    for number, answer in enumerate([completion(1, answer="HELP"), completion(2, answer="Help."), asked, failed]):
        await bus.publish("completions", f"r{number + 1}", answer)
    evaluations = [event.record for event in await bus.collect("evaluations", 3)]
    await bus.settled("evaluation-scores", ["llm-results", "completions"])
    stop.set()
    await running
    assert len(bus.messages("evaluations")) == 3, "what a judge is asked, and what failed, is not scored"
    said = {(each.request_id, s.subject, s.name): s.label for each in evaluations for s in each.scores}
    assert said == {
        ("r0", "prompt", "toxicity"): "toxic", ("r0", "answer", "toxicity"): "clean",
        ("r1", "answer", "loud"): "loud", ("r2", "answer", "loud"): "quiet",
    }  # fmt: skip
    assert (_scores("count", "loud") - before[0], _scores("sum", "loud") - before[1]) == (2.0, 1.0)


def _scores(what: str, evaluator: str) -> float:
    labels = {"evaluator": evaluator, "subject": "answer"}
    return REGISTRY.get_sample_value(f"penstock_evaluator_scores_{what}", labels) or 0.0


async def test_bad_bytes_are_put_aside_and_everything_is_acknowledged(agents: Agents) -> None:
    await agents.bus.append("completions", b"k", b"\x00\x00")
    await publish(agents, "completions", completion(0))
    await agents.everything()
    (letter,) = agents.out("dlq-evaluation")
    assert isinstance(letter, DeadLetter)
    assert (letter.origin_topic, letter.code) == ("completions", "truncated")
    assert len(agents.out("costs")) == 1
    assert not any(processor.failed.done() for processor in agents.processors.values())


async def test_state_is_written_once_a_checkpoint_and_restored_to_the_same(agents: Agents) -> None:
    await publish(agents, "completions", *(completion(n) for n in range(5)))
    await agents.everything()
    changelog = agents.bus.messages("evaluation-spend-changelog")
    # The team's last hours, its month, its budget's day, the two watches, and the ids that were seen.
    assert len(changelog) == 6

    async def restore(contents: Any) -> None:
        contents.clear()
        contents.update({message.key: message.value for message in changelog})

    await agents.processors["spend"].recover(restore)
    await publish(agents, "completions", completion(3), completion(5))
    await agents.everything()
    assert [s.calls for s in agents.out("team-spend") if s.window == "day"] == [5, 5, 6, 6]


async def test_offsets_set_back_add_nothing_however_much_later(agents: Agents) -> None:
    document = DocumentIndexed(
        event_id="d", request_id="upload", tenant_id="team", occurred_at=ManualClock().now(), causation_id="",
        document_id="d", status="indexed", embedder="m", embedded_tokens=30,
    )  # fmt: skip
    await publish(agents, "completions", *(completion(n) for n in range(5)))
    await publish(agents, "documents-indexed", document)
    await agents.everything()
    written = {name: agents.bus.messages(f"evaluation-{name}-changelog") for name in ("pricing", "spend")}
    for name, changelog in written.items():

        async def restore(contents: Any, changelog: Any = changelog) -> None:
            # What the ids said is long forgotten; the offsets are not.
            contents.clear()
            contents.update({message.key: message.value for message in changelog if b"/i/" not in message.key})

        await agents.processors[name].recover(restore)
    before = {topic: len(agents.out(topic)) for topic in ("costs", "team-spend", "alerts")}
    assert before["costs"] == 6
    agents.read.clear()
    await agents.everything()
    assert {topic: len(agents.out(topic)) for topic in before} == before
