"""What ``POST /v1/embeddings`` is asked and answers, and how that becomes a request of the log and a result an answer. Pure.

Names, bounds and defaults are those of OpenAI's reference. What is embedded is screened like any prompt, so it has to be
text: tokens, which only their own model could read, are refused.
"""

from __future__ import annotations

import base64
import struct
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from penstock.contracts.records import LlmRequest, LlmResult, Message, Priority, Purpose

from services.edge.errors import ApiError
from services.edge.openai_requests import decoded
from services.edge.protocol import Caller

__all__ = [
    "Embedding", "EmbeddingList", "EmbeddingOptions", "EmbeddingProvenance", "EmbeddingRequest", "EmbeddingUsage",
    "embedding_list", "embedding_request_of", "embeddings_asked",
]  # fmt: skip

Encoding = Literal["float", "base64"]
_MOST_INPUTS = 2_048
_Text = Annotated[str, Meta(min_length=1)]


class EmbeddingOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Penstock is asked beside OpenAI's parameters: OpenAI's clients send it with ``extra_body``."""

    route: Annotated[
        str,
        Meta(
            description='Route whose policy and deadline hold for it; "default" is the team\'s. No model of it is called.',
            min_length=1,
            max_length=200,
        ),
    ] = "default"
    deadline_s: Annotated[
        Annotated[float, Meta(gt=0, le=604_800)] | None,
        Meta(description="Seconds after which the vectors are of no use; null leaves it to the route."),
    ] = None
    tags: Annotated[dict[str, str], Meta(description="Labels for cost allocation.", max_length=64)] = {}
    policy: Annotated[str | None, Meta(description="Guardrail policy; the team must list it in allowed_policies.")] = (
        None
    )
    priority: Annotated[
        Literal["interactive", "standard", "batch"], Meta(description="Who goes first where requests wait.")
    ] = "standard"


class EmbeddingRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/embeddings``."""

    model: Annotated[
        str, Meta(description="The embedding model, as GET /v1/models names it.", min_length=1, max_length=200)
    ]
    input: Annotated[
        _Text | Annotated[list[_Text], Meta(min_length=1, max_length=_MOST_INPUTS)],
        Meta(description="Text to embed, or several; no tokens."),
    ]
    encoding_format: Annotated[
        Encoding | None, Meta(description="base64: the numbers as float32, little-endian; null is float.")
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1, le=2_147_483_647)] | None,
        Meta(description="Length of the vectors: the model's own is the only one there is."),
    ] = None
    user: Annotated[str | None, Meta(description="End user, as the team names them.")] = None
    penstock: Annotated[EmbeddingOptions, Meta(description="What Penstock is asked beside OpenAI's parameters.")] = (
        EmbeddingOptions()
    )


class Embedding(Struct, frozen=True, kw_only=True):
    """The vector of one text, of unit length: numbers, or base64 of them as float32, little-endian."""

    index: Annotated[int, Meta(description="Place of the text in input.")]
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct, frozen=True, kw_only=True):
    """Tokens that were embedded."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingProvenance(Struct, frozen=True, kw_only=True):
    """What Penstock says of vectors beside OpenAI's fields: what became of the request, and under which policy."""

    request_id: str
    route: str
    policy: str
    policy_version: str | None


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/embeddings``."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    penstock: EmbeddingProvenance
    object: Literal["list"] = "list"


_DECODER = msgspec.json.Decoder(EmbeddingRequest)


def embeddings_asked(body: bytes, model: str, dimension: int) -> EmbeddingRequest:
    """Return the body of ``POST /v1/embeddings``.

    Args:
        model: the one that there is.
        dimension: length of its vectors.

    Raises:
        ApiError: 400, with the part that is wrong as its ``param``; 404: there is no such model.
    """
    asked = decoded(body, _DECODER)
    if asked.model != model:
        raise ApiError(
            404, f"no embedding model of this name: vectors are of {model!r}, which GET /v1/models lists",
            param="model", code="model_not_found",
        )  # fmt: skip
    if asked.dimensions not in (None, dimension):
        raise ApiError(
            400, f"the vectors of {model!r} have {dimension:,} dimensions, and no others are made of them; leave it out",
            param="dimensions", code="invalid_value",
        )  # fmt: skip
    return asked


def embedding_request_of(asked: EmbeddingRequest, caller: Caller, request_id: str, now: datetime) -> LlmRequest:
    """Return the event of ``asked``: its texts are messages of the user. Its event_id is the desk's."""
    options = asked.penstock
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    return LlmRequest(
        event_id="",
        request_id=request_id,
        tenant_id=caller.team,
        occurred_at=now,
        causation_id="",
        user_id=asked.user or None,
        route=options.route,
        messages=[Message(role="user", content=text) for text in texts],
        deadline_at=None if options.deadline_s is None else now + timedelta(seconds=options.deadline_s),
        tags=options.tags,
        key_id=caller.key_id,
        purpose=Purpose.EMBED,
        policy_name=options.policy,
        priority=Priority(options.priority),
    )


def embedding_list(result: LlmResult, encoding: Encoding | None = None) -> EmbeddingList:
    """Return the vectors of a completed result."""
    context, tokens = result.context, result.usage.input_tokens
    told = _as_base64 if encoding == "base64" else _as_numbers
    return EmbeddingList(
        data=[Embedding(index=index, embedding=told(vector)) for index, vector in enumerate(result.embeddings)],
        model=result.model or "",
        usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        penstock=EmbeddingProvenance(
            request_id=result.request_id,
            route=context.route,
            policy=context.policy_name,
            policy_version=context.policy_version,
        ),
    )


def _as_base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode("ascii")


def _as_numbers(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))
