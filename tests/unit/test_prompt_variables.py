"""Typed variables of prompts: what values are taken, and what stands in the messages."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Prompt, PromptVariable, VariableError
from penstock.config.prompt_variables import expression_problem, matches, narrowed, written
from pydantic import ValidationError


def variable(**fields: Any) -> PromptVariable:
    return PromptVariable.model_validate({"description": "d", **fields})


@pytest.mark.parametrize(
    ("fields", "value", "text"),
    [
        ({}, "any text\n", "any text\n"),
        ({"pattern": "[A-Z]{2}[0-9]+"}, "AB12", "AB12"),
        ({"enum": ["low", "high"]}, "low", "low"),
        ({"type": "integer"}, "-12", "-12"),
        ({"type": "integer", "minimum": 1, "maximum": 3}, "3", "3"),
        ({"type": "number", "maximum": Decimal("0.5")}, "0.5", "0.5"),
        ({"type": "number"}, "-1.5e-3", "-1.5e-3"),
        ({"type": "boolean"}, "true", "true"),
        ({"type": "list"}, '["a, b", "{{x}}"]', "a, b, {{x}}"),
        ({"type": "list", "separator": "\n- ", "max_length": 3}, '["abc","d"]', "abc\n- d"),
        ({"type": "list"}, "[]", ""),
    ],
)
def test_values_of_a_variable_are_put_in(fields: dict[str, Any], value: str, text: str) -> None:
    assert variable(**fields).text(value, "it") == text


@pytest.mark.parametrize(
    ("fields", "value", "cause"),
    [
        ({"pattern": "[A-Z]+"}, "AB\n", "must match"),
        ({"pattern": "a|b"}, "ab", "must match"),
        ({"enum": ["low", "high"]}, "Low", "must be one of low, high"),
        ({"type": "integer"}, "1.0", "is an integer"),
        ({"type": "integer"}, "007", "is an integer"),
        ({"type": "integer"}, "٣", "is an integer"),
        ({"type": "integer"}, "9" * 101, "is an integer"),
        ({"type": "integer", "minimum": 1}, "0", "must be 1 or more"),
        ({"type": "number"}, "NaN", "is a number"),
        ({"type": "number", "maximum": 1}, "1e400", "must be 1 or less"),
        ({"type": "boolean"}, "yes", "write true or false"),
        ({"type": "list"}, "a, b", "a JSON array of strings"),
        ({"type": "list"}, "[1]", "a JSON array of strings"),
        ({"type": "list"}, "[" * 100_000, "a JSON array of strings"),
        ({"type": "list"}, '["\\ud800"]', "half of a surrogate pair"),
        ({"type": "list", "max_items": 1}, '["a","b"]', "has 2 items; 1 are allowed"),
        ({"type": "list", "enum": ["a"]}, '["a","b"]', "item 1 of it must be one of a"),
    ],
)
def test_other_values_are_refused_without_being_told(fields: dict[str, Any], value: str, cause: str) -> None:
    with pytest.raises(VariableError, match=cause) as caught:
        variable(**fields).text(value, "it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"pattern": "(?=a)"}, "look-around"),
        ({"pattern": "a)|(b"}, "no regular expression"),
        ({"type": "integer", "pattern": "a"}, "pattern: means nothing where type is integer"),
        ({"minimum": 1}, "minimum: means nothing where type is string"),
        ({"type": "boolean", "enum": ["true"]}, "enum: means nothing"),
        ({"type": "number", "minimum": 2, "maximum": 1}, "below minimum"),
        ({"type": "integer", "required": False, "default": "many"}, "default: its default is an integer"),
        ({"required": False, "default": 4}, "valid string"),
        ({"type": "integer", "required": False, "default": True}, "valid string"),
        ({"required": False, "default": "abc", "max_length": 2}, "its default has 3 characters"),
        ({"type": "date"}, "'string', 'integer'"),
    ],
)
def test_a_variable_that_makes_no_sense_is_refused(fields: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValidationError, match=cause):
        variable(**fields)


def test_defaults_are_written_as_yaml_has_them_and_travel_as_texts() -> None:
    assert variable(type="integer", required=False, default=4).default == "4"
    assert variable(type="boolean", required=False, default=True).default == "true"
    assert variable(type="list", required=False, default=["a", "ß"]).default == '["a", "ß"]'
    assert variable(type="number", required=False, default=Decimal("0.50")).default == "0.50"
    with pytest.raises(ValueError, match="quote"):
        written({"a": 1})


def test_a_pattern_of_a_prompt_takes_time_linear_in_the_value() -> None:
    began = time.perf_counter()
    assert not matches("(a|a)*b", "a" * 200_000, whole=True)
    assert time.perf_counter() - began < 2
    assert expression_problem("(a|a)*b") is None


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5))
def test_items_of_lists_stand_in_the_text_as_they_are(items: list[str]) -> None:
    prompt = Prompt.model_validate(
        {
            "name": "p",
            "template": [{"role": "user", "content": "<{{items}}>"}],
            "variables": {"items": {"description": "d", "type": "list", "separator": "|"}},
        }
    )
    assert prompt.render({"items": json.dumps(items)}) == [("user", f"<{'|'.join(items)}>")]


def test_what_values_put_into_the_systems_messages_is_told_as_it_stands_there() -> None:
    prompt = Prompt.model_validate(
        {
            "name": "p",
            "template": [
                {"role": "system", "content": "Topics: {{topics}}. Tone: {{tone}}. {{none}}"},
                {"role": "user", "content": "{{question}} ({{topics}})"},
            ],
            "variables": {
                "topics": {"description": "d", "type": "list"},
                "tone": {"description": "d", "required": False, "default": "kind"},
                "none": {"description": "d", "required": False},
                "question": {"description": "d"},
            },
        }
    )
    values = {"question": "Topics", "topics": '["ignore all", "of this"]'}
    [inserted] = prompt.inserted(values)
    assert inserted == "ignore all, of this"
    assert inserted in prompt.render(values)[0][1]
    assert prompt.inserted(values | {"tone": "rude", "none": ""}) == ["ignore all, of this", "rude"]


def test_fields_that_are_not_used_change_no_version() -> None:
    content = {"name": "p", "template": [{"role": "user", "content": "{{a}}"}]}
    plain = Prompt.model_validate({**content, "variables": {"a": {"description": "d", "max_length": 8000}}})
    assert json.loads(plain.canonical)["variables"] == {"a": {"description": "d", "max_length": 8000}}
    bounded = Prompt.model_validate(
        {**content, "variables": {"a": {"description": "d", "type": "number", "maximum": Decimal("1.50")}}}
    )
    assert Prompt.model_validate_json(bounded.canonical).version == bounded.version


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {"max_length": 5}, ["has max_length 5"]),
        ({"max_length": 5}, {"max_length": 6}, []),
        ({"type": "integer"}, {"type": "number"}, ["is of type number, not integer"]),
        ({"type": "integer"}, {}, []),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}, []),
        ({"enum": ["a", "b"]}, {"enum": ["a"]}, ["has other values in enum"]),
        ({"type": "number", "minimum": 1}, {"type": "number", "minimum": 2}, ["has minimum 2, which was 1"]),
        ({"pattern": "a"}, {"pattern": "b"}, ["has another pattern"]),
    ],
)
def test_what_a_variable_refuses_that_another_takes(
    before: dict[str, Any], after: dict[str, Any], said: list[str]
) -> None:
    assert list(narrowed(variable(**before), variable(**after))) == said
