"""``/v1/models``: what OpenAI's clients name as ``model``: routes that a caller may ask for, and the embedding model."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from penstock.config.plane import ConfigPlane
from starlette.requests import Request
from starlette.responses import Response

from services.edge.errors import ApiError
from services.edge.front import Front, json_answer
from services.edge.operations import Operation, Parameter
from services.edge.protocol import Caller

__all__ = ["Model", "ModelList", "models_of", "operations"]


class Model(Struct, frozen=True, kw_only=True):
    """A route, or the embedding model."""

    id: Annotated[str, Meta(description="What requests name as their model.")]
    created: Annotated[int, Meta(description="0: a route is what its newest version says.")] = 0
    owned_by: str = "penstock"
    object: Literal["model"] = "model"


class ModelList(Struct, frozen=True, kw_only=True):
    """Routes, by name, and the embedding model."""

    data: list[Model]
    object: Literal["list"] = "list"


def models_of(caller: Caller, config: ConfigPlane, embedder: str) -> list[Model]:
    """Return the routes that both the caller's key and its team allow, by name, and ``embedder`` where the team may use it.

    A route of the embedding model's name is the same to who asks: which is meant says the address.
    """
    team = config.team(caller.team)
    if team is None:
        return []
    names = sorted(config.entries("routes"))
    allowed = [name for name in names if team.allows(name) and caller.allows(name)]
    if embedder not in allowed and ("*" in team.allowed_models or embedder in team.allowed_models):
        allowed.append(embedder)
    return [Model(id=name) for name in allowed]


def operations(front: Front) -> list[Operation]:
    """Return what is offered about models."""

    async def list_all(request: Request) -> Response:
        return json_answer(ModelList(data=models_of(front.caller(request), front.config, front.embedding_model)))

    async def show(request: Request) -> Response:
        caller, name = front.caller(request), request.path_params["model"]
        for model in models_of(caller, front.config, front.embedding_model):
            if model.id == name:
                return json_answer(model)
        raise ApiError(
            404, "nothing of this name may be asked for with this key; GET /v1/models lists those that may",
            param="model", code="model_not_found",
        )  # fmt: skip

    name = Parameter("model", "path", "Name of the route or model.", {"type": "string", "minLength": 1})
    return [
        Operation(
            "GET", "/v1/models", "list_models", "List the routes that may be asked for, and the embedding model",
            {200: [ModelList]}, list_all,
        ),
        Operation(
            "GET", "/v1/models/{model:path}", "retrieve_model", "Show one of them",
            {200: [Model]}, show, parameters=[name], errors=(404,),
        ),
    ]  # fmt: skip
