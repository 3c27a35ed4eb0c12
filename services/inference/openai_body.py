"""What an OpenAI-compatible endpoint is asked, and what of it one does not take. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from penstock.config.kinds import Target
from penstock.contracts.records import Message, Sampling

from services.inference.prompt import Prompt

__all__ = ["body_of", "message_body", "refused_parameter"]

# The schema of any JSON object. OpenAI's API holds a model to that in a way of its own: strict, it takes no open object.
_ANY_OBJECT = '{"type":"object"}'
# Where a parameter has another name than in Sampling.
_FIELDS = {"logprobs": "top_logprobs", "structured_outputs": "regex"}


class _Error(msgspec.Struct):
    """The part of OpenAI's error that is read."""

    message: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error


def body_of(sampling: Sampling, prompt: Prompt, target: Target, *, stream: bool) -> bytes:
    """Return the body of POST /chat/completions, JSON. A JSON schema and tools go out as they came in, to the byte."""
    messages = [message_body(message) for message in prompt.messages]
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return msgspec.json.encode({"model": target.model, "messages": messages} | _parameters(sampling) | streamed)


def message_body(message: Message) -> dict[str, Any]:
    """Return ``message`` as OpenAI's API has it: what calls tools and says nothing has no content."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    body = {
        "role": message.role,
        "content": None if calls and not message.content else message.content,
        "name": message.name or None,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
    }
    return {name: value for name, value in body.items() if value is not None or name == "content"}


def refused_parameter(sampling: Sampling, payload: bytes) -> str | None:
    """Return the field of ``sampling`` that an endpoint refused with ``payload``; None where it names none of them."""
    try:
        error = msgspec.json.decode(payload, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error(message=payload.decode("utf-8", "replace"))
    for name in _parameters(sampling):
        if error.param == name or re.search(rf"(?<!\w){name}(?!\w)", error.message):
            return _FIELDS.get(name, name)
    return None


def _parameters(sampling: Sampling) -> dict[str, Any]:
    """Return the parameters that are set. top_k, min_p and structured_outputs are not OpenAI's but vLLM's."""
    parameters = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_completion_tokens": sampling.max_completion_tokens,
        "stop": sampling.stop or None,
        "seed": sampling.seed,
        "response_format": _response_format(sampling.response_format),
        "n": sampling.n if sampling.n > 1 else None,
        "logprobs": None if sampling.top_logprobs is None else True,
        "top_logprobs": sampling.top_logprobs,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "structured_outputs": None if sampling.regex is None else {"regex": sampling.regex},
        "tools": None if sampling.tools is None else msgspec.Raw(sampling.tools.encode()),
        "tool_choice": None if sampling.tool_choice is None else msgspec.Raw(sampling.tool_choice.encode()),
        "parallel_tool_calls": sampling.parallel_tool_calls,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _response_format(schema: str | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    if schema == _ANY_OBJECT:
        return {"type": "json_object"}
    # Strict: the endpoint holds the model to the schema instead of asking it nicely.
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": msgspec.Raw(schema.encode())},
    }
