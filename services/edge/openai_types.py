"""What OpenAI's chat API is asked, as the edge reads it.

The published schema and the decoder are made of these same types: names, bounds and defaults are those of OpenAI's
reference of ``POST /v1/chat/completions``, what vLLM adds to it (``top_k``, ``min_p``, ``structured_outputs``), and
Penstock's own under ``penstock``. A parameter that is none of these is refused rather than passed over, as OpenAI does.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "AssistantMessage", "AssistantPart", "CalledFunction", "ChatMessage", "ChatRequest", "DeveloperMessage", "Function",
    "FunctionCall", "FunctionChoice", "JsonObjectFormat", "JsonSchema", "JsonSchemaFormat", "NamedFunction", "Options",
    "ResponseFormat", "RetrievalOptions", "StreamOptions", "StructuredOutputs", "SubmittedRequest", "SystemMessage",
    "TextFormat", "TextPart", "Tool", "ToolMessage", "UserMessage",
]  # fmt: skip

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Count = Annotated[int, Meta(ge=1, le=2_147_483_647)]
_RequestId = Annotated[str, Meta(pattern=r"^[\x21-\x2e\x30-\x7e]{1,200}$")]
_Metadata = Annotated[dict[str, str], Meta(max_length=16)]
_Json = Annotated[dict[str, Any], Meta(description="A JSON schema.")]


class _Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a client writes by itself: what is unknown in it is a mistake."""


class _Message(Struct, frozen=True, kw_only=True, tag_field="role"):
    """Base of messages. Those that clients send back as they got them hold more than is read."""


class TextPart(Struct, frozen=True, kw_only=True):
    """A part of a message's content. Text is all that can be sent."""

    type: Literal["text"]
    text: str


class AssistantPart(Struct, frozen=True, kw_only=True):
    """A part of what the assistant said: ``text``, or ``refusal`` where it declined."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None


class CalledFunction(Struct, frozen=True, kw_only=True):
    """A function and what it is called with: JSON, if the model kept to it."""

    name: str
    arguments: str


class FunctionCall(Struct, frozen=True, kw_only=True):
    """A call that the assistant made."""

    id: Annotated[str, Meta(min_length=1)]
    function: CalledFunction
    type: Literal["function"] = "function"


class SystemMessage(_Message, frozen=True, kw_only=True, tag="system"):
    """Instructions."""

    content: str | list[TextPart]
    name: str | None = None


class DeveloperMessage(_Message, frozen=True, kw_only=True, tag="developer"):
    """Instructions, by the name that OpenAI's newer models give them."""

    content: str | list[TextPart]
    name: str | None = None


class UserMessage(_Message, frozen=True, kw_only=True, tag="user"):
    """What a person says."""

    content: str | list[TextPart]
    name: str | None = None


class AssistantMessage(_Message, frozen=True, kw_only=True, tag="assistant"):
    """What the model said before. ``content`` may be null where it called tools, or declined."""

    content: str | list[AssistantPart] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[FunctionCall] | None = None


