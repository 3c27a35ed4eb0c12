"""``POST /v1/feedback``: what a person thought of a result."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from penstock.contracts.envelope import event_id, new_id
from penstock.contracts.records import Feedback
from starlette.requests import Request
from starlette.responses import Response

from services.edge.front import IDEMPOTENCY_KEY, Front, json_answer
from services.edge.openai_requests import decoded, request_id_of
from services.edge.operations import Operation

__all__ = ["FeedbackAccepted", "FeedbackRequest", "operations"]

_Text = Annotated[str, Meta(max_length=65_536)]
_Label = Annotated[str, Meta(max_length=200)]


class FeedbackRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person thought of the result of a request, however that came to Penstock."""

    request_id: Annotated[str, Meta(description="Request that it is about.", pattern=r"^[\x21-\x7e]{1,200}$")]
    conversation_id: Annotated[
        _Label | None,
        Meta(description="Conversation of the request, where it had one; null: as the edge knows it."),
    ] = None
    user_id: Annotated[_Label | None, Meta(description="Who gave it.")] = None
    source: Annotated[Literal["user", "moderator", "system"], Meta(description="As who.")] = "user"
    rating: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="From 0 (bad) to 1 (good); thumbs are 0 and 1.")
    ] = None
    labels: Annotated[
        dict[_Label, _Label], Meta(description="By subject and name, e.g. prompt.toxicity = toxic.", max_length=32)
    ] = {}
    correction: Annotated[_Text | None, Meta(description="What the answer should have been.")] = None
    comment: Annotated[_Text | None, Meta(description="Free text.")] = None
    chosen: Annotated[Literal["a", "b", "tie"] | None, Meta(description="Of two answers the better one.")] = None


class FeedbackAccepted(Struct, frozen=True, kw_only=True):
    """The log has it."""

    id: Annotated[str, Meta(description="Identity of the feedback: its event_id.")]
    request_id: str
    object: Literal["feedback"] = "feedback"


_DECODER = msgspec.json.Decoder(FeedbackRequest)


def operations(front: Front) -> list[Operation]:
    """Return what is offered about feedback."""

    async def give(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        asked = decoded(await front.body(request), _DECODER)
        conversation = asked.conversation_id
        if conversation is None:
            # Feedback goes under its request's key, so that what joins the two reads one partition.
            conversation = await front.desk.conversation_of(caller.team, asked.request_id)
        identity = new_id() if key is None else event_id(f"{caller.team}/{asked.request_id}/{key}", "edge.feedback", 0)
        feedback = Feedback(
            event_id=identity,
            request_id=asked.request_id,
            tenant_id=caller.team,
            occurred_at=front.clock.now(),
            causation_id="",
            conversation_id=conversation,
            user_id=asked.user_id,
            source=asked.source,
            rating=asked.rating,
            labels=asked.labels,
            correction=asked.correction,
            comment=asked.comment,
            chosen=asked.chosen,
        )
        with front.traced(request, "edge feedback") as headers:
            await front.desk.give_feedback(feedback, headers)
        return json_answer(FeedbackAccepted(id=identity, request_id=asked.request_id), 202)

    return [
        Operation(
            "POST", "/v1/feedback", "create_feedback", "Say what a person thought of a result",
            {202: [FeedbackAccepted]}, give, FeedbackRequest, [IDEMPOTENCY_KEY], (400, 413, 415),
        )
    ]  # fmt: skip
