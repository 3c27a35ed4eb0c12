"""``/v1/requests``: requests that nobody waits for on the connection they came on, and what has become of any."""

from __future__ import annotations

from penstock.contracts.records import LlmResult, ResultChunk
from starlette.requests import Request
from starlette.responses import Response

from services.edge.errors import ApiError
from services.edge.event_answer import EventAnswer
from services.edge.front import IDEMPOTENCY_KEY, Front, address_of, identity, json_answer
from services.edge.openai_replies import status_of
from services.edge.openai_reply_types import RequestStatus
from services.edge.openai_requests import request_id_of, request_of, submitted_of
from services.edge.openai_types import SubmittedRequest
from services.edge.operations import Operation, Parameter
from services.edge.protocol import Standing, Ticket
from services.edge.sse import piece_event, result_event, resumed_after

__all__ = ["operations"]

_REQUEST_ID = Parameter(
    "request_id", "path", "Identity of the request.", {"type": "string", "pattern": r"^[\x21-\x2e\x30-\x7e]{1,200}$"}
)
_LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "Id of the last event that the client has, as browsers send it: pieces up to it are left out.",
)


class _Progress:
    """A request that is followed (an EventWriter): its pieces, and then what has become of it, whatever that is."""

    def __init__(self, ticket: Ticket, after: int) -> None:
        self._ticket = ticket
        self._after = after

    def refusal(self, result: LlmResult) -> ApiError | None:
        return None

    def piece(self, chunk: ResultChunk) -> bytes:
        return piece_event(chunk) if chunk.sequence > self._after else b""

    def result(self, result: LlmResult) -> bytes:
        return result_event(Standing(self._ticket, result))

    def broken(self, error: ApiError) -> bytes:
        return b""  # a stream that ends without a result is followed anew, from where it broke off


def operations(front: Front) -> list[Operation]:
    """Return what is offered about requests."""

    async def submit(request: Request) -> Response:
        caller = front.caller(request)
        key = request_id_of(request.headers.get("idempotency-key"))
        asked = submitted_of(await front.body(request))
        if key is not None and asked.request_id not in (None, key):
            raise ApiError(
                409, "request_id and Idempotency-Key name two requests; send one of them",
                param="request_id", code="idempotency_conflict",
            )  # fmt: skip
        chosen = identity(request, asked.request_id or key)
        event = request_of(asked, caller, chosen, front.clock.now())
        with front.traced(request, "edge request") as headers:
            ticket = await front.desk.submit(event, headers)
        answer = json_answer(status_of(Standing(ticket)), 202)
        answer.headers["location"] = address_of(ticket.request_id)
        return answer

    async def known(request: Request) -> Standing:
        caller = front.caller(request)
        standing = await front.desk.standing(caller.team, request.path_params["request_id"])
        if standing is None:
            raise ApiError(
                404, "no request of this id came through the edge lately; ask with the key of the team that sent it",
                param="request_id", code="request_not_found",
            )  # fmt: skip
        return standing

    async def show(request: Request) -> Response:
        return json_answer(status_of(await known(request)))

    async def follow(request: Request) -> Response:
        ticket = (await known(request)).ticket
        after = resumed_after(request.headers.get("last-event-id"))
        return EventAnswer(front, ticket, _Progress(ticket, after), again=True)

    return [
        Operation(
            "POST", "/v1/requests", "create_request", "Ask a route, and come back for the answer",
            {202: [RequestStatus]}, submit, SubmittedRequest, [IDEMPOTENCY_KEY], (400, 409, 413, 415),
        ),
        Operation(
            "GET", "/v1/requests/{request_id}", "retrieve_request", "Show what has become of a request",
            {200: [RequestStatus]}, show, None, [_REQUEST_ID], (404, 409, 410),
        ),
        Operation(
            "GET", "/v1/requests/{request_id}/events", "follow_request", "Follow a request as server-sent events",
            {200: ["text/event-stream"]}, follow, None, [_REQUEST_ID, _LAST_EVENT_ID], (404, 409, 410, 504),
        ),
    ]  # fmt: skip
