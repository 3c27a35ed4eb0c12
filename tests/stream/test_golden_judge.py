"""Judges of a golden set's run on the in-memory log: asked once, whatever breaks off, and what fails is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from penstock.bus import MemoryBus, Producer
from penstock.clock import SystemClock
from penstock.config.rubrics import Rubric
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, DeadLetter, Evaluation, JudgeTask, Score

from services.evaluation.golden.answers import Answer, Run
from services.evaluation.golden.dataset import parse_dataset
from services.evaluation.golden.judged import (
    JudgementFile,
    Question,
    judge,
    pairwise_tables,
    pointwise,
    questions_of,
)
from services.evaluation.golden.variants import Variant

CLOCK = SystemClock()
CASES = parse_dataset(
    [json.dumps({"id": f"c{n}", "question": "q", "reference": "right"}) for n in range(4)], "s", "s"
).cases
RUBRICS = [
    Rubric(name="clear", prompt="p", route="r", choices=[{"name": "good", "score": 1, "meaning": "m"},
           {"name": "bad", "score": 0, "meaning": "m"}]),
    Rubric(name="better", mode="pairwise", prompt="p", route="r"),
]  # fmt: skip


def answers() -> list[Answer]:
    """Of the four cases ``b`` answers one like ``a``, one not at all, and two in other words."""
    made = []
    for variant, texts in (("a", ["same", "one", "two", "three"]), ("b", [" same ", "uno", "dos", ""])):
        made += [
            Answer(
                case=case.id, case_version=case.version, variant=variant, request_id=f"{variant}{n}", content=text,
                status="completed" if text else "expired",
            )
            for n, (case, text) in enumerate(zip(CASES, texts, strict=True))
        ]  # fmt: skip
    return made


@asynccontextmanager
async def judges(bus: MemoryBus, says: Callable[[JudgeTask], float | None]) -> AsyncIterator[list[JudgeTask]]:
    """A judge that gives a score, or no valid verdict: then the task is a dead letter."""
    seen: list[JudgeTask] = []

    async def work() -> None:
        reader = await bus.read(["judge-tasks"], from_end=True)
        while True:
            for message in await reader.poll(0.05):
                task = bus.codec.decode(message.topic, message.value)
                assert isinstance(task, JudgeTask)
                seen.append(task)
                score = says(task)
                envelope = {"request_id": task.request_id, "tenant_id": task.tenant_id, "occurred_at": CLOCK.now()}
                if score is None:
                    letter = DeadLetter(
                        **envelope, event_id=event_id(task.event_id, "dlq"), causation_id="", service="evaluation",
                        group="g", origin_topic=message.topic, origin_partition=message.partition,
                        origin_offset=message.offset, code="judge_failed", reason="the answer is no verdict",
                    )  # fmt: skip
                    await bus.publish("dlq-evaluation", task.reply_key, letter)
                else:
                    said = Score(name=task.rubric, subject="answer", score=score, reason="because")
                    evaluation = Evaluation(
                        **envelope, event_id=event_id(task.event_id, "judged"), causation_id=task.event_id,
                        context=Context(requested_at=CLOCK.now()), scores=[said],
                    )  # fmt: skip
                    await bus.publish("evaluations", task.reply_key, evaluation)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), CLOCK)


@pytest.fixture
def run() -> Run:
    return Run(
        run="run", started_at=CLOCK.now(), dataset="s", dataset_version="v", team="support",
        variants=[Variant("a"), Variant("b")],
    )  # fmt: skip


def asked(run: Run) -> list[Question]:
    return questions_of(run, {case.id: case for case in CASES}, answers(), "a", RUBRICS, CLOCK)


async def judged(bus: MemoryBus, folder: Path, run: Run, timeout_s: float = 10) -> tuple[JudgementFile, list[str]]:
    kept = JudgementFile(folder)
    producer = Producer(bus.producer(), bus.codec, "tests", CLOCK)
    notes = await judge(bus, bus.codec, producer, kept, run, asked(run), clock=CLOCK, timeout_s=timeout_s)
    return kept, notes


async def test_each_answer_is_graded_and_only_answers_that_differ_are_compared(
    bus: MemoryBus, run: Run, tmp_path: Path
) -> None:
    # The first answer of a pair is the baseline's; it wins one of the two comparisons, and equal answers tie.
    async with judges(bus, lambda task: float(task.answers[0] != "two")) as seen:
        kept, notes = await judged(bus, tmp_path, run)
    assert notes == []
    pairs = [task for task in seen if task.rubric == "better"]
    assert sorted(tuple(task.answers) for task in pairs) == [("one", "uno"), ("two", "dos")]
    assert len(seen) == 7 + 2
    assert {(task.reference, task.tenant_id, task.context.purpose) for task in seen} == {
        ("right", "support", "evaluation")
    }
    said = list(kept.said.values())
    assert pointwise(said)["a2"] == {"judge.clear": 0.0}
    won, lost = pairwise_tables(said, ["better"], "b", answers(), "a")
    assert won == {"judge.better": {"c0": 0.5, "c1": 1.0, "c2": 0.0}}
    assert lost == {"judge.better": {"c0": 0.5, "c1": 0.0, "c2": 1.0}}


async def test_what_was_judged_before_the_run_broke_off_is_not_judged_again(
    bus: MemoryBus, run: Run, tmp_path: Path
) -> None:
    async with judges(bus, lambda task: 1.0) as seen:
        await judged(bus, tmp_path, run)
        first = len(seen)
        lines = (tmp_path / "judgements.jsonl").read_bytes().splitlines(keepends=True)
        # Killed while it wrote: two verdicts are kept, a third is cut off, the others stand on the log alone.
        (tmp_path / "judgements.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
        kept, notes = await judged(bus, tmp_path, run)
    assert (len(seen), len(kept.said), notes) == (first, 9, [])


async def test_what_cannot_be_judged_or_is_late_is_said(bus: MemoryBus, run: Run, tmp_path: Path) -> None:
    async with judges(bus, lambda task: None if task.rubric == "better" else 1.0):
        kept, notes = await judged(bus, tmp_path, run)
    assert notes == ["judge better: 2 of 2 could not be judged, e.g. judge_failed: the answer is no verdict"]
    won, _ = pairwise_tables(list(kept.said.values()), ["better"], "b", answers(), "a")
    assert won == {"judge.better": {"c0": 0.5}}
    nobody, notes = await judged(MemoryBus(Catalogue.load(), CLOCK), tmp_path.parent, run, timeout_s=0.1)
    assert nobody.said == {}
    assert notes[0].startswith("judge clear: 7 of 7 have no verdict in time")


def test_what_lacks_the_evidence_that_a_rubric_requires_is_not_judged_by_it(run: Run) -> None:
    by_id = {case.id: case for case in CASES}
    wanting = questions_of(run, by_id, answers(), "a", RUBRICS, CLOCK, {"clear": {"passages"}, "better": {"reference"}})
    assert {question.rubric for question in wanting} == {"better"}
    without = {case.id: case.model_copy(update={"references": ()}) for case in CASES}
    assert {
        one.rubric for one in questions_of(run, without, answers(), "a", RUBRICS, CLOCK, {"better": {"reference"}})
    } == {"clear"}
