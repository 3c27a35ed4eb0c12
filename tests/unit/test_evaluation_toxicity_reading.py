"""How the toxicity classifier reads a text: disguises undone, ordinary words left alone, long texts cut."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.evaluation.toxicity.lexicon import CLASSES, Lexicon
from services.evaluation.toxicity.phrases import draw, families
from services.evaluation.toxicity.reading import PIECE_WORDS, read


@functools.cache
def lexicon() -> Lexicon:
    return Lexicon.load()


def surfaces(text: str) -> str:
    return " ".join(word.surface for piece in read(text, lexicon()) for word in piece)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("I h4te w0men", "i hate women"),
        ("I h a t e women", "i hate women"),
        ("ihatewomen", "i hate women"),
        ("#DeportImmigrants now", "deport immigrants now"),
        ("f*** off, b*tch", "fuck off , bitch"),
        ("sh!t a$$hole", "shit asshole"),
        ("discusting idoit", "disgusting idiot"),
        ("those imigrants", "those immigrants"),
        ("vеrmin", "vermin"),
        ("b.i.t.c.h", "bitch"),
        ("stuuuupid", "stupid"),
        ("@somebody see https://example.org &amp; go", "see go"),
    ],
)
def test_disguises_are_undone(written: str, meant: str) -> None:
    assert surfaces(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "the people of scunthorpe drink cocktails", "a passage about the assassin", "dickens wrote of pirates",
        "she is an analyst in essex", "charles and diana", "therapist in residence",
    ],
)  # fmt: skip
def test_ordinary_words_that_hold_others_are_left_alone(text: str) -> None:
    assert surfaces(text) == text


def test_identities_are_one_word_to_the_classifier_and_themselves_in_explanations() -> None:
    (piece,) = read("deaf people and south asian women", lexicon())
    named = [word for word in piece if CLASSES[word.code] == "identity"]
    assert [word.surface for word in named] == ["deaf", "asian", "women"]
    assert len({word.text for word in named[:2]}) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=600))
def test_any_text_is_cut_into_pieces_that_are_short_enough(text: str) -> None:
    pieces = read(text, lexicon())
    assert pieces
    assert all(len(piece) <= PIECE_WORDS for piece in pieces)


def test_a_piece_ends_with_a_sentence_where_it_can() -> None:
    sentence = "one two three four five six seven eight nine. "
    pieces = read(sentence * 20, lexicon())
    assert all(piece[-1].surface == "." for piece in pieces)
    assert sum(map(len, pieces)) == 200


def test_hostile_lengths_take_linear_time() -> None:
    for text in ("a" * 200_000, "h a " * 50_000, "f*" * 50_000, "@" * 100_000, "x.y-" * 30_000):
        read(text, lexicon())


def test_phrases_are_drawn_alike_with_one_seed_and_fill_every_slot() -> None:
    drawn = list(draw(2, 5))
    assert drawn == list(draw(2, 5))
    assert {phrase.family for phrase in drawn} == set(families())
    assert not any("{" in phrase.text for phrase in drawn)
    assert all(phrase.toxic == families()[phrase.family] for phrase in drawn)
