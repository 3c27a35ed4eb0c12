"""Calls of tools, and what tools are, as texts that scanners read; and back, with what was masked in them. Pure.

Both are JSON, in which a text can be written so that no scanner knows it (``a\\u0040b.co``, a line feed as two characters).
So scanners read the values themselves, each on lines of its own behind its name, and a mask goes back to where the value
stood: what was JSON stays JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from penstock.contracts.records import Message, ToolCall

__all__ = ["call_text", "calls_of_messages", "json_text", "masked_call", "masked_json", "restored_call", "spoken"]

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"\\/bfnrt]))")
_ESCAPED = {"b": " ", "f": " ", "n": "\n", "r": "\n", "t": " "}
_HALF = re.compile(r"[\ud800-\udfff]")
_DEEPEST = 100
"""Objects and lists within each other that are followed: Python reads a thousand, and walks through half of these."""


class _Pairs(list[tuple[str, Any]]):
    """An object as it is written: of two values under one name a reader may take either, so both are read."""


class _Moved(Exception):
    """What was masked is not within single values."""


def call_text(call: ToolCall) -> str:
    """Return what a call says: the name of the tool, then its arguments."""
    return f"{_one_line(call.name)}\n{json_text(call.arguments)}"


def masked_call(call: ToolCall, text: str) -> ToolCall:
    """Return ``call`` with what was masked in :func:`call_text`, which has become ``text``.

    Arguments in which it cannot be put back in its place become one text, which no tool takes for arguments.
    """
    if text == call_text(call):
        return call
    name, _, arguments = text.partition("\n")
    masked = masked_json(call.arguments, arguments)
    if masked is None:
        masked = json.dumps(arguments, ensure_ascii=False)
    return msgspec.structs.replace(call, name=call.name if name == _one_line(call.name) else name, arguments=masked)


def restored_call(call: ToolCall, restored: Callable[[str], str]) -> ToolCall:
    """Return ``call`` with ``restored`` of every text in its arguments."""
    try:
        value = _parsed(call.arguments)
    except ValueError:
        return msgspec.structs.replace(call, arguments=restored(call.arguments))

    def leaf(name: str, value: Any) -> Any:
        return restored(value) if isinstance(value, str) and not isinstance(value, _Number) else value

    again = _mapped(value, leaf)
    if again == _mapped(value, lambda name, value: value):
        return call
    try:
        return msgspec.structs.replace(call, arguments=_written(again))
    except ValueError:
        return call


def json_text(text: str) -> str:
    """Return the values of a JSON text as lines, with their names; of what is no JSON the text itself, without escapes."""
    try:
        return "\n".join(_lines(_parsed(text)))
    except ValueError:
        return _unescaped(text)


def masked_json(text: str, masked: str) -> str | None:
    """Return ``text`` with what was masked in :func:`json_text`, which has become ``masked``.

    None where it is JSON and what was masked is more than single values.
    """
    try:
        value = _parsed(text)
    except ValueError:
        return text if masked == _unescaped(text) else masked
    before = list(_lines(value))
    if masked == "\n".join(before):
        return text
    lines = masked.split("\n")
    # Masks have no line feeds: where there are as many as before, none was masked, and every line is where it was.
    if len(lines) != sum(line.count("\n") + 1 for line in before):
        return None
    left = iter(lines)

    def taken(line: str) -> str:
        return "\n".join(next(left) for _ in range(line.count("\n") + 1))

    def leaf(name: str, value: Any) -> Any:
        line = _line(name, value)
        now, head = taken(line), _whole(f"{name}: ") if name else ""
        if now == line:
            return value
        if not now.startswith(head):
            raise _Moved
        return now.removeprefix(head)

    def container(name: str) -> None:
        if taken(_whole(f"{name}:")) != _whole(f"{name}:"):
            raise _Moved

    try:
        return _written(_mapped(value, leaf, container=container))
    except (_Moved, ValueError):
        return None


def spoken(messages: Sequence[Message]) -> str:
    """Return all that a conversation says: contents, and calls of tools."""
    return "\n".join(
        text for message in messages for text in (message.content, *(call_text(call) for call in message.tool_calls))
    )


def calls_of_messages(messages: Iterable[Message]) -> Iterator[ToolCall]:
    """Yield the calls of ``messages`` in their order."""
    for message in messages:
        yield from message.tool_calls


def _parsed(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is none, or one so deep that it is not read.
    """
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_float=_exact)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if _is_deeper(value, _DEEPEST):
        raise ValueError("too deep")
    return value


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether ``value`` has objects or lists within more than ``most`` others."""
    level = [value]
    for _ in range(most + 1):
        parts = ([item for _, item in each] if isinstance(each, _Pairs) else each for each in level)
        level = [part for each in parts if isinstance(each, list) for part in each if isinstance(part, list)]
        if not level:
            return False
    return True


class _Number(str):
    """A number as it is written: a float would not have all of its digits."""


def _exact(text: str) -> Any:
    return _Number(text)


def _lines(value: Any) -> Iterator[str]:
    found: list[str] = []

    def leaf(name: str, value: Any) -> None:
        found.append(_line(name, value))

    _mapped(value, leaf, container=lambda name: found.append(_whole(f"{name}:")))
    return iter(found)


def _mapped(
    value: Any, leaf: Callable[[str, Any], Any], name: str = "", *, container: Callable[[str], None] | None = None
) -> Any:
    """Return ``value`` with ``leaf`` of every name and value in it, in order; ``container`` is told what holds others."""
    if isinstance(value, _Pairs | list):
        if name and container is not None:
            container(name)
        if isinstance(value, _Pairs):
            return {key: _mapped(item, leaf, key, container=container) for key, item in value}
        return [_mapped(item, leaf, container=container) for item in value]
    return leaf(name, value)


def _line(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return _whole(f"{name}: {text}" if name else text)


def _written(value: Any) -> str:
    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers(item) for item in value]
        return float(value) if isinstance(value, _Number) else value

    plain = numbers(value)
    written = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    return json.dumps(plain, allow_nan=False) if _HALF.search(written) else written


def _unescaped(text: str) -> str:
    return _whole(
        _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPED.get(found[2], found[2]), text)
    )


def _whole(text: str) -> str:
    """Return ``text`` with pairs of surrogates as the characters they stand for, and no half of one."""
    if not _HALF.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _one_line(name: str) -> str:
    return _whole(name.replace("\n", " "))
