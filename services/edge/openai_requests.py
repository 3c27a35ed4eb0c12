"""From the body of a chat request to the event that the log takes. Pure.

What a request may be is decided at intake, for every way in. Here only its shape is: what cannot be read, what
contradicts itself, and what Penstock has no place for, named rather than left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec
from penstock.contracts.records import LlmRequest, Message, Priority, RetrievalFilter, Sampling, ToolCall

from services.edge.errors import ApiError
from services.edge.openai_types import (
    AssistantMessage,
    AssistantPart,
    ChatMessage,
    ChatRequest,
    DeveloperMessage,
    JsonObjectFormat,
    JsonSchemaFormat,
    ResponseFormat,
    RetrievalOptions,
    SubmittedRequest,
    TextPart,
    ToolMessage,
)
from services.edge.protocol import Caller

__all__ = ["ANY_OBJECT", "chat_of", "decoded", "request_id_of", "request_of", "submitted_of"]

ANY_OBJECT = '{"type":"object"}'
"""The JSON schema of ``response_format: {"type": "json_object"}``."""
_MOST_PARTS = 10_000
"""Parts of a request that are gone through one by one, together: while that is done nobody else is answered."""
_LONGEST_ECHO = 200
"""Characters of what a client sent that an error repeats."""
_PRIORITIES = {
    None: Priority.STANDARD,
    "auto": Priority.STANDARD,
    "default": Priority.STANDARD,
    "flex": Priority.BATCH,
    "priority": Priority.INTERACTIVE,
}
"""By service_tier."""
_REQUEST_ID = re.compile(r"[\x21-\x2e\x30-\x7e]{1,200}")
_PATH = re.compile(r"(?s)(.*) - at `(\$?[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_REMEDIES = {
    "functions": "functions is of an older API: send tools",
    "function_call": "function_call is of an older API: send tool_choice",
    "logit_bias": "logit_bias is not supported: models behind a route have different tokens; leave it out",
    "reasoning_effort": "reasoning_effort is not supported; name a route whose model reasons as is wanted",
    "web_search_options": "web_search_options is not supported; name a route with retrieval",
    "audio": "audio is not supported: text is all there is",
}
"""What OpenAI's API has and this one has not."""

_WANTED = {
    "language": "must be a code of ISO 639, such as en or de",
    "data": "must be base64 of the standard alphabet (+ and /), padded and without line breaks",
    "content_type": "must be text/plain, text/markdown, text/html or, of data, application/pdf; a text's may end with "
    "; charset=...",
}
"""In place of the pattern, by the last name of the path."""

_T = TypeVar("_T")
_CHAT = msgspec.json.Decoder(ChatRequest)
_SUBMITTED = msgspec.json.Decoder(SubmittedRequest)


def chat_of(body: bytes) -> ChatRequest:
    """Return the body of ``POST /v1/chat/completions``.

    Raises:
        ApiError: 400, with the part that is wrong as its ``param``.
    """
    return decoded(body, _CHAT)


def submitted_of(body: bytes) -> SubmittedRequest:
    """Return the body of ``POST /v1/requests``; errors as of :func:`chat_of`."""
    return decoded(body, _SUBMITTED)


