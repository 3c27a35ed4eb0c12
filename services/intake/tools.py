"""Whether the tools of a request, and what its messages say of them, can be put before a model. Pure.

The shapes are those of OpenAI's chat API (https://platform.openai.com/docs/api-reference/chat/create): ``tools`` and
``tool_choice`` arrive as JSON and go to the backend as they came.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from penstock.contracts.records import Message, Sampling

__all__ = ["MAX_CALLS", "MAX_TOOLS", "MAX_TOOLS_BYTES", "tools_problem"]

MAX_TOOLS = 128
"""Tools of one request, and calls in one message, at most."""
MAX_CALLS = 128
MAX_TOOLS_BYTES = 131_072
"""Bytes of all tools together, as JSON."""
_MAX_DEPTH = 32
"""Objects and lists within each other: what reads and writes them goes as deep."""
_MAX_CHOICE_BYTES = 1_024
_MAX_ID_BYTES = 256
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None


class _Named(msgspec.Struct):
    name: str


class _Choice(msgspec.Struct):
    type: str
    function: _Named | None = None


_CHOICE = msgspec.json.Decoder(str | _Choice)


def tools_problem(messages: Sequence[Message], sampling: Sampling) -> tuple[str, str] | None:
    """Return code and reason where the tools cannot be put before a model, or the messages contradict them; else None.

    A message of the assistant may be empty where it calls tools. A message of a tool need not name its call: not every
    backend asks for that.
    """
    names, problem = _tools(sampling.tools)
    if problem is not None:
        return problem
    return _choice_problem(sampling, names) or next(
        (problem for index, message in enumerate(messages) if (problem := _message_problem(index, message))), None
    )


def _tools(tools: str | None) -> tuple[set[str], tuple[str, str] | None]:
    """Return the names of the tools, and what is wrong with them."""

    def invalid(reason: str) -> tuple[set[str], tuple[str, str]]:
        return set(), ("invalid_tools", f"sampling.tools{reason}")

    if tools is None:
        return set(), None
    if (size := len(tools.encode("utf-8", "surrogatepass"))) > MAX_TOOLS_BYTES:
        return set(), (
            "tools_too_large",
            f"sampling.tools is {size:,} bytes, more than the {MAX_TOOLS_BYTES:,} allowed",
        )
    try:
        whole = msgspec.json.decode(tools)
        listed = msgspec.convert(whole, list[_Tool])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as error:
        return invalid(f" is no JSON list of tools: {error}")
    if _is_deeper(whole, _MAX_DEPTH):
        return invalid(f" goes more than {_MAX_DEPTH} objects and lists deep")
    if not 1 <= len(listed) <= MAX_TOOLS:
        return invalid(f" has {len(listed)} tools; it must be from 1 to {MAX_TOOLS}, or null for none")
    names: set[str] = set()
    for index, tool in enumerate(listed):
        if tool.type != "function" or tool.function is None:
            return invalid(f'[{index}] is of type {tool.type!r}; it must be {{"type": "function", "function": …}}')
        name = tool.function.name
        if not _NAME.fullmatch(name):
            return invalid(f"[{index}].function.name is {name[:80]!r}; it must be 1 to 64 of A-Z, a-z, 0-9, _ and -")
        if name in names:
            return invalid(f"[{index}].function.name is {name!r}, as that of a tool before it; give each its own")
        names.add(name)
    return names, None


def _choice_problem(sampling: Sampling, names: set[str]) -> tuple[str, str] | None:
    choice = sampling.tool_choice
    for field, value in (("tool_choice", choice), ("parallel_tool_calls", sampling.parallel_tool_calls)):
        if value is not None and not names:
            return (
                f"invalid_{field}",
                f"sampling.{field} is set and there are no tools; set sampling.tools or leave it out",
            )
    if choice is None:
        return None

    def invalid(reason: str) -> tuple[str, str]:
        return "invalid_tool_choice", f"sampling.tool_choice {reason}"

    if len(choice.encode("utf-8", "surrogatepass")) > _MAX_CHOICE_BYTES:
        return invalid(f"is over {_MAX_CHOICE_BYTES:,} bytes; name one function of sampling.tools")
    try:
        chosen = _CHOICE.decode(choice)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return invalid(f"is no JSON string or object: {error}")
    if isinstance(chosen, str):
        return None if chosen in _CHOICES else invalid(f"is {chosen!r}; it must be one of {', '.join(_CHOICES)}")
    if chosen.type != "function" or chosen.function is None:
        return invalid(f"is of type {chosen.type!r}; name a function, or leave out the tools that must not be called")
    if chosen.function.name not in names:
        return invalid(f"names {chosen.function.name[:80]!r}, which is none of sampling.tools")
    return None


def _message_problem(index: int, message: Message) -> tuple[str, str] | None:
    if message.tool_calls and message.role != "assistant":
        return (
            "invalid_tool_calls",
            f"messages[{index}].tool_calls stand in a message of {message.role}; assistants call",
        )
    if message.tool_call_id is not None and message.role != "tool":
        return (
            "invalid_tool_call_id",
            f"messages[{index}].tool_call_id stands in a message of {message.role}; only a tool's answers a call",
        )
    if len(message.tool_calls) > MAX_CALLS:
        return (
            "invalid_tool_calls",
            f"messages[{index}] has {len(message.tool_calls)} tool_calls; {MAX_CALLS} are allowed",
        )
    for number, call in enumerate(message.tool_calls):
        place = f"messages[{index}].tool_calls[{number}]"
        if not _NAME.fullmatch(call.name):
            return (
                "invalid_tool_calls",
                f"{place}.name is {call.name[:80]!r}; it must be 1 to 64 of A-Z, a-z, 0-9, _ and -",
            )
        if not _is_id(call.id):
            return "invalid_tool_calls", f"{place}.id must be 1 to {_MAX_ID_BYTES} bytes"
    if message.tool_call_id is not None and not _is_id(message.tool_call_id):
        return "invalid_tool_call_id", f"messages[{index}].tool_call_id must be 1 to {_MAX_ID_BYTES} bytes"
    return None


def _is_deeper(value: Any, most: int) -> bool:
    """Return whether ``value`` has objects or lists within more than ``most`` others."""
    level = [value]
    for _ in range(most + 1):
        parts = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [part for each in parts for part in each if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _is_id(text: str) -> bool:
    return 1 <= len(text.encode("utf-8", "surrogatepass")) <= _MAX_ID_BYTES
