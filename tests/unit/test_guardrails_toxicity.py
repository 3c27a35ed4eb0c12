"""The toxicity scanner: abuse is found in plain, disguised and buried form, and identities are no insult."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding.static import shared_static_embedding

from services.guardrails.findings import Reference, Rule
from services.guardrails.models.toxicity_phrases import disguised
from services.guardrails.scanners.toxicity import ToxicityModel, ToxicityScanner
from services.guardrails.scanners.toxicity_features import BITS, features, read

SCANNER = ToxicityScanner.packaged()
RULE = Rule("block", 0.5, True)
NOTHING = Reference()


def scores(text: str) -> dict[str, float]:
    return {span.kind: span.score for span in SCANNER.scan(text, RULE, NOTHING)}


@pytest.mark.parametrize(
    "text",
    [
        "You are a disgusting piece of shit and everybody hates you.",
        "shut up you stupid bitch",
        "I hope you die, you worthless idiot!",
        "What a pathetic moron you are.",
        "sh!t, you f*cking a$$hole",
    ],
)
def test_abuse_is_found(text: str) -> None:
    assert scores(text)["TOXICITY"] >= 0.5


def test_hatred_of_a_group_has_a_kind_of_its_own() -> None:
    found = scores("All immigrants are vermin, they should be shot.")
    assert found["HATE"] >= 0.5
    assert found["TOXICITY"] >= found["HATE"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "How do I kill a zombie process in Linux?",
        "I am a gay man from Cologne and I look for a hiking group.",
        "My muslim neighbours invited us for dinner.",
        "Write a short poem about a black cat and an old woman.",
        "The deaf community of our town meets on Sunday.",
        "Set an alarm for seven and play some jazz.",
        "def kill(self): self.process.terminate()",
    ],
)
def test_ordinary_texts_are_left_alone(text: str) -> None:
    assert all(score < 0.5 for score in scores(text).values())


def test_an_insult_is_not_diluted_by_a_long_text() -> None:
    filler = "The invoice was paid on time and the parcel arrived on Monday. " * 40
    insult = "You are a worthless piece of shit."
    text = f"{filler}{insult} {filler}"
    (span,) = [span for span in SCANNER.scan(text, RULE, NOTHING) if span.kind == "TOXICITY"]
    assert span.score >= 0.5
    assert insult in text[span.start : span.end]
    assert span.end - span.start < 200


def test_signs_and_gaps_are_read_as_letters() -> None:
    assert read("You 1d10t, @someone https://x.example/y #tag s t u p i d!") == [
        "you", "idiot", "tag", "stupid", "!",
    ]  # fmt: skip


def test_features_of_pieces_do_not_depend_on_each_other() -> None:
    first, second = ["you", "are", "nice"], ["what", "a", "day"]
    both = features([first, second], shared_static_embedding())
    alone = features([second], shared_static_embedding())
    assert sorted(both.word_slots[both.word_pieces == 1]) == sorted(alone.word_slots)
    assert sorted(both.char_slots[both.char_pieces == 1]) == sorted(alone.char_slots)
    np.testing.assert_array_equal(both.embedded[1], alone.embedded[0])


def test_a_model_of_another_size_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    wrong = np.zeros((4, 2), np.float32)
    np.savez(tmp_path / "m.npz", word=wrong, char=wrong, embedded=wrong, bias=np.zeros(2))
    (tmp_path / "m.json").write_text('{"version": "x"}')
    with pytest.raises(ValueError, match=rf"shape \(4, 2\), not \({1 << BITS}, 2\): train it again"):
        ToxicityModel.load(tmp_path / "m")


def test_disguises_leave_other_words_alone() -> None:
    import random

    text = disguised("the idiot walks home", frozenset({"idiot"}), random.Random(1))
    assert text.startswith("the ")
    assert text.endswith(" walks home")
    assert "idiot" not in text


@given(
    st.text(max_size=500)
    | st.lists(st.sampled_from(["you", "idiot", ".", "\ud800", "&amp;", "f*ck", "\n"])).map(" ".join)
)
@settings(deadline=None, max_examples=100)
def test_any_text_is_judged_alike_twice_and_spans_lie_within_it(text: str) -> None:
    found = SCANNER.scan(text, RULE, NOTHING)
    assert found == SCANNER.scan(text, RULE, NOTHING)
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in found)


@pytest.mark.parametrize("unit", ["You are nice. ", "a", "a.", "\n", "f*", "a ", "@", "&", "http://", "'"])
def test_time_grows_with_the_length_alone(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            SCANNER.scan(text, RULE, NOTHING)
            best = min(best, time.thread_time() - started)
        return best

    seconds(1000)
    assert seconds(32_000) <= 8 * seconds(8_000) + 0.02
