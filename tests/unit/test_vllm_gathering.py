"""What a request asks of the engine, and how its answer is gathered from what the engine says. No vLLM here."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Priority, Sampling, Usage
from penstock.telemetry import metrics

from services.inference.vllm.gathering import Gathered
from services.inference.vllm.sampling import SamplingError, asked_of, engine_priority, reading_interval
from services.inference.vllm.stats import StepStats


@dataclass
class Part:
    text: str
    token_ids: list[int]
    index: int = 0
    finish_reason: str | None = None
    logprobs: Any = None


@dataclass
class Said:
    outputs: list[Part]
    finished: bool = False
    num_cached_tokens: int | None = None
    metrics: Any = field(default_factory=lambda: SimpleNamespace(queued_ts=10.0, scheduled_ts=10.25))


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_what_a_request_leaves_open_is_the_models_own_choice() -> None:
    asked = asked_of(Sampling(), room=100, defaults={"temperature": 0.6, "top_k": 20}, interval=1)
    assert asked.parameters == {"temperature": 0.6, "top_k": 20, "max_tokens": 100}
    assert (dict(asked.structured), asked.copies) == ({}, 1)


def test_what_a_request_says_goes_before() -> None:
    sampling = Sampling(
        temperature=0.9, top_p=0.8, top_k=5, min_p=0.1, seed=3, stop=["x"], frequency_penalty=0.5, presence_penalty=-0.5,
        top_logprobs=0, max_completion_tokens=7, n=2,
    )  # fmt: skip
    asked = asked_of(sampling, room=100, defaults={"temperature": 0.6, "max_tokens": 50}, interval=1)
    assert asked.parameters == {
        "temperature": 0.9, "top_p": 0.8, "top_k": 5, "min_p": 0.1, "seed": 3, "stop": ["x"], "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "logprobs": 0, "max_tokens": 7, "n": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pace_s", "interval"), [(None, 1), (0.2, 1), (0.03, 1), (0.02, 2), (0.01, 5), (0.002, 8), (0.0, 8)]
)
def test_who_reads_along_gets_as_many_tokens_at_once_as_come_while_pieces_are_gathered(
    pace_s: float | None, interval: int
) -> None:
    assert reading_interval(pace_s) == interval
    parameters = asked_of(Sampling(), room=9, defaults={}, interval=interval).parameters
    assert parameters.get("stream_interval", 1) == interval


@given(st.integers(1, 4096), st.none() | st.integers(1, 8192), st.none() | st.integers(1, 8192))
def test_an_answer_never_takes_more_than_the_prompt_leaves(room: int, wanted: int | None, own: int | None) -> None:
    defaults = {} if own is None else {"max_tokens": own}
    asked = asked_of(Sampling(max_completion_tokens=wanted), room=room, defaults=defaults, interval=16)
    assert asked.parameters["max_tokens"] == min(each for each in (room, own if wanted is None else wanted) if each)


def test_a_form_reaches_the_engine_and_two_are_refused() -> None:
    form = asked_of(Sampling(response_format='{"type": "object"}'), room=9, defaults={}, interval=16)
    assert form.structured == {"json": '{"type": "object"}'}
    assert asked_of(Sampling(regex="a+"), room=9, defaults={}, interval=16).structured == {"regex": "a+"}
    with pytest.raises(SamplingError, match="exclude each other"):
        asked_of(Sampling(regex="a+", response_format="{}"), room=9, defaults={}, interval=16)


def test_answers_that_can_only_be_the_same_are_generated_once() -> None:
    asked = asked_of(Sampling(temperature=0.0, n=3), room=9, defaults={}, interval=16)
    assert "n" not in asked.parameters
    gathered = Gathered(prompt_tokens=5)
    gathered.take(Said([Part("same", [1], finish_reason="stop")], finished=True))
    assert [other.content for other in gathered.answers(asked.copies)] == ["same"] * 3
    assert gathered.usage() == Usage(input_tokens=5, output_tokens=1)


def test_the_interactive_are_served_first() -> None:
    order = [engine_priority(each) for each in (Priority.INTERACTIVE, Priority.STANDARD, Priority.BATCH)]
    assert order == sorted(set(order))
    assert engine_priority("of another version") == engine_priority(Priority.STANDARD)


# -- what comes ------------------------------------------------------------------------------------------------------


def test_an_answer_is_gathered_bit_by_bit() -> None:
    gathered = Gathered(prompt_tokens=40)
    assert gathered.take(Said([Part("Hel", [1])], num_cached_tokens=32)) == "Hel"
    assert gathered.usage() == Usage(input_tokens=40, output_tokens=1, cached_input_tokens=32)
    assert gathered.wasted_tokens == 9
    assert gathered.take(Said([Part("lo", [2, 3], finish_reason="length")], finished=True)) == "lo"
    assert (gathered.first.content, gathered.first.finish_reason, gathered.finished) == ("Hello", "length", True)
    assert gathered.queue_us == 250_000
    assert len(gathered.answers()) == 1


def test_only_the_first_answer_is_read_along() -> None:
    gathered = Gathered(prompt_tokens=40)
    # The second answer finds in the cache what the first put there: that was computed once, for this request.
    assert gathered.take(Said([Part("b", [9], index=1)], num_cached_tokens=32)) == ""
    assert gathered.take(Said([Part("a", [1]), Part("B", [8], index=1)], num_cached_tokens=16)) == "a"
    gathered.take(
        Said([Part("", [], finish_reason="stop"), Part("", [], index=1, finish_reason="length")], finished=True)
    )
    assert gathered.usage() == Usage(input_tokens=40, output_tokens=3, cached_input_tokens=16)
    assert [(other.content, other.finish_reason) for other in gathered.answers()[1:]] == [("bB", "length")]


def entry(text: str, logprob: float, rank: int) -> SimpleNamespace:
    return SimpleNamespace(decoded_token=text, logprob=logprob, rank=rank)


def test_the_likeliest_tokens_stand_beside_the_one_that_was_drawn() -> None:
    gathered = Gathered(prompt_tokens=1, top_logprobs=2)
    drawn_third = {7: entry("c", -3.0, 3), 1: entry("a", -0.1, 1), 2: entry("b", -2.0, 2)}
    half_characters = {4: entry("\ufffd", -0.5, 1), 5: entry("\ufffd", -0.9, 2)}
    gathered.take(Said([Part("c\ufffd", [7, 5], logprobs=[drawn_third, half_characters])]))
    first, second = gathered.first.logprobs
    assert (first.token, first.logprob, first.top) == ("c", -3.0, {"a": -0.1, "b": -2.0})
    assert (second.token, second.logprob, second.top) == ("\ufffd", -0.9, {"\ufffd": -0.5})


@pytest.mark.parametrize(("reason", "broken", "failed"), [("abort", True, False), ("error", False, True)])
def test_answers_that_the_engine_gives_up_are_none(reason: str, broken: bool, failed: bool) -> None:
    gathered = Gathered(prompt_tokens=1)
    gathered.take(Said([Part("half", [1], finish_reason=reason)], finished=True))
    assert (gathered.broken, gathered.failed) == (broken, failed)


def test_the_figures_of_each_step_are_metrics() -> None:
    stats, model = StepStats("m-of-stats"), "m-of-stats"
    scheduler = SimpleNamespace(
        num_running_reqs=3, num_waiting_reqs=2, num_skipped_waiting_reqs=1, kv_cache_usage=0.25,
        prefix_cache_stats=SimpleNamespace(queries=100, hits=64),
    )  # fmt: skip
    step = SimpleNamespace(num_prompt_tokens=100, num_generation_tokens=3, num_preempted_reqs=1)
    for _ in range(2):
        stats.record(scheduler_stats=scheduler, iteration_stats=step, mm_cache_stats=None, engine_idx=0)
    stats.record(None, None)
    assert metrics.ENGINE_RUNNING.labels(model)._value.get() == 3
    assert metrics.ENGINE_WAITING.labels(model)._value.get() == 3
    assert metrics.ENGINE_KV_CACHE_USAGE.labels(model)._value.get() == 0.25
    assert metrics.PREFIX_CACHE_QUERIES.labels(model)._value.get() == 200
    assert metrics.PREFIX_CACHE_HITS.labels(model)._value.get() == 128
    assert metrics.ENGINE_TOKENS.labels(model, "output")._value.get() == 6
    assert metrics.ENGINE_PREEMPTIONS.labels(model)._value.get() == 2
    stats.stopped()
    assert metrics.ENGINE_RUNNING.labels(model)._value.get() == 0
