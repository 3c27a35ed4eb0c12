"""The shell of the edge: its routes, what surrounds them, and the one ASGI application that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp

from services.edge import chat, documents, embeddings, feedback, models, tracked
from services.edge.boundary import Boundary
from services.edge.docs_page import CONTENT_SECURITY_POLICY, page
from services.edge.front import Front
from services.edge.openapi import document
from services.edge.operations import Operation, routes_of

__all__ = ["application", "operations"]

# What a page of another origin may send and read, where any is let in: what OpenAI's client in a browser does.
_CORS_METHODS = ("GET", "POST", "DELETE")
_CORS_HEADERS = (
    "authorization", "content-type", "idempotency-key", "last-event-id", "traceparent", "tracestate",
    "openai-organization", "openai-project",
    *(f"x-stainless-{what}" for what in (
        "arch", "helper-method", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version", "timeout",
    )),
)  # fmt: skip
_CORS_EXPOSED = ("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "location")


def operations(front: Front) -> list[Operation]:
    """Return all that takes an API key; what is asked most comes first."""
    return [
        part for module in (chat, embeddings, tracked, feedback, documents, models) for part in module.operations(front)
    ]


def application(front: Front, waiting_for: Callable[[], Sequence[str]], cors_origins: Sequence[str] = ()) -> ASGIApp:
    """Return the application.

    Args:
        front: what the routes stand on.
        waiting_for: what readiness waits for; empty means ready.
        cors_origins: whose pages may call it from a browser; none by default.
    """
    offered = operations(front)
    description = document(offered, {**chat.RULES, **documents.RULES})
    routes = routes_of([*offered, *_open(msgspec.json.encode(description), page(description), waiting_for)])
    app: ASGIApp = Boundary(Router(routes, redirect_slashes=False), front.room)
    if cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=cors_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_HEADERS,
            expose_headers=_CORS_EXPOSED,
        )
    return app


def _open(description: bytes, docs: str, waiting_for: Callable[[], Sequence[str]]) -> list[Operation]:
    """What is answered without a key: nothing in it is anybody's."""

    async def described(request: Request) -> Response:
        return Response(description, media_type="application/json")

    async def shown(request: Request) -> Response:
        return Response(docs, media_type="text/html", headers={"content-security-policy": CONTENT_SECURITY_POLICY})

    async def alive(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        waiting = waiting_for()
        told = "waiting for: " + ", ".join(waiting) if waiting else "ready"
        return PlainTextResponse(told + "\n", 503 if waiting else 200)

    text = ["text/plain"]
    return [
        Operation(
            "GET", "/openapi.json", "openapi", "The description", {200: []}, described, keyed=False, described=False
        ),
        Operation("GET", "/docs", "docs", "The same for people", {200: []}, shown, keyed=False, described=False),
        Operation("GET", "/healthz", "healthz", "Liveness", {200: text}, alive, keyed=False, described=False),
        Operation("GET", "/readyz", "readyz", "Readiness", {200: text}, ready, keyed=False, described=False),
    ]
