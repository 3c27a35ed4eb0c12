"""What must hold however hostile a text is and whatever breaks: nothing leaves unscreened, wrongly restored or twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from services.guardrails.findings import AnyScanner, Reference, Rule, Span
from services.guardrails.scanners.format import FormatScanner
from services.guardrails.scanners.language import LanguageScanner
from services.guardrails.scanners.secrets import SecretsScanner
from services.guardrails.scanners.text_rules import InvisibleTextScanner, RegexScanner
from services.guardrails.screening import Limits, Screening, Segment, screen

SECRET = "ghp_" + "a1B2" * 9
NOTHING = Reference()
LIMITS = Limits()
ANY_OBJECT = '{"type": "object"}'


@dataclass
class Stub:
    """A scanner that finds or raises what it is told."""

    name: str = "pii"
    spans: Sequence[Span] = ()
    error: Exception | None = None
    version: str = "1"
    default_threshold: float = 0.5
    repairs: int = 0

    def scan(self, text: str, rule: Rule, reference: Reference) -> Sequence[Span]:
        if self.error is not None:
            raise self.error
        return self.spans

    def repair(self, text: str, rule: Rule) -> str | None:
        self.repairs += 1
        return None


def run(
    segments: Sequence[Segment | str],
    *rules: tuple[AnyScanner, Rule],
    reference: Reference = NOTHING,
    limits: Limits = LIMITS,
) -> Screening:
    texts = [Segment(segment) if isinstance(segment, str) else segment for segment in segments]
    return screen(texts, rules, reference, limits, lambda: 0.0, b"key")


REMOVE_INVISIBLE = (InvisibleTextScanner(), Rule("mask", 0.5, True))


@pytest.mark.parametrize("sign", ["\u200b", "\u00ad", "\ufeff", "\u2060", "\U000e0041"])
@pytest.mark.parametrize("removed", [True, False])
def test_a_secret_that_invisible_characters_split_is_found(sign: str, removed: bool) -> None:
    text = f"use {SECRET[:9]}{sign}{SECRET[9:]} now"
    secrets = (SecretsScanner(), Rule("mask", 0.5, True))
    done = run([text], *([REMOVE_INVISIBLE] if removed else []), secrets)
    assert done.texts == ("use <GITHUB_TOKEN_1> now",)
    [found] = [finding for finding in done.findings if finding.scanner == "secrets"]
    assert text[found.start : found.end] == f"{SECRET[:9]}{sign}{SECRET[9:]}"


def test_an_expression_is_held_against_the_text_with_and_without_its_invisible_characters() -> None:
    rule = Rule("block", 0.5, True, patterns=("proj-[0-9]+", "\u200b"))
    done = run(["pro\u200bj-12"], (RegexScanner(), rule))
    assert [(finding.start, finding.end) for finding in done.findings] == [(3, 4), (0, 8)]


def test_why_a_scanner_failed_does_not_quote_the_text() -> None:
    done = run(
        [f"my key is {SECRET}"], (Stub(error=ValueError(f"invalid literal: {SECRET!r}")), Rule("mask", 0.5, True))
    )
    assert done.action == "block"
    assert SECRET not in str(done.errors)
    assert "ValueError at test_guardrails_review.py:" in done.errors["pii"]


def test_an_empty_answer_is_held_against_the_format() -> None:
    rule = (FormatScanner(), Rule("block", 0.5, True, json_schema=ANY_OBJECT))
    assert run([Segment("", "answer")], rule).action == "block"
    assert run([Segment("{}", "answer"), Segment("", "passage")], rule).action == "allow"


def test_a_quoted_passage_may_be_in_another_language_than_the_question() -> None:
    question = "How do I apply for the refund of my travel expenses?"
    german = "Reisekosten werden auf Antrag erstattet. Die Belege sind innerhalb von sechs Monaten beizufügen."
    rule = (LanguageScanner(), Rule("block", 0.65, True, same_language=True))
    answer = Segment("Travel expenses are refunded on application.", "answer")
    reference = Reference(question=question)
    assert run([answer, Segment(german, "passage")], rule, reference=reference).action == "allow"
    assert run([Segment(german, "answer")], rule, reference=reference).action == "block"


def test_a_deletion_without_any_text_survives_a_scanner_that_fails() -> None:
    ticks = iter(range(100))
    rules = [(Stub(), Rule("mask", 0.5, True, time_budget_s=0.5))]
    done = screen([], rules, NOTHING, Limits(time_budget_s=100), lambda: float(next(ticks)))
    assert done.texts == ()


def test_a_text_above_the_limit_is_not_mended_either() -> None:
    scanner = Stub("format", [Span("INVALID_JSON", 0, 9, 1.0)])
    rule = (scanner, Rule("block", 0.5, True, name="format", repair=True))
    assert run([Segment("x" * 9, "answer")], rule, limits=Limits(max_chars=4)).action == "block"
    assert scanner.repairs == 0
