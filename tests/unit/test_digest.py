"""The digest of a growing text: the same wherever it was cut, another for other words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.digest import extended_digest

TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)


@given(TEXTS, st.lists(st.integers(0, 80), max_size=6))
def test_where_a_text_was_cut_makes_no_difference(text: str, places: list[int]) -> None:
    digest, start = "", 0
    for place in [*sorted(places), len(text)]:
        digest = extended_digest(digest, text[start:place])
        start = max(start, place)
    assert digest == extended_digest("", text)
    assert len(digest) == 32


@given(TEXTS, TEXTS)
def test_other_words_have_another_digest(one: str, other: str) -> None:
    assert (extended_digest("", one) == extended_digest("", other)) == (one == other)


def test_order_and_leading_zero_characters_count() -> None:
    assert extended_digest("", "\0") != extended_digest("", "") != extended_digest("", "\0\0")
    assert extended_digest("", "a" * 128 + "b") != extended_digest("", "b" + "a" * 128)
