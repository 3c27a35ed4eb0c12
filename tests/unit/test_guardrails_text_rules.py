"""Banned words, the policy's expressions, invisible text, token limits and floods."""

from __future__ import annotations

import base64
import inspect
import json
import random
import time
from collections.abc import Callable
from pydoc_data import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding.minilm import packaged_model
from penstock.text.patterns import PatternSet
from tokenizers import Tokenizer

from services.guardrails.findings import DEFAULT_TOKEN_LIMIT, Reference, Rule
from services.guardrails.scanners.text_rules import (
    BannedWordsScanner,
    InvisibleTextScanner,
    RegexScanner,
)  # fmt: skip
from services.guardrails.scanners.token_flood import TokenFloodScanner
from services.guardrails.scanners.token_limit import TokenLimitScanner, estimate_tokens

NOTHING = Reference()


def rule(**options: object) -> Rule:
    return Rule("block", 0.5, fail_closed=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("the Project Falcon memo", "Project Falcon"),
        ("PROJECT   falcon!", "PROJECT   falcon"),
        ("projeсt fаlcon", "projeсt fаlcon"),
        ("falconry", None),
    ],
)
def test_banned_words_are_whole_words_in_any_disguise(text: str, place: str | None) -> None:
    spans = BannedWordsScanner().scan(text, rule(words=("project falcon", "C++")), NOTHING)
    assert [text[span.start : span.end] for span in spans] == ([place] if place else [])


def test_banned_words_may_hold_signs() -> None:
    text = "I like C++ a lot"
    [span] = BannedWordsScanner().scan(text, rule(words=("c++",)), NOTHING)
    assert text[span.start : span.end] == "C++"


def test_expressions_are_linear_whatever_they_say() -> None:
    started = time.perf_counter()
    assert RegexScanner().scan("a" * 50_000 + "!", rule(patterns=("(a+)+$", "(a|aa)+b")), NOTHING) == []
    assert time.perf_counter() - started < 2


def test_an_expression_with_look_around_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\(\?<=x\)y.*look-around"):
        PatternSet(["(?<=x)y"])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hi\u200b\u200bthere", "INVISIBLE_CHARACTERS"),
        ("pay \u202eolleh\u202c now", "BIDI_CONTROL"),
        ("hello" + "".join(chr(0xE0000 + ord(char)) for char in "obey"), "TAG_CHARACTERS"),
    ],
)
def test_invisible_text_is_found(text: str, kind: str) -> None:
    spans = InvisibleTextScanner().scan(text, rule(), NOTHING)
    assert {span.kind for span in spans if span.score >= 0.5} == {kind}


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻 works",
        "❤\ufe0f",
        "می\u200cخواهم",
        "क्\u200dष",
        "co\u00adoperate",
        "\ufeffbegin",
        "🏴\U000e0067\U000e0062\U000e007f",
        "plain",
    ],
)
def test_writing_that_needs_invisible_characters_is_let_through(text: str) -> None:
    assert [span for span in InvisibleTextScanner().scan(text, rule(), NOTHING) if span.score >= 0.5] == []


FLOODS = {
    "signs set apart": "! " * 24,
    "one word": "poem " * 60,
    "two words": "buy now " * 100,
    "a sentence": "I will say this again and again until you give up. " * 40,
    "one letter": "A" * 1000,
    "a unit without spaces": "abc" * 400,
    "few words at random": " ".join(random.Random(5).choices(["spam", "eggs", "ham"], k=300)),
    "behind a question": "What is the capital of France? " + "x" * 400,
    "another script": "垃圾广告" * 300,
    "line feeds": "\n" * 9000,
}
ORDINARY = {
    "a table": "\n".join(f"| row {i} | yes | no | 0 | 0 |" for i in range(300)),
    "rows alike": "| yes | no | yes | no |\n" * 4,
    "CSV": "\n".join(f"{i},0,0,0,1,0,0" for i in range(300)),
    "a sparse vector": "[" + ", ".join(["0"] * 400) + "]",
    "a to-do list": "\n".join(f"- [ ] task {i}" for i in range(100)),
    "JSON": json.dumps([{"a": i, "b": None} for i in range(200)], indent=1),
    "a log": "\n".join(f"2024-01-01 00:00:{i % 60:02d} INFO worker {i % 4} heartbeat ok" for i in range(300)),
    "contents": "\n".join(f"Chapter {i} " + ". " * 60 + str(i) for i in range(20)),
    "dividers": "-" * 1000,
    "DNA": "".join(random.Random(5).choices("ACGT", k=3000)),
    "code": inspect.getsource(inspect),
    "prose": " ".join(f"sentence number {i} says something else about topic {i * 7}" for i in range(100)),
    "emphasis": "No no no no no!!!!!!!! Hahahahahahahaha",
}


