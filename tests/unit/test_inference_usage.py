"""The tokens of a call: what endpoints say in several words, and what is taken where they say nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Usage

from services.inference.usage import ReportedUsage, usage_of


def read(reported: dict[str, Any] | None, most_output: int | None = None) -> tuple[Usage, bool]:
    decoded = None if reported is None else msgspec.convert(reported, ReportedUsage)
    return usage_of(decoded, prompt_size=400, answer_size=100, most_output=most_output)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 20}, Usage(input_tokens=90, output_tokens=20)),
        (
            {
                "prompt_tokens": 90,
                "completion_tokens": 20,
                "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 12},
            },
            Usage(input_tokens=90, output_tokens=20, cached_input_tokens=64, reasoning_tokens=12),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 20, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 30},
            Usage(input_tokens=90, output_tokens=20, cached_input_tokens=10, cache_write_input_tokens=30),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 20, "prompt_tokens_details": {"cache_creation_tokens": 30}},
            Usage(input_tokens=90, output_tokens=20, cache_write_input_tokens=30),
        ),
        # Counted beside the cache instead of with it.
        (
            {"prompt_tokens": 5, "completion_tokens": 20, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10},
            Usage(input_tokens=95, output_tokens=20, cached_input_tokens=80, cache_write_input_tokens=10),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 20, "total_tokens": 120, "cache_read_input_tokens": 10},
            Usage(input_tokens=100, output_tokens=20, cached_input_tokens=10),
        ),
        # Reasoning that only the total has: what was generated is paid for, named or not.
        (
            {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
             "completion_tokens_details": {"reasoning_tokens": 94}},
            Usage(input_tokens=32, output_tokens=103, reasoning_tokens=94),
        ),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, Usage(input_tokens=32, output_tokens=103)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 41}, Usage(input_tokens=32, output_tokens=9)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 3}, Usage(input_tokens=32, output_tokens=9)),
        (
            {"prompt_tokens": 90, "completion_tokens": 20, "prompt_tokens_details": None, "cache_read_input_tokens": None},
            Usage(input_tokens=90, output_tokens=20),
        ),
    ],
)  # fmt: skip
def test_every_way_to_say_it_is_read(reported: dict[str, Any], usage: Usage) -> None:
    assert read(reported) == (usage, False)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (None, Usage(input_tokens=400, output_tokens=100)),
        ({}, Usage(input_tokens=400, output_tokens=100)),
        ({"prompt_tokens": 90, "completion_tokens": 0}, Usage(input_tokens=90, output_tokens=100)),
        ({"prompt_tokens": 0, "completion_tokens": 20}, Usage(input_tokens=400, output_tokens=20)),
        ({"prompt_tokens": -1, "completion_tokens": -1}, Usage(input_tokens=400, output_tokens=100)),
    ],
)
def test_what_is_not_said_is_estimated_and_marked(reported: dict[str, Any] | None, usage: Usage) -> None:
    assert read(reported) == (usage, True)
    assert read(reported, most_output=30)[0].output_tokens <= 30


COUNTS = st.none() | st.integers(-5, 500)


@given(
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    st.integers(1, 10_000),
    st.integers(0, 10_000),
    st.none() | st.integers(1, 50),
)
def test_no_call_is_free_and_parts_stay_below_their_whole(
    prompt: int | None,
    completion: int | None,
    total: int | None,
    cached: int | None,
    written: int | None,
    prompt_size: int,
    answer_size: int,
    most: int | None,
) -> None:
    said = ReportedUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cache_read_input_tokens=cached,
        cache_creation_input_tokens=written,
    )
    usage, _ = usage_of(said, prompt_size=prompt_size, answer_size=answer_size, most_output=most)
    assert usage.input_tokens > 0
    assert (usage.output_tokens > 0) or answer_size == 0
    assert usage.cached_input_tokens + usage.cache_write_input_tokens <= usage.input_tokens
    assert min(usage.cached_input_tokens, usage.cache_write_input_tokens) >= 0
