"""Masks, hashes and pseudonyms: nothing readable remains, and what is to come back comes back as it was."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.guardrails.masking import Stretch, has_pseudonyms, mask_texts, restore

KEY = b"key"


def stretch(start: int, end: int, kind: str = "PERSON", action: str = "pseudonymise", segment: int = 0) -> Stretch:
    return Stretch(segment, start, end, kind, 1.0, action)


def test_one_value_has_one_pseudonym_and_another_spelling_has_its_own() -> None:
    masked = mask_texts(["Ann and ANN and Ann"], [stretch(0, 3), stretch(8, 11), stretch(16, 19)], "", KEY)
    assert masked.texts == ("<PERSON_1> and <PERSON_2> and <PERSON_1>",)
    assert masked.pseudonyms == {"<PERSON_1>": "Ann", "<PERSON_2>": "ANN"}


def test_masks_do_not_tell_cases_apart_and_do_not_come_back() -> None:
    masked = mask_texts(["Ann and ANN"], [stretch(0, 3, action="mask"), stretch(8, 11, action="mask")], "", KEY)
    assert masked.texts == ("<PERSON_1> and <PERSON_1>",)
    assert masked.pseudonyms == {}


def test_a_hash_is_the_same_wherever_the_value_stands_and_needs_the_key() -> None:
    finds = [stretch(0, 3, action="hash"), stretch(0, 3, action="hash", segment=1)]
    first, second = mask_texts(["Ann", "Ann"], finds, "", KEY).texts
    assert first == second
    assert re.fullmatch(r"<PERSON:[0-9a-f]{16}>", first)
    assert mask_texts(["Ann"], finds[:1], "", b"other").texts != (first,)


def test_the_strictest_of_overlapping_replacements_counts() -> None:
    masked = mask_texts(["Ann Lee"], [stretch(0, 7), stretch(4, 7, action="mask")], "", KEY)
    assert masked.texts == ("<PERSON_1>",)
    assert masked.pseudonyms == {}


@pytest.mark.parametrize("written", ["<PERSON_1>", "PERSON_1", "[PERSON_1]", "<person_1>", "&lt;PERSON_1&gt;"])
def test_a_model_may_write_the_pseudonym_otherwise(written: str) -> None:
    assert has_pseudonyms(written)
    assert restore(f"Dear {written}, hello", {"<PERSON_1>": "Ann"}) == "Dear Ann, hello"


@pytest.mark.parametrize("text", ["<PERSON_2>", "PERSON_10", "my person", "SALES_PERSON_1", "PERSON_1_2"])
def test_what_is_no_pseudonym_of_ours_stays(text: str) -> None:
    assert restore(text, {"<PERSON_1>": "Ann"}) == text


# Texts full of what could be taken for a pseudonym.
_PIECES = st.sampled_from(
    ["Ann", " ", "<PERSON_1>", "PERSON_2", "<person_3>", "[", "]", "<", ">", "&lt;", "&gt;", "_", "1", "é", "\\", "PERSON",
     "_4", "x"]
)  # fmt: skip


@st.composite
def marked_texts(draw: st.DrawFn) -> tuple[list[str], list[Stretch]]:
    """Texts, and places in them; places may overlap, as finds of several scanners do."""
    texts, places = [], []
    for segment in range(draw(st.integers(1, 3))):
        text = "".join(draw(st.lists(_PIECES, max_size=20))) + draw(st.text(max_size=20))
        texts.append(text)
        for _ in range(draw(st.integers(0, 4)) if text else 0):
            start = draw(st.integers(0, len(text) - 1))
            end = draw(st.integers(start + 1, len(text)))
            places.append(
                stretch(start, end, draw(st.sampled_from(["PERSON", "EMAIL_ADDRESS", "CODE:py"])), segment=segment)
            )
    return texts, places


@given(marked_texts())
def test_restoring_gives_every_text_back_exactly(case: tuple[list[str], list[Stretch]]) -> None:
    texts, places = case
    masked = mask_texts(texts, places, "", KEY)
    assert [restore(text, masked.pseudonyms) for text in masked.texts] == texts


@given(marked_texts(), st.sampled_from(["mask", "hash"]))
def test_only_what_is_marked_is_replaced(case: tuple[list[str], list[Stretch]], action: str) -> None:
    texts, places = case
    places = [Stretch(p.segment, p.start, p.end, p.kind, p.score, action) for p in places]
    masked = mask_texts(texts, places, "", KEY)
    for index, text in enumerate(texts):
        hidden = {i for p in places if p.segment == index for i in range(p.start, p.end)}
        kept = "".join(char for i, char in enumerate(text) if i not in hidden)
        # What is not marked stands in the masked text in its order.
        position = 0
        for char in kept:
            position = masked.texts[index].index(char, position) + 1