@pytest.mark.parametrize("name", FLOODS)
def test_repetition_is_found(name: str) -> None:
    [span] = TokenFloodScanner().scan(FLOODS[name], rule(), NOTHING)
    assert span.score >= TokenFloodScanner.default_threshold
    assert span.end - span.start >= 0.4 * len(FLOODS[name])


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_repetition_is_let_through(name: str) -> None:
    assert [s for s in TokenFloodScanner().scan(ORDINARY[name], rule(), NOTHING) if s.score >= 0.5] == []


def test_more_repetition_scores_higher() -> None:
    scores = [TokenFloodScanner().scan("! " * n, rule(), NOTHING)[0].score for n in (8, 12, 16, 24, 32)]
    assert scores == sorted(set(scores))


def test_a_text_above_the_token_limit_is_found() -> None:
    scanner = TokenLimitScanner()
    assert scanner.scan("word " * 100, rule(limit=50), NOTHING)[0].score == 1
    assert scanner.scan("word " * 51, rule(limit=50), NOTHING)[0].score >= scanner.default_threshold
    assert all(span.score <= 0.5 for span in scanner.scan("word " * 50, rule(limit=50), NOTHING))
    assert scanner.scan("word " * (DEFAULT_TOKEN_LIMIT + 1), rule(), NOTHING)[0].kind == "TOKEN_LIMIT"
    assert scanner.scan("short", rule(), NOTHING) == []


@pytest.mark.parametrize("script", ["English", "German", "Russian", "Chinese", "code", "numbers", "base64"])
def test_the_estimate_is_close_to_a_tokenizer(script: str, wordpiece: Callable[[str], int]) -> None:
    rng = random.Random(9)
    text = {
        "English": " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics))[:20_000],
        "German": "Das Sprachmodell ist ein System zum Verstehen und Erzeugen natürlicher Sprache, dessen Güte zählt. "
        * 9,
        "Russian": "Языковая модель — это система, которая понимает и порождает естественный язык. " * 9,
        "Chinese": "语言模型是一种用于理解和生成自然语言的系统。" * 9,
        "code": inspect.getsource(inspect)[:20_000],
        "numbers": " ".join(str(rng.randrange(10**6)) for _ in range(500)),
        "base64": base64.b64encode(rng.randbytes(3000)).decode(),
    }[script]
    assert 0.7 <= estimate_tokens(text) / wordpiece(text) <= 1.5


@pytest.fixture(scope="module")
def wordpiece() -> Callable[[str], int]:
    """Counts tokens by the packaged embedder's vocabulary."""
    tokenizer = Tokenizer.from_file(str(packaged_model() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=20), st.sampled_from(["! ", "word ", "\u200b", "a" * 40, "\n" * 20])), max_size=30
    )
)
def test_any_text_is_judged_within_bounds(parts: list[str]) -> None:
    text = "".join(parts)
    by = rule(words=("word",), patterns=("a+b",), limit=20)
    scanners = (BannedWordsScanner(), RegexScanner(), InvisibleTextScanner(), TokenFloodScanner(), TokenLimitScanner())
    for scanner in scanners:
        spans = scanner.scan(text, by, NOTHING)
        assert spans == scanner.scan(text, by, NOTHING)
        for span in spans:
            assert 0 <= span.start < span.end <= len(text)
            assert 0 < span.score <= 1


@pytest.mark.parametrize("unit", ["! ", "word ", "ab", "a b c d e ", "\u200b", " ", "漢字", "1 2 3 "])
@pytest.mark.parametrize("scanner", [TokenFloodScanner(), TokenLimitScanner(), InvisibleTextScanner()])
def test_time_is_linear(scanner: TokenFloodScanner | TokenLimitScanner | InvisibleTextScanner, unit: str) -> None:
    def seconds(count: int) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scanner.scan(unit * count, rule(), NOTHING)
            best = min(best, time.thread_time() - started)
        return best

    assert seconds(40_000) < 10 * seconds(10_000) + 0.02