def decoded(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Return what ``body`` says to ``decoder``.

    Raises:
        ApiError: 400: it is no JSON, or not of the decoder's type.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"the body is no JSON in UTF-8: {why}", code="invalid_json") from None


def request_id_of(key: str | None) -> str | None:
    """Return the request_id that an Idempotency-Key stands for; None where none is given.

    Raises:
        ApiError: 400: it cannot be one.
    """
    if key is None:
        return None
    if not _REQUEST_ID.fullmatch(key):
        raise ApiError(
            400,
            'Idempotency-Key must be 1 to 200 printable ASCII characters without spaces and without "/"',
            param="Idempotency-Key",
            code="invalid_idempotency_key",
        )
    return key


def request_of(chat: ChatRequest, caller: Caller, request_id: str, now: datetime) -> LlmRequest:
    """Return the event of ``chat``, sent by ``caller`` at ``now``. Its event_id is the desk's, which counts its tries.

    Raises:
        ApiError: 400: it contradicts itself. 413: it has more parts than any request may have.
    """
    options = chat.penstock
    _few_enough(chat)
    return LlmRequest(
        event_id="",
        request_id=request_id,
        tenant_id=caller.team,
        occurred_at=now,
        causation_id="",
        conversation_id=options.conversation_id or None,
        user_id=chat.user or chat.safety_identifier or None,
        route=chat.model,
        prompt_name=options.prompt,
        prompt_label=options.prompt_label,
        prompt_variables={name: _variable(value) for name, value in options.variables.items()},
        messages=[_message(message, index) for index, message in enumerate(chat.messages)],
        sampling=_sampling(chat),
        stream=bool(chat.stream),
        deadline_at=None if options.deadline_s is None else now + timedelta(seconds=options.deadline_s),
        tags={**(chat.metadata or {}), **options.tags},
        key_id=caller.key_id,
        purpose=options.purpose,
        policy_name=options.policy,
        priority=options.priority or _PRIORITIES[chat.service_tier],
        retrieval=_filter(options.retrieval),
    )


def _filter(asked: RetrievalOptions | None) -> RetrievalFilter | None:
    if asked is None:
        return None
    try:
        as_of = None if asked.as_of is None else asked.as_of.astimezone(UTC)
    except OverflowError:
        raise ApiError(
            400, "penstock.retrieval.as_of is outside of the years 1 to 9999 in UTC; send another instant",
            param="penstock.retrieval.as_of", code="invalid_value",
        ) from None  # fmt: skip
    return RetrievalFilter(collection=asked.collection, tags=asked.tags, language=asked.language, as_of=as_of)


def _few_enough(chat: ChatRequest) -> None:
    options = chat.penstock
    counted = {
        "messages": len(chat.messages)
        + sum(len(each.tool_calls or ()) for each in chat.messages if isinstance(each, AssistantMessage)),
        "stop": 0 if isinstance(chat.stop, str) else len(chat.stop or ()),
        "penstock.variables": len(options.variables),
        "penstock.tags": len(options.tags),
        "penstock.retrieval.tags": 0 if options.retrieval is None else len(options.retrieval.tags),
    }
    if sum(counted.values()) > _MOST_PARTS:
        most = max(counted, key=lambda name: counted[name])
        raise ApiError(
            413, f"the request has more than {_MOST_PARTS:,} messages, calls, stops, variables and tags; send fewer",
            param=most, code="request_too_large",
        )  # fmt: skip


def _variable(value: str | float | bool | list[str]) -> str:
    """A value as prompts read it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _message(message: ChatMessage, index: int) -> Message:
    match message:
        case AssistantMessage():
            content = message.content
            calls = message.tool_calls or []
            if content is None and message.refusal is None and not calls:
                raise ApiError(
                    400,
                    f"messages[{index}] of the assistant has neither content nor tool_calls; send one of them",
                    param=f"messages[{index}].content",
                    code="invalid_message",
                )
            return Message(
                role="assistant",
                content=_text((message.refusal or "") if content is None else content),
                name=message.name,
                tool_calls=[
                    ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments) for call in calls
                ],
            )
        case ToolMessage():
            return Message(role="tool", content=_text(message.content), tool_call_id=message.tool_call_id)
        case DeveloperMessage():
            return Message(role="system", content=_text(message.content), name=message.name)
    return Message(
        role=str(message.__struct_config__.tag),
        content=_text(message.content),
        name=message.name,
    )


def _text(content: str | Sequence[TextPart | AssistantPart]) -> str:
    """The parts of a content as one text, each on lines of its own."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text or (getattr(part, "refusal", None) or "") for part in content)


def _sampling(chat: ChatRequest) -> Sampling:
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise _contradiction("max_tokens", "max_tokens is max_completion_tokens by its old name; leave it out")
    if chat.stream_options is not None and not chat.stream:
        raise _contradiction("stream_options", "stream_options needs stream: true; leave it out, or set stream")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise _contradiction("top_logprobs", "top_logprobs needs logprobs: true; leave it out, or set logprobs")
    stop = [chat.stop] if isinstance(chat.stop, str) else list(chat.stop or [])
    return Sampling(
        temperature=chat.temperature,
        top_p=chat.top_p,
        max_completion_tokens=chat.max_completion_tokens or chat.max_tokens,
        stop=stop,
        seed=chat.seed,
        response_format=_schema(chat.response_format),
        n=chat.n or 1,
        top_logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        regex=chat.structured_outputs.regex if chat.structured_outputs is not None else None,
        frequency_penalty=chat.frequency_penalty,
        presence_penalty=chat.presence_penalty,
        top_k=chat.top_k,
        min_p=chat.min_p,
        tools=msgspec.json.encode(chat.tools).decode() if chat.tools else None,
        tool_choice=None if chat.tool_choice is None else msgspec.json.encode(chat.tool_choice).decode(),
        parallel_tool_calls=chat.parallel_tool_calls,
    )


def _schema(format: ResponseFormat | None) -> str | None:
    match format:
        case JsonSchemaFormat():
            return msgspec.json.encode(format.json_schema.schema).decode()
        case JsonObjectFormat():
            return ANY_OBJECT
    return None


def _contradiction(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")


def _misshapen(said: str) -> ApiError:
    """The error of a body that is JSON of another shape, in the words of who reads OpenAI's reference."""
    located = _PATH.fullmatch(said)
    why, path = (located[1], located[2].removeprefix("$").removeprefix(".")) if located else (said, "")
    unknown = _UNKNOWN.fullmatch(why)
    if unknown is not None:
        name = _short(unknown[1])
        param = f"{path}.{name}" if path else name
        remedy = _REMEDIES.get(name, f"{param} is no parameter of this API; leave it out, or correct its name")
        return ApiError(400, remedy, param=param, code="unknown_parameter")
    why = _short(why)
    if re.fullmatch(r"messages\[\d+\]\.content\[\d+\]\.type", path):
        return ApiError(
            400,
            f"{path.removesuffix('.type')} is not of text, and text is all that can be sent ({why})",
            param=path,
            code="unsupported_content",
        )
    if re.fullmatch(r"input(\[\d+\])*", path) and re.search(r"got `(int|array|float)`", why):
        return ApiError(
            400,
            f"{path} is not text: tokens are not taken, since texts are screened before they are embedded; send the text "
            "itself (of LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
            param=path,
            code="unsupported_input",
        )
    if "matching regex" in why:
        why = _WANTED.get(path.rpartition(".")[2], why)
    elif "RFC3339" in why:
        why = "must be an instant such as 2026-01-05T09:00:00Z"
    missing = re.search(r"missing required field `(\w+)`", why)
    if missing is not None:
        param = f"{path}.{missing[1]}" if path else missing[1]
        return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
    return ApiError(400, f"{path or 'the body'}: {why}", param=path or None, code="invalid_value")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_ECHO else text[:_LONGEST_ECHO] + "..."
