"""A desk of the edge in memory, and the application around it: what the tests of routes stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import numpy as np
from penstock.clock import ManualClock
from penstock.config.kinds import Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.envelope import derive
from penstock.contracts.records import Context, Document, Feedback, LlmRequest, LlmResult, ResultChunk, Usage
from penstock.contracts.request_content import content_hash
from penstock.embedding import pack_vector
from penstock.identity import KeyDirectory, mint
from penstock.identity.issuing import issued
from penstock.telemetry.traces import NoTracing
from starlette.types import ASGIApp

from services.edge.app import application
from services.edge.authentication import KeyAuthenticator
from services.edge.boundary import Room
from services.edge.front import Front
from services.edge.protocol import Conflict, Headers, Standing, Ticket, Unavailable

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_INSTALLATION = b"the secret of an installation, of 32 bytes and more"
KEY, OTHER_KEY = mint(_INSTALLATION), mint(_INSTALLATION)
AUTHORIZATION = {"authorization": f"Bearer {KEY.text}"}
CONFIG = ConfigPlane.of(
    [
        Team(name="support", allowed_routes=("default", "fast")),
        Team(name="other"),
        *(
            Route(name=name, targets=(Target(backend="extractive", model="penstock-extractive-1"),))
            for name in ("default", "fast", "slow")
        ),
        issued(KEY, "support", NOW),
        issued(OTHER_KEY, "other", NOW),
    ]
)

EMBEDDER, DIMENSION = "all-MiniLM-L6-v2", 4

Answer = Callable[[LlmRequest], list[ResultChunk | LlmResult]]
"""What the flow gives for a request; nothing leaves it under way."""


def result_of(
    request: LlmRequest, content: str = "Press it.", status: str = "completed", **fields: object
) -> LlmResult:
    """The result of a request; of one for vectors, with a vector for each of its texts."""
    if request.purpose == "embed" and status == "completed":
        vectors = [pack_vector(np.full(DIMENSION, (1 + n) / 8, np.float32)) for n in range(len(request.messages))]
        fields = {"model": EMBEDDER, "embeddings": vectors, **fields}
        content = ""
    return LlmResult(
        **derive(request, "test.result", 0, NOW),
        context=Context(
            route=request.route,
            requested_at=request.occurred_at,
            conversation_id=request.conversation_id,
            purpose=request.purpose,
        ),
        status=status,
        content=content,
        **{"model": "m" if status == "completed" else None, "usage": Usage(input_tokens=3, output_tokens=2), **fields},  # type: ignore[arg-type]
    )


def pieces_of(request: LlmRequest, *contents: str) -> list[ResultChunk | LlmResult]:
    """The pieces of a streamed answer, and its result."""
    context = Context(route=request.route, requested_at=request.occurred_at)
    pieces = [
        ResultChunk(
            **derive(request, "test.piece", number, NOW),
            context=context,
            sequence=number,
            content=content,
            finish_reason="stop" if number == len(contents) - 1 else None,
        )
        for number, content in enumerate(contents)
    ]
    return [*pieces, result_of(request, "".join(contents))]


class MemoryDesk:
    """A Desk whose flow is a function."""

    def __init__(self, answer: Answer = lambda request: [result_of(request)]) -> None:
        self.answer = answer
        self.requests: dict[tuple[str, str], LlmRequest] = {}
        self.feedback: list[tuple[Feedback, Headers]] = []
        self.documents: list[tuple[Document, Headers]] = []
        self.headers: Headers = ()
        self.away: Unavailable | None = None
        self.turned_away: set[str] = set()
        """Ids under which another request came another way."""
        self.abandoned: dict[tuple[str, str], list[str]] = {}
        """Ids of requests whose clients left, by team and fingerprint."""
        self.left = 0
        """Waits that ended before their result came."""

    async def submit(self, request: LlmRequest, headers: Headers = ()) -> Ticket:
        self._must_be_there()
        key = (request.tenant_id, request.request_id)
        known = self.requests.get(key)
        if known is not None and content_hash(known) != content_hash(request):
            raise Conflict(f"request_id {request.request_id!r} is another request's, with other content")
        self.requests[key] = request
        self.headers = headers
        return Ticket(*key, NOW, again=known is not None)

    async def leave(self, ticket: Ticket, fingerprint: str) -> None:
        self.abandoned.setdefault((ticket.team, fingerprint), []).append(ticket.request_id)

    async def adopt(self, team: str, fingerprint: str) -> str | None:
        self._must_be_there()
        left = self.abandoned.get((team, fingerprint), [])
        return left.pop(0) if left else None

    async def conversation_of(self, team: str, request_id: str) -> str | None:
        self._must_be_there()
        request = self.requests.get((team, request_id))
        return None if request is None else request.conversation_id

    async def give_feedback(self, feedback: Feedback, headers: Headers = ()) -> None:
        self._must_be_there()
        self.feedback.append((feedback, headers))

    async def add_document(self, document: Document, headers: Headers = ()) -> None:
        self._must_be_there()
        self.documents.append((document, headers))

    async def standing(self, team: str, request_id: str) -> Standing | None:
        self._must_be_there()
        if request_id in self.turned_away:
            raise Conflict(f"request_id {request_id!r} is another request's")
        if (request := self.requests.get((team, request_id))) is None:
            return None
        results = [event for event in self.answer(request) if isinstance(event, LlmResult)]
        return Standing(Ticket(team, request_id, NOW), results[0] if results else None)

    async def result(self, ticket: Ticket, timeout_s: float) -> LlmResult | None:
        standing = await self.standing(ticket.team, ticket.request_id)
        if standing is not None and standing.result is not None:
            return standing.result
        await self._never(timeout_s)
        return None

    @asynccontextmanager
    async def following(self, ticket: Ticket) -> AsyncGenerator[AsyncIterator[ResultChunk | LlmResult], None]:
        self._must_be_there()
        yield self._events(self.requests[ticket.team, ticket.request_id])

    async def _events(self, request: LlmRequest) -> AsyncGenerator[ResultChunk | LlmResult, None]:
        for event in self.answer(request):
            yield event
            if isinstance(event, LlmResult):
                return
        await self._never(None)

    async def _never(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.Event().wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self.left += 1
            raise

    def _must_be_there(self) -> None:
        if self.away is not None:
            raise self.away


def front_of(
    desk: MemoryDesk,
    *,
    requests: int = 100,
    max_body_bytes: int = 100_000,
    answer_timeout_s: float = 20.0,
    keepalive_s: float = 10.0,
) -> Front:
    """Return what the routes stand on, with ``desk`` behind it. It belongs to the running loop."""
    clock = ManualClock(NOW)
    return Front(
        authenticator=KeyAuthenticator(KeyDirectory(CONFIG, _INSTALLATION, clock)),
        desk=desk,
        config=CONFIG,
        clock=clock,
        tracing=NoTracing(),
        room=Room(requests, 10 * max_body_bytes),
        leaving=asyncio.get_running_loop().create_future(),
        max_body_bytes=max_body_bytes,
        answer_timeout_s=answer_timeout_s,
        keepalive_s=keepalive_s,
        embedding_model=EMBEDDER,
        embedding_dimension=DIMENSION,
    )


def app_of(front: Front, *waiting_for: str, cors_origins: tuple[str, ...] = ()) -> ASGIApp:
    """Return the application."""
    return application(front, lambda: waiting_for, cors_origins)
