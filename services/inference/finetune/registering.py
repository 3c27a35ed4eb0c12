"""An adapter as a model version: the entry that routes and engines read, and the canary that gives it its first traffic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.config.adapters import Adapter, TrainingData
from penstock.config.entry import Name
from penstock.config.kinds import Canary, Route
from penstock.config.plane import ConfigPlane
from pydantic import TypeAdapter, ValidationError

from services.inference.finetune.record import (
    EVALUATION,
    Evaluated,
    RecordError,
    Trained,
    read_evaluation,
    read_training,
)
from services.inference.vllm.adapters import AdapterError, digest_of

__all__ = ["NotRegistered", "adapter_of", "canary_of", "checked_name", "kept_apart", "with_canary"]


class NotRegistered(Exception):
    """An adapter cannot be registered or routed to; the message names the cause and the remedy."""


def adapter_of(
    folder: Path,
    *,
    name: str,
    base_model: str | None = None,
    path: str | None = None,
    note: str = "",
    force: bool = False,
) -> Adapter:
    """Return the entry of an adapter that was trained and evaluated.

    Args:
        folder: where `penstock finetune train` wrote it.
        name: what targets ask for.
        base_model: its base as the engine serves it; None: as it was trained.
        path: the folder as inference sees it; None: where it is here.
        note: who made it, and why.
        force: whether it is registered though its evaluation is missing or says that it is worse; the note then says so.

    Raises:
        NotRegistered: it is not what was trained or evaluated, is worse than its base, or no model may be called so.
    """
    try:
        trained, digest = read_training(folder), digest_of(folder)
    except (RecordError, AdapterError) as error:
        raise NotRegistered(str(error)) from error
    if digest != trained.adapter_sha256:
        raise NotRegistered(
            f"the weights in {folder} are not those that were trained (sha256 {digest[:16]}, trained "
            f"{trained.adapter_sha256[:16]}): train again into another folder"
        )
    evaluated, objection = _evaluation(folder, digest)
    if objection and not force:
        raise NotRegistered(f"{objection}, or register it all the same with --force")
    data = trained.dataset
    notes = (note, f"Registered by force: {objection}." if objection else "")
    try:
        return Adapter(
            name=name,
            base_model=base_model or trained.base_model,
            path=path or str(folder.resolve()),
            sha256=digest,
            rank=trained.options.rank,
            trained_on=TrainingData(name=data.name, sha256=data.version, rows=data.rows),
            figures=_figures(trained, evaluated),
            note=" ".join(part for part in notes if part)[:2000],
        )
    except ValidationError as error:
        raise NotRegistered(_causes(error)) from error


def checked_name(name: str) -> str:
    """Return ``name`` where an adapter may be called so.

    Raises:
        NotRegistered: it may not.
    """
    try:
        return TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise NotRegistered(f"--name {_causes(error)}") from error


def _causes(error: ValidationError) -> str:
    each = (f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors())
    return "; ".join(each).removeprefix(": ")


def _evaluation(folder: Path, digest: str) -> tuple[Evaluated | None, str]:
    """Return the evaluation of these weights, and what speaks against registering them."""
    if not (folder / EVALUATION).exists():
        return None, f"{folder} was not evaluated: run `penstock finetune evaluate`"
    try:
        evaluated = read_evaluation(folder)
    except RecordError as error:
        return None, str(error)
    if evaluated.adapter_sha256 != digest:
        return None, f"{folder / EVALUATION} is of other weights: run `penstock finetune evaluate` again"
    if not evaluated.ok:
        return (
            evaluated,
            f"it is worse than its base on {evaluated.golden} ({'; '.join(evaluated.problems)}): train it anew",
        )
    return evaluated, ""


def _figures(trained: Trained, evaluated: Evaluated | None) -> dict[str, float]:
    losses = {"held_out.loss": round(trained.loss, 6), "base.held_out.loss": round(trained.base_loss, 6)}
    return losses if evaluated is None else {**evaluated.figures, "golden.cases": float(evaluated.cases), **losses}


def kept_apart(adapter: Adapter, plane: ConfigPlane) -> Adapter:
    """Return ``adapter`` where its name is free or its own already: events name models, so a name keeps its weights.

    Raises:
        NotRegistered: other weights have the name.
    """
    present = plane.adapter(adapter.name)
    if present is not None and present.sha256 != adapter.sha256:
        raise NotRegistered(
            f"{adapter.name!r} is registered with other weights (sha256 {present.sha256[:16]}): events name their model by "
            "it, so give this version a name of its own"
        )
    return adapter


def canary_of(
    model: str, share: float, *, sticky: str, max_error_rate: float, max_score_loss: Mapping[str, float], salt: str = ""
) -> Canary:
    """Return an adapter on trial; ``model`` is its name, other arguments are as of :class:`penstock.config.kinds.Canary`.

    Raises:
        NotRegistered: one of them is out of range.
    """
    try:
        return Canary.model_validate(
            {
                "target": {"backend": "vllm", "model": model},
                "share": share,
                "sticky": sticky,
                "max_error_rate": max_error_rate,
                "max_score_loss": dict(max_score_loss),
                "salt": salt,
            }
        )
    except ValidationError as error:
        raise NotRegistered(_causes(error)) from error


def with_canary(route: str, canary: Canary, plane: ConfigPlane, *, replace: bool = False) -> Route:
    """Return a route of the configuration with an adapter on trial.

    Args:
        replace: whether another target that is on trial there gives way.

    Raises:
        NotRegistered: there is no such route or adapter, another target is on trial, or the adapter answers there already.
    """
    present, model = plane.route(route), canary.target.model
    if present is None:
        known = ", ".join(sorted(plane.entries("routes"))) or "none"
        raise NotRegistered(f"there is no route {route!r}; there are {known}")
    if plane.adapter(model) is None:
        known = ", ".join(sorted(plane.entries("adapters"))) or "none"
        raise NotRegistered(
            f"no adapter {model!r} is registered (there are: {known}): register it with `penstock finetune register`"
        )
    on_trial = present.canary
    if on_trial is not None and on_trial.target.model != model and not replace:
        raise NotRegistered(
            f"{on_trial.target.label} is on trial on {route!r} already: wait for what becomes of it, or say --replace"
        )
    others = (*present.targets, *(shadow.target for shadow in present.shadows))
    if any(target.label == model for target in others):
        raise NotRegistered(f"{model} is a target or a shadow of {route!r} already: take it out there first")
    return Route.model_validate({**present.model_dump(exclude_defaults=True), "canary": canary})
