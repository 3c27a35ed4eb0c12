"""Calls of tools as texts: nothing in JSON hides from a scanner, and a mask goes back to where the value stood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import ToolCall

from services.guardrails.masking import restoring
from services.guardrails.tool_texts import call_text, json_text, masked_call, masked_json, restored_call

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


def a_call(arguments: str, name: str = "mail") -> ToolCall:
    return ToolCall(id="call_1", name=name, arguments=arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"to": "eve\\u0040example.org"}',
        '{"to": ["\\u0065ve@example.org"]}',
        '{"text": "Write to\\neve@example.org"}',
        '{"eve@example.org": {"a": 1}}',
        '{"to": "eve@example.org", "to": "x"}',
        '{"to": {"to": [[{"": "eve@example.org"}]]}}',
        '{"to": "eve\\u0040example.org"',
        '{"text": "Write to\\neve@example.org"',
        '{"a":' * 200 + '"Write to\\neve@example.org"' + "}" * 200,
    ],
)
def test_no_way_of_writing_json_hides_a_value(arguments: str) -> None:
    text = call_text(a_call(arguments))
    assert "eve@example.org" in text
    assert not any(f"{letter}eve@" in text for letter in "nt\\")
    masked = masked_call(a_call(arguments), text.replace("eve@example.org", "<EMAIL_ADDRESS_1>"))
    assert "eve" not in masked.arguments
    assert "example.org" not in masked.arguments


@given(VALUES)
def test_what_nothing_was_found_in_stays_as_it_is_written(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert masked_json(text, json_text(text)) == text
        assert masked_call(a_call(text), call_text(a_call(text))) == a_call(text)


@given(before=st.dictionaries(st.text(max_size=6), VALUES, max_size=3), note=st.text(max_size=12))
def test_a_mask_changes_its_value_alone(before: dict[str, Any], note: str) -> None:
    value = {**before, "note": [note + "4321ab#", 7], "after": before}
    masked = masked_json(json.dumps(value), json_text(json.dumps(value)).replace("4321ab#", "<X_1>"))
    assert masked is not None
    assert json.loads(masked) == {**value, "note": [note + "<X_1>", 7]}


def test_a_number_that_was_masked_is_a_text_and_the_others_stay_numbers() -> None:
    arguments = '{"card": 4111111111111111, "sum": 12.50, "at": [1, 2]}'
    masked = masked_json(arguments, json_text(arguments).replace("4111111111111111", "<CREDIT_CARD_1>"))
    assert masked is not None
    assert json.loads(masked) == {"card": "<CREDIT_CARD_1>", "sum": 12.5, "at": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "found", "mask"),
    [
        ('{"name": "A", "last": "B"}', "A\nlast: B", "<PERSON_1>"),
        ('{"key": "-----BEGIN\\nabc\\n-----END"}', "-----BEGIN\nabc\n-----END", "<KEY_1>"),
        ('{"password": "abc"}', "password: abc", "<SECRET_1>"),
    ],
)
def test_what_is_more_than_a_value_leaves_no_arguments(arguments: str, found: str, mask: str) -> None:
    call = a_call(arguments)
    assert masked_json(arguments, json_text(arguments).replace(found, mask)) is None
    masked = masked_call(call, call_text(call).replace(found, mask))
    assert mask in json.loads(masked.arguments)
    assert isinstance(json.loads(masked.arguments), str)
    assert (masked.id, masked.name) == (call.id, call.name)


def test_a_name_that_the_model_made_up_is_masked_with_the_rest() -> None:
    call = a_call("{}", name="eve@example.org")
    masked = masked_call(call, call_text(call).replace("eve@example.org", "<EMAIL_ADDRESS_1>"))
    assert (masked.name, masked.arguments) == ("<EMAIL_ADDRESS_1>", "{}")


def test_pseudonyms_come_back_however_they_are_written() -> None:
    def restored(text: str) -> str:
        return text.replace("<PERSON_1>", 'Ann "Bee"')

    call = a_call('{"to": "\\u003cPERSON_1\\u003e", "sum": 1.50}')
    assert json.loads(restored_call(call, restored).arguments) == {"to": 'Ann "Bee"', "sum": 1.5}
    plain = a_call('{"to":"nobody",  "sum": 1.50}')
    assert restored_call(plain, restored) is plain
    assert restored_call(a_call("to <PERSON_1>"), restored).arguments == 'to Ann "Bee"'


def test_half_a_character_harms_nothing() -> None:
    arguments = '{"a": "\\ud800", "b": "x4321", "c": "\\ud83d\\ude00"}'
    text = json_text(arguments)
    text.encode()
    masked = masked_json(arguments, text.replace("x4321", "<X_1>"))
    assert masked is not None
    masked.encode()
    assert json.loads(masked) == {"a": "\ud800", "b": "<X_1>", "c": "\U0001f600"}


@pytest.mark.parametrize("depth", [99, 101, 500, 900, 100_000])
@pytest.mark.parametrize(("opened", "closed"), [('{"a":', "}"), ("[", "]")])
def test_json_that_is_too_deep_is_read_as_text(depth: int, opened: str, closed: str) -> None:
    call = a_call(opened * depth + '"eve\\u0040example.org"' + closed * depth)
    text = call_text(call)
    assert "eve@example.org" in text
    masked = masked_call(call, text.replace("eve@example.org", "<X_1>"))
    assert "eve" not in masked.arguments
    assert "<X_2>" in restored_call(masked, lambda text: text.replace("<X_1>", "<X_2>")).arguments


def test_what_pseudonyms_are_and_what_was_asked_is_read_once_for_all_values_of_a_call() -> None:
    class Read(dict[str, str]):
        times = 0

        def items(self) -> Any:
            self.times += 1
            return super().items()

    known = Read({"<EMAIL_ADDRESS_1>": "eve@example.org"})
    address = "http://a.example/EMAIL_ADDRESS_1"
    call = a_call(json.dumps([["<EMAIL_ADDRESS_1>", address, f"{address}/{number}"] for number in range(50)]))
    values = json.loads(restored_call(call, restoring(known, f"See {address}.")).arguments)
    restored = address.replace("EMAIL_ADDRESS_1", "eve@example.org")
    assert values == [["eve@example.org", restored, f"{address}/{number}"] for number in range(50)]
    assert known.times == 1
