"""``/v1/documents``: what answers may be grounded in."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Document
from starlette.requests import Request
from starlette.responses import Response

from services.edge.errors import ApiError
from services.edge.front import IDEMPOTENCY_KEY, Front, identity, json_answer
from services.edge.openai_requests import decoded, request_id_of
from services.edge.operations import Operation, Parameter

__all__ = ["DocumentAccepted", "DocumentUpload", "operations"]

_LONGEST_ID = 512
_DocumentId = Annotated[str, Meta(min_length=1, max_length=_LONGEST_ID)]
_Line = Annotated[str, Meta(max_length=2_048)]


class DocumentUpload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document to make retrievable; it takes the place of the one with the same identity."""

    document_id: Annotated[_DocumentId, Meta(description="Identity within the team.")]
    content: Annotated[str, Meta(description="The text.", min_length=1)]
    title: Annotated[_Line, Meta(description="Title.")] = ""
    source: Annotated[_Line, Meta(description="Where it came from: a path or an address.")] = ""
    content_type: Literal["text/plain", "text/markdown", "text/html"] = "text/plain"
    tags: Annotated[dict[_Line, _Line], Meta(description="Labels for filters.", max_length=64)] = {}


class DocumentAccepted(Struct, frozen=True, kw_only=True):
    """The log has it; guardrails look at it before it is indexed."""

    id: Annotated[str, Meta(description="Identity of the upload: the request_id of its events.")]
    document_id: str
    deleted: bool = False
    object: Literal["document"] = "document"


_DECODER = msgspec.json.Decoder(DocumentUpload)


def operations(front: Front) -> list[Operation]:
    """Return what is offered about documents."""

    async def add(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        asked = decoded(await front.body(request), _DECODER)
        return await _send(request, caller.team, key, asked)

    async def remove(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        document_id: str = request.path_params["document_id"]
        if len(document_id) > _LONGEST_ID:
            raise ApiError(400, f"document_id has more than {_LONGEST_ID} characters", param="document_id")
        return await _send(request, caller.team, key, DocumentUpload(document_id=document_id, content=""))

    async def _send(request: Request, team: str, key: str | None, asked: DocumentUpload) -> Response:
        upload = identity(request, key)
        document = Document(
            event_id=event_id(f"{team}/{asked.document_id}/{upload}", "edge.document", 0),
            request_id=upload,
            tenant_id=team,
            occurred_at=front.clock.now(),
            causation_id="",
            document_id=asked.document_id,
            title=asked.title,
            source=asked.source,
            content_type=asked.content_type,
            content=asked.content,
            tags=asked.tags,
            deleted=asked.content == "",
        )
        with front.traced(request, "edge document") as headers:
            await front.desk.add_document(document, headers)
        accepted = DocumentAccepted(id=upload, document_id=asked.document_id, deleted=document.deleted)
        return json_answer(accepted, 202)

    document_id = Parameter(
        "document_id", "path", "Identity within the team.",
        {"type": "string", "minLength": 1, "maxLength": _LONGEST_ID},
    )  # fmt: skip
    return [
        Operation(
            "POST", "/v1/documents", "create_document", "Make a document retrievable, or replace it",
            {202: [DocumentAccepted]}, add, DocumentUpload, [IDEMPOTENCY_KEY], (400, 413, 415),
        ),
        Operation(
            "DELETE", "/v1/documents/{document_id:path}", "delete_document", "Remove a document",
            {202: [DocumentAccepted]}, remove, None, [document_id, IDEMPOTENCY_KEY], (400, 404),
        ),
    ]  # fmt: skip
