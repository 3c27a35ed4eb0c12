"""``/v1/documents``: what answers may be grounded in."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Document
from starlette.requests import Request
from starlette.responses import Response

from services.edge.errors import ApiError
from services.edge.front import IDEMPOTENCY_KEY, Front, identity, json_answer
from services.edge.openai_requests import decoded, request_id_of
from services.edge.openapi import Schema
from services.edge.operations import Operation, Parameter

__all__ = ["RULES", "DocumentAccepted", "DocumentUpload", "operations"]

_LONGEST_ID = 512
_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_TEXT = r"text/(?:plain|markdown|html)(?:; ?charset=[A-Za-z0-9_.:+-]{1,40})?"
_CONTENT_TYPE = rf"^(?:{_TEXT}|application/pdf)$"
_LANGUAGE = "^[a-z]{2,3}$"
_DocumentId = Annotated[str, Meta(min_length=1, max_length=_LONGEST_ID)]
_Line = Annotated[str, Meta(max_length=2_048)]


class DocumentUpload(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A document to make retrievable; it takes the place of the one with the same identity."""

    document_id: Annotated[_DocumentId, Meta(description="Identity within the team.")]
    content: Annotated[str, Meta(description="The text; in its place data.", min_length=1)] | UnsetType = UNSET
    data: (
        Annotated[
            str,
            Meta(
                description="The file as it is, in base64: a PDF, or a text in any encoding.",
                min_length=4,
                pattern=_BASE64,
                extra_json_schema={"contentEncoding": "base64"},
            ),
        ]
        | UnsetType
    ) = UNSET
    title: Annotated[_Line, Meta(description="Title.")] = ""
    source: Annotated[_Line, Meta(description="Where it came from: a path or an address.")] = ""
    content_type: Annotated[
        str,
        Meta(
            description="text/plain, text/markdown or text/html; of data application/pdf, too, and a text's charset where "
            "it is known: text/plain; charset=windows-1251.",
            pattern=_CONTENT_TYPE,
        ),
    ] = "text/plain"
    tags: Annotated[dict[_Line, _Line], Meta(description="Labels for filters.", max_length=64)] = {}
    language: Annotated[str, Meta(description="Language, ISO 639-1; null: found out.", pattern=_LANGUAGE)] | None = None
    valid_from: Annotated[datetime, Meta(description="Answers are grounded in it from then on.", tz=True)] | None = None
    valid_to: (
        Annotated[datetime, Meta(description="... and until then; one that is not after valid_from: never.", tz=True)]
        | None
    ) = None


RULES: Mapping[Any, Sequence[Schema]] = {
    DocumentUpload: [
        {
            "oneOf": [
                {"required": ["content"], "properties": {"content_type": {"pattern": f"^{_TEXT}$"}, "data": False}},
                {"required": ["data"], "properties": {"content": False}},
            ]
        }
    ]
}
"""What is asked of fields together, for the published description."""


class DocumentAccepted(Struct, frozen=True, kw_only=True):
    """The log has it; guardrails look at it before it is indexed."""

    id: Annotated[str, Meta(description="Identity of the upload: the request_id of its events.")]
    document_id: str
    deleted: bool = False
    object: Literal["document"] = "document"


def _file(asked: DocumentUpload) -> bytes | None:
    """Return the file that is sent; None where a text is.

    Raises:
        ApiError: 400: there is neither or both, or they contradict what is said of them.
    """
    if (asked.content is UNSET) == (asked.data is UNSET):
        raise _invalid("a document is either content, a text, or data, a file in base64: send one of them", "content")
    if asked.data is not UNSET:
        return base64.b64decode(asked.data)
    if asked.content_type == "application/pdf":
        raise _invalid("content is a text: send a PDF as data, in base64", "content_type")
    return None


def _invalid(why: str, param: str) -> ApiError:
    return ApiError(400, why, param=param, code="invalid_value")


_DECODER = msgspec.json.Decoder(DocumentUpload)


def operations(front: Front) -> list[Operation]:
    """Return what is offered about documents."""

    async def add(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        asked = decoded(await front.body(request), _DECODER)
        return await _send(request, caller.team, key, asked, _file(asked))

    async def remove(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        document_id: str = request.path_params["document_id"]
        if len(document_id) > _LONGEST_ID:
            raise ApiError(400, f"document_id has more than {_LONGEST_ID} characters", param="document_id")
        return await _send(request, caller.team, key, DocumentUpload(document_id=document_id), None)

    async def _send(
        request: Request, team: str, key: str | None, asked: DocumentUpload, data: bytes | None
    ) -> Response:
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
            content="" if asked.content is UNSET else asked.content,
            tags=asked.tags,
            deleted=asked.content is UNSET and data is None,
            data=data,
            language=asked.language,
            valid_from=asked.valid_from,
            valid_to=asked.valid_to,
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
