"""Answers that must keep a schema or match an expression, and the mending of those that nearly do."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.coercion import coerced
from services.guardrails.scanners.format import FormatScanner

SCANNER = FormatScanner()
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "pages": {"type": "integer", "minimum": 1},
        "price": {"type": "number"},
        "in_print": {"type": "boolean"},
        "genre": {"enum": ["Novel", "Essay"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "author": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    },
    "required": ["title", "pages"],
    "additionalProperties": False,
    "$defs": {"person": {"type": "object", "properties": {"born": {"type": "integer"}}, "required": ["born"]}},
}
BOOK = {"title": "It", "pages": 3}


def rule(schema: dict[str, Any] | None = None, *patterns: str) -> Rule:
    canonical = None if schema is None else json.dumps(schema, sort_keys=True)
    return Rule("block", 0.5, fail_closed=True, json_schema=canonical, patterns=patterns)


def kinds(text: str, by: Rule) -> list[str]:
    return [span.kind for span in SCANNER.scan(text, by, Reference())]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps(BOOK), []),
        ("\n " + json.dumps(BOOK) + "\n", []),
        ('{"title": "It", "pages": 0}', ["SCHEMA_VIOLATION"]),
        ('{"title": "It"}', ["SCHEMA_VIOLATION"]),
        ('{"title": "It", "pages": 3,}', ["INVALID_JSON"]),
        ('{"title": "It", "pages": NaN}', ["INVALID_JSON"]),
        ("```json\n" + json.dumps(BOOK) + "\n```", ["INVALID_JSON"]),
        ("", ["INVALID_JSON"]),
        ("[" * 100_000, ["INVALID_JSON"]),
        ('{"title": "\\ud800", "pages": 3}', []),
    ],
)
def test_answers_against_a_schema(text: str, found: list[str]) -> None:
    assert kinds(text, rule(SCHEMA)) == found


def test_answers_against_expressions() -> None:
    by = rule(None, r"[A-D]", r"\d{4}-\d{2}-\d{2}")
    assert kinds("B", by) == kinds("2026-01-31\n", by) == []
    assert kinds("B.", by) == kinds("The answer is B", by) == ["PATTERN_MISMATCH"]
    both = rule({"type": "integer"}, r"\d+")
    assert kinds("7", both) == []
    assert kinds("-7", both) == ["PATTERN_MISMATCH"]
    assert kinds("a" * 50_000 + "!", rule(None, "(a+)+")) == ["PATTERN_MISMATCH"]


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (json.dumps(BOOK), BOOK),
        ("Sure! Here it is:\n```json\n" + json.dumps(BOOK, indent=1) + "\n```\nAnything else?", BOOK),
        ("The book: " + json.dumps(BOOK) + " - as asked.", BOOK),
        ("{'title': 'It', 'pages': 3,}", BOOK),
        ('{"title": "It", "pages": 3', BOOK),
        ('{title: "It", pages: 3} // done', BOOK),
        ('{"title": "It", "pages": "3"}', BOOK),
        ('{"title": 7, "pages": 3.0, "price": "2.50"}', {"title": "7", "pages": 3, "price": 2.5}),
        (
            '{"title": "It", "pages": 3, "in_print": "True", "genre": "novel", "tags": "x", "author": "null"}',
            BOOK | {"in_print": True, "genre": "Novel", "tags": ["x"], "author": None},
        ),
        (
            '{"title": "It", "pages": 3, "author": {"born": "1947"}}',
            BOOK | {"author": {"born": 1947}},
        ),
    ],
)
def test_answers_are_mended(text: str, mended: dict[str, Any]) -> None:
    repaired = SCANNER.repair(text, rule(SCHEMA))
    assert repaired is not None
    assert json.loads(repaired) == mended
    assert kinds(repaired, rule(SCHEMA)) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot do that.",
        '{"title": "It", "pages": "three"}',
        '{"title": "It", "pages": "3.5"}',
        '{"title": "It", "pages": "007"}',
        '{"title": "It"}',
        '{"title": "It", "pages": 3, "more": 1}',
        '{"title": "It", "pages": 3, "genre": "drama"}',
        "[" * 50_000 + "]" * 50_000,
        "{" * 50_000,
    ],
)
def test_nothing_is_made_up_to_mend_an_answer(text: str) -> None:
    assert SCANNER.repair(text, rule(SCHEMA)) is None


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("B.", "B"),
        ("**B**", "B"),
        ("Answer: `B`.", "B"),
        ("```\nB\n```", "B"),
        ("Let me think.\n\nB", "B"),
        ("E", None),
        ("", None),
    ],
)
def test_an_answer_is_freed_of_what_stands_around_it(text: str, mended: str | None) -> None:
    assert SCANNER.repair(text, rule(None, "[A-D]")) == mended


def test_what_cannot_be_used_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="json_schema cannot be used"):
        SCANNER.check(rule({"type": "strange"}))
    with pytest.raises(ValueError, match="look-around"):
        SCANNER.check(rule({"type": "string", "pattern": "(?<=a)b"}))
    with pytest.raises(ValueError, match="RE2"):
        SCANNER.check(rule(None, "(?<=a)b"))
    SCANNER.check(rule(SCHEMA, "a+"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"])), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_coercion_keeps_what_is_valid_and_changes_nothing_in_place(value: Any) -> None:
    before = copy.deepcopy(value)
    mended = coerced(value, SCHEMA)
    assert value == before
    assert coerced(mended, SCHEMA) == mended
    if kinds(json.dumps(value), rule(SCHEMA)) == []:
        assert mended == value


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from(['{"', "title", '":', "{", "}", "[", "]", ",", "3", '"', "```", "\n", "pages:", "'"]))
        .map("".join),
    )
)  # fmt: skip
def test_any_answer_is_judged_and_mended_to_what_is_valid(text: str) -> None:
    by = rule(SCHEMA)
    for span in SCANNER.scan(text, by, Reference()):
        assert (span.start, span.end) == (0, len(text))
    repaired = SCANNER.repair(text, by)
    assert repaired is None or kinds(repaired, by) == []


def test_a_schema_with_many_branches_is_given_up_in_bounded_time() -> None:
    node = {"type": "object", "required": ["x"], "properties": {"next": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(60):
        value = {"next": value}
    started = time.thread_time()
    assert SCANNER.repair(json.dumps(value), rule({"anyOf": [node | {"title": str(i)} for i in range(4)]})) is None
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    "unit", ["{a:b},", '{"a" b "', "```json\n{\n", '[{"a":', "'", "{\n", '\\"', "Answer: ", "**", "x\n"]
)
def test_hostile_answers_are_given_up_in_bounded_time(unit: str) -> None:
    for text in ("{" + unit * (5_000 // len(unit)), unit * (60_000 // len(unit))):
        started = time.thread_time()
        assert SCANNER.repair(text, rule(SCHEMA, "[A-D]")) is None
        assert time.thread_time() - started < 3
