"""Tools as vLLM knows them: how a model is told of them, and how its words are read as calls of them.

Each family of models writes calls in a way of its own; vLLM has a parser for each, chosen by tool_call_parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.contracts.records import Message, Sampling, ToolCall

from services.inference.openai_body import message_body
from services.inference.tool_calls import call_id

__all__ = ["EngineTools", "Tools", "load_parser", "may_call"]

_STRUCTURED = ("json", "regex", "structural_tag", "grammar")
"""Parts of vLLM's StructuredOutputsParams by which its parsers hold a model to calls."""


def may_call(sampling: Sampling) -> bool:
    """Return whether the model may call tools."""
    return sampling.tools is not None and (sampling.tool_choice is None or json.loads(sampling.tool_choice) != "none")


def load_parser(name: str, tokenizer: Any) -> Any:
    """Return vLLM's parser class ``name``.

    Raises:
        ValueError: there is none of that name, or the model's tokenizer lacks what it looks for.
    """
    from vllm.parser.parser_manager import ParserManager
    from vllm.tool_parsers import ToolParserManager

    known = {*ToolParserManager.tool_parsers, *ToolParserManager.lazy_parsers}
    if name not in known:
        raise ValueError(f"tool_call_parser {name!r} is none of vLLM's: {', '.join(sorted(known))}")
    try:
        return ParserManager.get_parser(tool_parser_name=name, enable_auto_tools=True, tokenizer=tokenizer)
    except Exception as error:
        raise ValueError(f"tool_call_parser {name!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Tools:
    """What the engine is asked for because of the tools.

    Attributes:
        listed: as the chat template takes them.
        structured: keyword arguments of StructuredOutputsParams that take the place of the request's own; empty: none.
        parameters: those of SamplingParams that come on top.
        event_id: of the request, by which calls are named that the parser gives no id.
        request: as vLLM's own server would have it.
        parser: makes what reads an answer.
    """

    listed: list[dict[str, Any]]
    structured: Mapping[str, Any]
    parameters: Mapping[str, Any]
    event_id: str
    request: Any
    parser: Any

    def read(self, text: str, tokens: Sequence[int], answer: int) -> tuple[str, list[ToolCall]]:
        """Return the words of an answer, and the calls that it makes.

        Args:
            text: as it was generated.
            tokens: of it.
            answer: its number.
        """
        _, content, calls = self.parser().parse(
            text, self.request, enable_auto_tools=True, model_output_token_ids=list(tokens)
        )
        return content or "", [
            ToolCall(
                id=call.id or call_id(self.event_id, answer, place), name=call.name, arguments=call.arguments or ""
            )
            for place, call in enumerate(calls or ())
        ]


class EngineTools:
    """Makes :class:`Tools` of requests.

    Args:
        parser: of :func:`load_parser`.
        model_config: vLLM's.
    """

    def __init__(self, parser: Any, tokenizer: Any, model_config: Any) -> None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        self._parser, self._tokenizer, self._model_config = parser, tokenizer, model_config
        self._request = ChatCompletionRequest

    def asked(self, messages: Sequence[Message], sampling: Sampling, event_id: str) -> Tools:
        """Return what the engine is asked for.

        Raises:
            ValueError: vLLM does not take the tools so; the message says why.
        """
        listed = json.loads(sampling.tools or "[]")
        given: dict[str, Any] = {
            "messages": [message_body(message) for message in messages],
            "tools": listed,
            "tool_choice": "auto" if sampling.tool_choice is None else json.loads(sampling.tool_choice),
        }
        if sampling.parallel_tool_calls is not None:
            given["parallel_tool_calls"] = sampling.parallel_tool_calls
        if sampling.response_format is not None:
            schema = {"name": "answer", "schema": json.loads(sampling.response_format)}
            given["response_format"] = {"type": "json_schema", "json_schema": schema}
        if sampling.regex is not None:
            given["structured_outputs"] = {"regex": sampling.regex}
        request = self._request.model_validate(given)

        def parser() -> Any:
            # It keeps what it has read: one for each answer.
            return self._parser(
                self._tokenizer, request.tools, chat_template_kwargs={}, model_config=self._model_config
            )

        adjusted = parser().adjust_request(request)
        held = adjusted.extract_structured_outputs()
        structured = {
            name: value for name in _STRUCTURED if held is not None and (value := getattr(held, name, None)) is not None
        }
        return Tools(
            # As the template gets them from vLLM's own server: with the defaults of the fields.
            listed=[tool.model_dump() for tool in request.tools or ()],
            structured=structured,
            parameters={} if adjusted.skip_special_tokens else {"skip_special_tokens": False},
            event_id=event_id,
            request=adjusted,
            parser=parser,
        )
