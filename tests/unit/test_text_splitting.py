"""A long text in parts: nothing is lost, headings stand above what is below them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.text.splitting import split_text

BOOK = "# Mill\n\nIntro.\n\n## Weir\n\nWater.\n\n### Gate\n\nOpens at noon.\n\n## Flour\n\nFine.\n"
LINES = st.sampled_from(
    ["# A", "## B", "### C", "words of a line", "", "```", "# no heading", "x" * 30, "水車は回る。"]
)


@given(st.lists(LINES, max_size=40).map("\n".join), st.integers(2, 120), st.booleans())
def test_the_parts_without_the_repeated_headings_are_the_text(text: str, most: int, markdown: bool) -> None:
    left = text
    for part in split_text(text, most, markdown=markdown):
        own = next(part[at:] for at in range(len(part) + 1) if left.startswith(part[at:]))
        assert len(own) <= most
        assert set(part.removesuffix(own).split("\n")) <= {"", "# A", "## B", "### C", "# no heading"}
        left = left.removeprefix(own)
    assert left == ""


def test_cuts_are_before_headings_and_the_path_is_repeated() -> None:
    first, second, third = split_text(BOOK, 40, markdown=True)
    assert first == "# Mill\n\nIntro.\n\n## Weir\n\nWater.\n\n"
    assert second == "# Mill\n\n## Weir\n\n### Gate\n\nOpens at noon.\n\n"
    assert third == "# Mill\n\n## Flour\n\nFine.\n"


def test_a_hash_in_code_is_no_heading() -> None:
    text = "# Top\n\n```\n# a comment\n" + "code\n" * 20 + "```\n"
    assert all("# a comment\n\n" not in part for part in split_text(text, 40, markdown=True))


def test_plain_text_is_cut_between_paragraphs_lines_and_words() -> None:
    assert split_text("one two.\n\nthree four.", 14, markdown=False) == ["one two.\n\n", "three four."]
    assert split_text("aaaa bbbb cccc", 10, markdown=False) == ["aaaa bbbb ", "cccc"]
    assert split_text("a" * 25, 10, markdown=False) == ["a" * 10, "a" * 10, "a" * 5]
    assert split_text("", 10, markdown=False) == [""]
    with pytest.raises(ValueError, match="nothing"):
        split_text("a", 1, markdown=False)
