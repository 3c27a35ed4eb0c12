"""Tools that a model wants called, put together from what an endpoint says of them, at once or bit by bit. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from penstock.contracts.envelope import event_id as derived_id
from penstock.contracts.records import ToolCall

from services.inference.prompt import text_bytes

__all__ = ["CalledTools", "ToolCallPart", "call_bytes", "call_id"]

_BYTES_A_CALL = 64
"""What a call counts for beside its texts."""


class _FunctionPart(msgspec.Struct):
    name: str | None = None
    # JSON as text; some endpoints write the object itself.
    arguments: Any = None


class ToolCallPart(msgspec.Struct):
    """A call of a tool, or the next part of one, as in OpenAI's messages and deltas."""

    index: int | None = None
    id: str | None = None
    function: _FunctionPart | None = None


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CalledTools:
    """The calls of one answer as far as they have come, in the order of their numbers."""

    _calls: dict[int, _Call] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, parts: Iterable[ToolCallPart]) -> int:
        """Take what is new; return its bytes.

        A part without a number begins a call where it has an id or a name that the last one lacks, and goes on with that
        one otherwise: so some endpoints write them.
        """
        size = 0
        for part in parts:
            function = part.function or _FunctionPart()
            number = self._number(part, function)
            if number not in self._calls:
                self._calls[number] = _Call()
                size += _BYTES_A_CALL
            call = self._calls[number]
            call.id = call.id or part.id or ""
            arguments = function.arguments
            if arguments is not None and not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            # Some endpoints repeat the name with every part.
            if function.name and function.name != call.name:
                call.name += function.name
                size += text_bytes(function.name)
            if arguments:
                call.arguments.append(arguments)
                size += text_bytes(arguments)
        return size

    def calls(self, event_id: str, answer: int) -> list[ToolCall]:
        """Return the calls. One that the endpoint gave no id has one of ``event_id``, the request's, and its place in
        ``answer``; one without a name is none.
        """
        return [
            ToolCall(
                id=call.id or call_id(event_id, answer, place),
                name=call.name,
                arguments="".join(call.arguments),
            )
            for place, (_, call) in enumerate(sorted(self._calls.items()))
            if call.name
        ]

    def _number(self, part: ToolCallPart, function: _FunctionPart) -> int:
        if part.index is not None:
            return part.index
        last = max(self._calls, default=-1)
        if last < 0:
            return 0
        begins = part.id not in (None, "", self._calls[last].id) or (function.name and self._calls[last].name)
        return last + 1 if begins else last


def call_id(event_id: str, answer: int, place: int) -> str:
    """Return the id of the call number ``place`` in answer number ``answer`` to the request ``event_id``: on every replay
    the same.
    """
    return f"call_{derived_id(event_id, f'inference.tool_call.{answer}', place).replace('-', '')[:24]}"


def call_bytes(calls: Iterable[ToolCall]) -> int:
    """Return the bytes of ``calls`` in UTF-8."""
    return sum(text_bytes(call.id) + text_bytes(call.name) + text_bytes(call.arguments) for call in calls)
