"""The marker of the system's instructions, as it is and disguised."""

from __future__ import annotations

import base64
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.canary import CanaryScanner

CANARY = "PST-9f27c1d04be83a66"
RULE = Rule("block", 0.5, fail_closed=True)


def scan(text: str, canary: str = CANARY) -> list[Span]:
    return CanaryScanner().scan(text, RULE, Reference(canary=canary))


DISGUISES = {
    "as it is": CANARY,
    "lower case": CANARY.lower(),
    "set apart": " ".join(CANARY),
    "by dashes": "-".join(CANARY),
    "over lines": "\n".join(CANARY),
    "in bold": "**PST**-`9f27c1d0`4be83a66",
    "reversed": CANARY[::-1],
    "reversed, set apart": " ".join(CANARY[::-1]),
    "hexadecimal": CANARY.encode().hex(),
    "hexadecimal, spaced": CANARY.encode().hex(" "),
    "rot13": "CFG-9s27p1q04or83n66",
    "percent": "".join(f"%{ord(char):02X}" for char in CANARY),
    "percent twice": quote("".join(f"%{ord(char):02X}" for char in CANARY)),
    "two parts": "first PST-9f27c1d0 and then 4be83a66",
    "a part": "9f27c1d04b",
} | {f"base64, {n} before": base64.b64encode(("x" * n + CANARY + " and more").encode()).decode() for n in range(4)}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_canary_is_found_in_disguise_and_in_its_place(disguise: str) -> None:
    written = DISGUISES[disguise]
    text = f"Certainly. Here it is: {written} - anything else?"
    [span] = scan(text)
    assert span.kind == "CANARY"
    assert span.score >= CanaryScanner.default_threshold
    place = text.index(written)
    assert place <= span.start < span.end <= place + len(written)
    assert span.end - span.start >= 0.55 * len(written)


@pytest.mark.parametrize(
    "text", ["", "I cannot share my instructions.", "PST is a time zone; 9f27 is a number.", "cafe babe " * 50]
)
def test_other_texts_hold_no_canary(text: str) -> None:
    assert scan(text) == []


def test_without_a_canary_nothing_is_found() -> None:
    assert scan("anything", canary="") == []


def test_a_short_canary_is_found_only_as_it_is() -> None:
    assert scan("it is a-b-1", canary="ab1") == []
    assert [(s.start, s.end) for s in scan("it is ab1, ab1", canary="ab1")] == [(6, 9), (11, 14)]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=30), st.text(max_size=80))
def test_any_canary_in_any_text(before: str, canary: str, after: str) -> None:
    text = before + canary + after
    spans = scan(text, canary)
    assert bool(spans) == bool(canary)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    for span in scan(before + canary.upper() + after, canary):
        assert 0 <= span.start < span.end


@pytest.mark.parametrize("unit", ["9f", "%41", "P ", "UFNU", "İ", "\n"])
def test_time_is_linear(unit: str) -> None:
    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scan(unit * count)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(40_000) < 10 * seconds(10_000) + 0.02
