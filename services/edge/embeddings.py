"""``POST /v1/embeddings``: the vectors of texts, screened, priced and limited like any request."""

from __future__ import annotations

import asyncio

import msgspec
from penstock.contracts.records import LlmResult, Status
from starlette.requests import Request
from starlette.responses import Response

from services.edge.core import error_of
from services.edge.embedding_bodies import (
    EmbeddingList,
    EmbeddingRequest,
    embedding_list,
    embedding_request_of,
    embeddings_asked,
)
from services.edge.errors import ApiError
from services.edge.front import IDEMPOTENCY_KEY, Front
from services.edge.openai_requests import request_id_of
from services.edge.operations import Operation
from services.edge.sending import awaited, send

__all__ = ["operations"]

_AT_ONCE = 64
"""Vectors that are written one after another before somebody else has a turn."""


def operations(front: Front) -> list[Operation]:
    """Return what is offered about vectors."""

    async def embed(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        asked = embeddings_asked(await front.body(request), front.embedding_model, front.embedding_dimension)
        sent = await send(front, request, caller, embedding_request_of(asked, caller, "", front.clock.now()), key)
        model, encoding = asked.model, asked.encoding_format
        del asked  # it may be large, and the wait long
        result = await awaited(front, request, sent)
        if result.status != Status.COMPLETED:
            raise error_of(result, again=sent.keyed)
        _must_be_of(result, model)
        return Response(await _encoded(embedding_list(result, encoding)), media_type="application/json")

    return [
        Operation(
            "POST", "/v1/embeddings", "create_embedding", "Embed texts, and wait for their vectors",
            {200: [EmbeddingList]}, embed, EmbeddingRequest, [IDEMPOTENCY_KEY],
            (400, 403, 404, 409, 410, 413, 415, 422, 504),
        )
    ]  # fmt: skip


async def _encoded(listed: EmbeddingList) -> bytes:
    """Return ``listed`` as JSON. Many vectors take a tenth of a second, so others are answered between them."""
    vectors = []
    for number, vector in enumerate(listed.data, 1):
        vectors.append(msgspec.json.encode(vector))
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    around = msgspec.json.encode(msgspec.structs.replace(listed, data=[]))
    return around.replace(b'"data":[]', b'"data":[' + b",".join(vectors) + b"]", 1)


def _must_be_of(result: LlmResult, model: str) -> None:
    """Vectors of two models are never alike: none is given under another one's name.

    Raises:
        ApiError: 500: retrieval embeds with another model than this edge says.
    """
    if result.model != model:
        raise ApiError(
            500,
            f"the vectors are of {result.model!r}, not of {model!r}: EMBEDDING_MODEL of the edge and of retrieval differ",
            code="embedder_mismatch",
        )
