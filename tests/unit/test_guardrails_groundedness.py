"""Answers judged by the passages they were made from.

`pytest tests/unit/test_guardrails_groundedness.py -s -k labelled` prints the AUC on labelled answers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.groundedness import GroundednessScanner

DATA = Path(__file__).parents[3] / "shared/data/groundedness/train.jsonl"
RULE = Rule("block", 0.5, fail_closed=True)
PASSAGE = (
    "The bridge was opened in 1931 by the mayor, Anna Kovač. It is 1,240 metres long and carries two railway tracks. "
    "Repairs in 1988 took seven months."
)


def score(answer: str, *passages: str) -> float:
    spans = GroundednessScanner().scan(answer, RULE, Reference(passages=passages or (PASSAGE,)))
    return spans[0].score if spans else 0.0


def test_an_answer_without_a_claim_scores_just_below_the_threshold() -> None:
    assert score("Is it?") == 0.45


@pytest.mark.parametrize(
    "answer",
    [
        PASSAGE,
        "Anna Kovac opened the bridge in 1931.",
        "It is 1240 metres long.",
        "The repairs took 7 months in 1988.",
        "The bridge carries two railway tracks and was opened in 1931.",
    ],
)
def test_what_the_passages_say_is_grounded(answer: str) -> None:
    assert score(answer) < GroundednessScanner.default_threshold


@pytest.mark.parametrize(
    "answer",
    [
        "The tunnel collapsed during an earthquake and killed forty workers.",
        "I love bridges! Have you ever crossed one by night?",
        "Designed by the architect Otto Wagner, it cost nine million dollars.",
    ],
)
def test_inventions_and_remarks_are_not(answer: str) -> None:
    assert score(answer) >= GroundednessScanner.default_threshold


def test_a_wrong_number_or_name_costs_more_than_the_right_one() -> None:
    assert score("The bridge was opened in 1968.") > score("The bridge was opened in 1931.")
    assert score("It was opened by Maria Jensen.") > score("It was opened by Anna Kovač.")


def test_the_find_is_the_least_supported_sentence() -> None:
    answer = "The bridge was opened in 1931. It was painted green by volunteers from Ohio.  It carries two tracks."
    [span] = GroundednessScanner().scan(answer, RULE, Reference(passages=(PASSAGE,)))
    assert answer[span.start : span.end] == "It was painted green by volunteers from Ohio."
    assert span.kind == "UNGROUNDED"


def test_scripts_without_spaces_are_compared_by_character() -> None:
    passage = "这座桥于1931年由市长安娜开通。"
    assert score("这座桥于1931年开通。", passage) < 0.3
    assert score("明天会下雨吗？我喜欢猫。", passage) > 0.7


def test_without_passages_nothing_is_found() -> None:
    assert GroundednessScanner().scan("Anything at all.", RULE, Reference()) == []
    assert GroundednessScanner().scan("Anything at all.", RULE, Reference(passages=("", " "))) == []


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.lists(st.text(max_size=100), max_size=3))
def test_any_text_is_judged_within_bounds(answer: str, passages: list[str]) -> None:
    reference = Reference(passages=tuple(passages))
    spans = GroundednessScanner().scan(answer, RULE, reference)
    assert spans == GroundednessScanner().scan(answer, RULE, reference)
    for span in spans:
        assert 0 <= span.start < span.end <= len(answer)
        assert 0 <= span.score <= 1


@pytest.mark.parametrize("unit", ["word ", ". ", "?", "漢", "1,000", "a\u0301", "A "])
def test_time_is_linear(unit: str) -> None:
    def seconds(count: int) -> float:
        text = unit * count
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            score(text, text)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(20_000) < 10 * seconds(5_000) + 0.02


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")
def test_labelled_answers_are_told_apart() -> None:
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
    for source in (None, *sorted({row["source"] for row in rows})):
        chosen = [row for row in rows if source in (None, row["source"])]
        scores = [score(row["response"], row["context"]) for row in chosen]
        found = auc([not row["grounded"] for row in chosen], scores)
        print(f"groundedness AUC {source or 'all'}: {found:.3f} ({len(chosen)} answers)")
        assert found >= (0.955 if source is None else 0.94)


def auc(positive: list[bool], scores: list[float]) -> float:
    """Share of (positive, negative) pairs in the right order; a tie counts half."""
    marked, values = np.array(positive), np.array(scores)
    above = values[marked][:, None] - values[~marked][None, :]
    return float((above > 0).mean() + (above == 0).mean() / 2)
