"""The marker of a system prompt is taken off as it was put on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.text.marker import marked, unmarked

MARKER = "ref-0123456789abcdef"


@given(st.text())
def test_a_prompt_is_the_same_without_its_marker(prompt: str) -> None:
    assert unmarked(marked(prompt, MARKER)) == (prompt, MARKER)


@pytest.mark.parametrize(
    "prompt", ["", "Be brief.", f"{marked('Be brief.', MARKER)} More.", marked("Be brief.", "ref-1")]
)
def test_a_prompt_without_a_marker_is_left_as_it_is(prompt: str) -> None:
    assert unmarked(prompt) == (prompt, None)