class ToolMessage(_Message, frozen=True, kw_only=True, tag="tool"):
    """What a tool gave that the assistant called."""

    content: str | list[TextPart]
    tool_call_id: Annotated[str, Meta(min_length=1)]


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(_Asked, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: _Name
    description: str | UnsetType = UNSET
    parameters: _Json | UnsetType = UNSET
    strict: bool | UnsetType | None = UNSET


class Tool(_Asked, frozen=True, kw_only=True):
    """A tool. Functions are all there are."""

    type: Literal["function"]
    function: Function


class NamedFunction(_Asked, frozen=True, kw_only=True):
    name: _Name


class FunctionChoice(_Asked, frozen=True, kw_only=True):
    """The one function to call."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Asked, frozen=True, kw_only=True):
    """A schema that the answer follows. It is always held to it strictly, where the route's models can be."""

    name: _Name
    schema: _Json
    description: str | None = None
    strict: bool | None = None


class TextFormat(_Asked, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Free text."""


class JsonObjectFormat(_Asked, frozen=True, kw_only=True, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(_Asked, frozen=True, kw_only=True, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StreamOptions(_Asked, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: Annotated[
        bool | None, Meta(description="Taken and not acted on: nothing is added to hide lengths.")
    ] = None


class StructuredOutputs(_Asked, frozen=True, kw_only=True):
    """What vLLM holds an answer to beside a schema."""

    regex: Annotated[str, Meta(description="Expression, of RE2, that the whole answer must match.")]


class RetrievalOptions(_Asked, frozen=True, kw_only=True):
    """Which documents may ground the answer, of those that the team and the route have."""

    collection: Annotated[str | None, Meta(description="Collection to search; null for the route's.")] = None
    tags: Annotated[dict[str, str], Meta(description="Labels that a document must carry, all of them.")] = {}
    language: Annotated[
        Annotated[str, Meta(pattern=r"^[a-z]{2,3}$")] | None, Meta(description="Language of the document, ISO 639-1.")
    ] = None
    as_of: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="Instant at which the document must be valid; null for that of the search."),
    ] = None


class Options(_Asked, frozen=True, kw_only=True):
    """What Penstock is asked beside OpenAI's parameters: OpenAI's clients send it with ``extra_body``."""

    prompt: Annotated[str | None, Meta(description="Registered prompt to render; it comes before messages.")] = None
    prompt_label: Annotated[
        str, Meta(description="Which version of it: a label, or a version's content hash.", min_length=1)
    ] = "production"
    variables: Annotated[
        dict[str, str | int | float | bool | list[str]], Meta(description="Values for the prompt's variables.")
    ] = {}
    conversation_id: Annotated[
        str | None, Meta(description="Conversation that the request belongs to; its events keep their order.")
    ] = None
    deadline_s: Annotated[
        Annotated[float, Meta(gt=0, le=604_800)] | None,
        Meta(description="Seconds after which the answer is of no use; null leaves it to the route."),
    ] = None
    tags: Annotated[dict[str, str], Meta(description="Labels for cost allocation, beside metadata.")] = {}
    policy: Annotated[str | None, Meta(description="Guardrail policy; the team must list it in allowed_policies.")] = (
        None
    )
    priority: Annotated[
        Literal["interactive", "standard", "batch"] | None,
        Meta(description="Who is served first where requests wait; before service_tier."),
    ] = None
    retrieval: Annotated[
        RetrievalOptions | None, Meta(description="Which documents may ground the answer; null leaves it to the route.")
    ] = None
    purpose: Annotated[
        Literal["serve", "evaluation"], Meta(description="What is no traffic is left out by detectors and caches.")
    ] = "serve"


class ChatRequest(_Asked, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``."""

    model: Annotated[
        str, Meta(description='Route to answer it; "default" is the team\'s.', min_length=1, max_length=200)
    ]
    messages: list[ChatMessage] = []
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_completion_tokens: _Count | None = None
    max_tokens: Annotated[
        _Count | None, Meta(description="max_completion_tokens by its old name: one of the two, not both.")
    ] = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Annotated[int, Meta(ge=0, le=20)] | None, Meta(description="Needs logprobs.")] = None
    top_k: Annotated[_Count | None, Meta(description="As in vLLM.")] = None
    min_p: Annotated[Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="As in vLLM.")] = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    stream: bool | None = None
    stream_options: Annotated[StreamOptions | None, Meta(description="Needs stream.")] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex", "priority"] | None,
        Meta(description="flex is priority batch, default and auto standard, priority interactive."),
    ] = None
    metadata: Annotated[_Metadata | None, Meta(description="Tags of the request.")] = None
    user: Annotated[str | None, Meta(description="End user, as the team names them.")] = None
    safety_identifier: Annotated[str | None, Meta(description="user by its newer name.")] = None
    prompt_cache_key: Annotated[
        str | None, Meta(description="Taken and not acted on: prefixes find their own way.")
    ] = None
    store: Annotated[
        bool | None, Meta(description="Taken and not acted on: the log keeps what its retention says.")
    ] = None
    modalities: list[Literal["text"]] | None = None
    penstock: Annotated[Options, Meta(description="What Penstock is asked beside OpenAI's parameters.")] = Options()


class SubmittedRequest(ChatRequest, frozen=True, kw_only=True):
    """Body of ``POST /v1/requests``: a chat request that nobody waits for on its connection.

    With ``stream`` its pieces can be followed on ``/v1/requests/{id}/events``, else its result alone.
    """

    request_id: Annotated[_RequestId | None, Meta(description="Identity, as Idempotency-Key gives it, too.")] = None
