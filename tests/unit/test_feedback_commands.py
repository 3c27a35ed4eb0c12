"""``penstock feedback`` and ``annotations`` over the log in memory: what is written joins, what is read is whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner
from penstock.bus import MemoryBus
from penstock.cli.main import main
from penstock.clock import ManualClock
from penstock.contracts.envelope import request_key
from penstock.contracts.records import (
    AnnotationTask,
    Completion,
    Evaluation,
    Feedback,
    JudgeTask,
    LlmResult,
    Message,
    Record,
)

from services.evaluation.feedback.command_annotations import asked, labelled, tasks_standing
from services.evaluation.feedback.command_export import Manifest, Wanted, bounds_of, exported
from services.evaluation.feedback.command_give import given, listed
from services.evaluation.feedback.dataset import Choices, Dataset
from services.evaluation.feedback.giving import Said, labels_of
from services.evaluation.feedback.log import Log
from services.evaluation.feedback.tasks import next_for
from tests.unit.feedback_partition import NOW, evaluation, feedback, passage, result

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class World:
    """A log, and what stands on it."""

    def __init__(self, catalogue: Any) -> None:
        self.bus = MemoryBus(catalogue, ManualClock(NOW))

    @property
    def log(self) -> Log:
        return Log(self.bus, self.bus.codec)

    async def put(self, *records: Record) -> None:
        topics: dict[type[Record], str] = {
            LlmResult: "llm-results", Evaluation: "evaluations", Feedback: "feedback", AnnotationTask: "annotation-tasks",
            Completion: "completions", JudgeTask: "judge-tasks",
        }  # fmt: skip
        for record in records:
            await self.bus.publish(topics[type(record)], record.request_id, record)

    async def exported(self, name: str, log: Log | None = None, **choices: Any) -> tuple[Dataset, Manifest]:
        return await exported(log or self.log, Wanted(name, Choices(**choices), None, None))

    async def rows(self, name: str, **choices: Any) -> list[Any]:
        dataset, manifest = await self.exported(name, **choices)
        assert manifest.rows == len(dataset.lines) == len(manifest.requests)
        return [json.loads(line) for line in dataset.lines]


@pytest.fixture
def world(catalogue: Any) -> World:
    return World(catalogue)


def task(number: int, queue: str = "toxicity", *, raters: int = 1, priority: float = 0.5) -> AnnotationTask:
    of = result(number)
    return AnnotationTask(
        event_id=f"task-{queue}-{number}", request_id=of.request_id, tenant_id=of.tenant_id, occurred_at=of.occurred_at,
        causation_id="", context=of.context, queue=queue, reason="uncertain", priority=priority, prompt=of.prompt,
        content=of.content, labels=[f"answer.{queue}"], raters=raters,
    )  # fmt: skip


def completion(number: int, *messages: Message, **fields: Any) -> Completion:
    of = result(number)
    return Completion(
        event_id=f"completion-{number}-{fields.get('attempt', 0)}", request_id=of.request_id, tenant_id=of.tenant_id,
        occurred_at=of.occurred_at, causation_id="", context=of.context, messages=list(messages), model="m",
        backend="openai", content="unscreened", **fields,
    )  # fmt: skip


# -- giving ------------------------------------------------------------------------------------------------------------


async def test_feedback_is_written_under_the_key_of_its_request(world: World) -> None:
    await world.put(result(0), result(1))
    said = Said(rating=0.0, labels=["answer.toxicity=clean"], correction="Better.", comment="hm", chosen="a")
    await given(world.bus, world.bus.codec, said, "r0", by="ada")
    (event,) = await world.bus.collect("feedback", 1)
    one = event.record
    assert event.message.key == request_key(result(0).context, "r0").encode() == b"c0"
    assert (one.tenant_id, one.request_id, one.conversation_id, one.user_id, one.source, one.queue) == (
        "team", "r0", "c0", "ada", "user", None,
    )  # fmt: skip
    assert (one.rating, one.labels, one.correction, one.comment, one.chosen) == (
        0.0, {"answer.toxicity": "clean"}, "Better.", "hm", "a",
    )  # fmt: skip


async def test_a_request_that_is_not_there_or_not_clear_is_named(world: World) -> None:
    with pytest.raises(click.ClickException, match="no result of request 'r0' is in the log"):
        await given(world.bus, world.bus.codec, Said(rating=1.0), "r0", by="ada")
    await world.put(result(0), result(0, team="rival"))
    with pytest.raises(click.ClickException, match=r"choose one with --team \(rival, team\)"):
        await given(world.bus, world.bus.codec, Said(rating=1.0), "r0", by="ada")
    early = await given(world.bus, world.bus.codec, Said(rating=1.0), "r9", team="team", conversation="c9", by="ada")
    assert (early.request_id, early.conversation_id) == ("r9", "c9")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["feedback", "give", "r0"], "say something"),
        (["feedback", "give", "r0", "--thumb", "up", "--rating", "1"], "not both"),
        (["feedback", "give", "r0", "--rating", "5"], "0<=x<=1"),
        (["feedback", "give", "r0", "--label", "toxicity=clean"], "answer.NAME=VALUE"),
        (["feedback", "give", "r0", "--label", "answer.toxicity=nice"], "toxicity is labelled toxic or clean"),
        (["annotations", "label", "r0"], "say something"),
        (["feedback", "export", "--format", "csv", "--out", "x"], "'csv' is not one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_told_before_anything_is_opened(arguments: list[str], told: str) -> None:
    run = CliRunner().invoke(main, arguments)
    assert run.exit_code == 2
    assert told in run.output


def test_labels_of_other_names_are_taken_as_they_are() -> None:
    assert labels_of(["answer.helpfulness=good", "prompt.topic=a=b"]) == {
        "answer.helpfulness": "good",
        "prompt.topic": "a=b",
    }


async def test_the_list_shows_what_stands_and_of_what_it_was_said(world: World) -> None:
    await world.put(
        result(0), feedback(0, "ada", rating=0.0), feedback(0, "ada", repeat=1, rating=1.0), feedback(5, "bob", rating=0.5),
        feedback(0, "bob", repeat=2, team="rival", rating=0.0),
    )  # fmt: skip
    rows = await listed(world.log, LONG_AGO)
    assert [(each.user_id, each.rating, case.result is not None) for case, each in rows] == [
        ("bob", 0.5, False), ("ada", 1.0, True), ("bob", 0.0, False),
    ]  # fmt: skip
    assert [case.team for case, _ in await listed(world.log, LONG_AGO, team="rival")] == ["rival"]
    assert await listed(world.log, NOW + timedelta(hours=1)) == []


# -- annotating --------------------------------------------------------------------------------------------------------


async def test_what_enough_people_labelled_is_not_shown_again(world: World) -> None:
    await world.put(
        task(0, raters=2, priority=0.9), task(1, priority=0.6), task(1, "groundedness", priority=0.3), task(0)
    )
    bus = world.bus

    async def turn(name: str, queue: str | None = None) -> str | None:
        found = next_for(name, await tasks_standing(world.log), queue)
        return None if found is None else f"{found.task.queue}/{found.task.request_id}"

    assert await turn("ada") == "toxicity/r0"
    assert await turn("ada", "groundedness") == "groundedness/r1"
    await labelled(bus, bus.codec, Said(labels=["answer.toxicity=clean"]), "r0", name="ada")
    await labelled(bus, bus.codec, Said(labels=["answer.toxicity=toxic"]), "r0", name="ada")  # ada again: one rater
    assert await turn("ada") == "toxicity/r1"
    assert await turn("bob") == "toxicity/r0"
    await labelled(bus, bus.codec, Said(labels=["answer.toxicity=clean"]), "r0", name="bob")
    assert await turn("eve") == "toxicity/r1"
    with pytest.raises(click.ClickException, match=r"team/groundedness, team/toxicity"):
        await labelled(bus, bus.codec, Said(rating=1.0), "r1", name="eve")
    await labelled(bus, bus.codec, Said(rating=1.0), "r1", name="eve", queue="toxicity")
    await labelled(bus, bus.codec, Said(rating=1.0), "r1", name="eve", queue="groundedness")
    assert await turn("zoe") is None
    with pytest.raises(click.ClickException, match="no task for request 'r7'"):
        await labelled(bus, bus.codec, Said(rating=1.0), "r7", name="eve")
    one = (await bus.collect("feedback", 1))[0]
    assert one.message.key == b"c0"
    assert (one.record.source, one.record.queue, one.record.user_id) == ("moderator", "toxicity", "ada")
    assert one.record.causation_id == "task-toxicity-0"


def test_labels_are_asked_for_and_asked_again_where_they_are_none() -> None:
    with CliRunner().isolation(input="nice\nclean\n7\n0.25\nBetter.\n"):
        said = asked(task(0))
    assert (said.labels, said.rating, said.correction) == ({"answer.toxicity": "clean"}, 0.25, "Better.")
    with CliRunner().isolation(input="\n\n\n"):
        assert not asked(task(0))


# -- exporting ---------------------------------------------------------------------------------------------------------


async def test_fine_tuning_rows_are_corrected_or_well_rated_answers_in_their_conversation(world: World) -> None:
    turns = [Message(role="system", content="Be brief."), Message(role="user", content="And then?")]
    await world.put(
        *(result(number) for number in range(6)), result(6, purpose="judge"), result(7, status="blocked", content=""),
        completion(0, *turns, Message(role="user", content="Again."), attempt=1), completion(0, *turns),
        feedback(0, "ada", correction="By a user."), feedback(0, "mo", source="moderator", correction="By a moderator."),
        feedback(1, "ada", rating=1.0), feedback(1, "bob", rating=0.6), feedback(1, "ada", repeat=1, rating=0.9),
        feedback(2, "ada", rating=0.2),
        feedback(3, "ada", rating=1.0, labels={"answer.toxicity": "toxic"}),
        feedback(6, "ada", rating=1.0), feedback(7, "ada", rating=1.0), feedback(8, "ada", rating=1.0),
    )  # fmt: skip
    dataset, manifest = await world.exported("sft")
    assert [json.loads(line)["messages"] for line in dataset.lines] == [
        [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": "By a moderator."},
        ],
        [{"role": "user", "content": "question 1"}, {"role": "assistant", "content": "answer 1"}],
    ]  # fmt: skip
    assert manifest.requests == [("team", "r0"), ("team", "r1")]
    assert manifest.skipped == {
        "labelled toxic or ungrounded": 1, "neither corrected nor well rated": 1, "no released answer": 1,
        "not served traffic": 1, "result not in the log": 1,
    }  # fmt: skip
    assert len(await world.rows("sft", min_rating=0.1)) == 3


async def test_preferences_are_of_corrections_and_of_answers_that_were_compared(world: World) -> None:
    compared = JudgeTask(
        event_id="judge-1", request_id="r1", tenant_id="team", occurred_at=NOW, causation_id="", context=result(1).context,
        rubric="preference", question="Which?", answers=["first", "second"], reply_key="c1",
    )  # fmt: skip
    await world.put(
        result(0), result(1), result(2), result(3), compared,
        feedback(0, "ada", correction="Better."),
        feedback(1, "ada", chosen="b"), feedback(1, "bob", chosen="b"), feedback(1, "eve", chosen="a"),
        feedback(2, "ada", correction="answer 2"), feedback(3, "ada", chosen="tie"),
    )  # fmt: skip
    assert await world.rows("preferences") == [
        {"prompt": "question 0", "chosen": "Better.", "rejected": "answer 0"},
        {"prompt": "Which?", "chosen": "second", "rejected": "first"},
    ]


async def test_label_rows_are_what_most_raters_say_in_the_formats_of_the_evaluators(world: World) -> None:
    toxic, clean = {"answer.toxicity": "toxic"}, {"answer.toxicity": "clean", "prompt.toxicity": "clean"}
    grounded = {"answer.groundedness": "grounded"}
    await world.put(
        result(0), result(1), result(2, citations=[passage("One."), passage("Two.")]),
        feedback(0, "ada", labels=toxic), feedback(0, "bob", labels=toxic), feedback(0, "eve", labels=clean),
        feedback(1, "ada", labels=toxic), feedback(1, "bob", labels={"answer.toxicity": "clean"}),
        feedback(2, "ada", labels=grounded),
    )  # fmt: skip
    assert await world.rows("labels") == [
        {"text": "question 0", "label": 0, "source": "feedback"},
        {"text": "answer 0", "label": 1, "source": "feedback"},
    ]
    row = {"question": "question 2", "response": "answer 2", "grounded": 1, "source": "feedback"}
    assert await world.rows("labels", label="groundedness") == [{"context": "One.\n\nTwo.", **row}]
    # The answer was made of all passages that were attached, not of those alone that it quotes.
    await world.put(completion(2, passages=[passage("Three.")]))
    assert await world.rows("labels", label="groundedness") == [{"context": "Three.", **row}]


async def test_everything_goes_out_with_scores_and_versions(world: World) -> None:
    await world.put(
        result(0), evaluation(0, [("answer.toxicity", 0.9, "toxic")]), feedback(0, "ada", rating=0.0, comment="hm"),
        feedback(4, "ada", rating=0.0),
    )  # fmt: skip
    lost, row = await world.rows("jsonl")
    assert (row["request_id"], row["prompt_version"], row["answer"]) == ("r0", "v1", "answer 0")
    assert row["scores"] == {"answer.toxicity": {"score": 0.9, "label": "toxic", "version": "v7"}}
    assert (row["feedback"]["rating"], row["feedback"]["comment"]) == (0.0, "hm")
    assert (lost["request_id"], "answer" in lost) == ("r4", False)


async def test_a_dataset_is_made_again_from_its_manifest_however_the_log_grew(world: World) -> None:
    await world.put(*(result(number) for number in range(30)))
    await world.put(*(feedback(number, "ada", correction=f"Better {number}.") for number in range(20)))
    dataset, manifest = await world.exported("sft")
    await world.put(feedback(0, "ada", repeat=1, correction="Changed."), feedback(25, "ada", correction="New."))
    assert (await world.exported("sft"))[1].sha256 != manifest.sha256
    read = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    again, after = await world.exported("sft", Log(world.bus, world.bus.codec, bounds_of(read)))
    assert again.content == dataset.content
    assert (after.sha256, after.log, after.feedback) == (manifest.sha256, manifest.log, 20)
    assert {(one.topic, one.first_offset) for one in manifest.log} == {("feedback", 0), ("llm-results", 0)}
