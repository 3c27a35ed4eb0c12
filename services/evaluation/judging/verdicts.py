"""What a judge said: read strictly, and combined into a score. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from penstock.contracts.records import LlmResult, Score, Status

from services.evaluation.judging.asking import Plan

__all__ = ["Failure", "Given", "given", "score_of"]

_LARGEST = 64 * 1024
_LONGEST_REASON = 2_000
_SWAPPED = {"a": "b", "b": "a", "tie": "tie"}


class Given(msgspec.Struct, frozen=True, array_like=True):
    """A valid verdict of a judge. In a comparison it is about the answers in the task's order, however they were shown."""

    verdict: str
    reason: str
    model: str
    model_us: int


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why there is no verdict."""

    reason: str
    retried: bool
    """Whether another attempt may do better."""
    code: str = "judge_failed"


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    verdict: str


_decode = msgspec.json.Decoder(_Said).decode


def given(result: LlmResult, plan: Plan, order: str) -> Given | Failure:
    """Return the verdict in the answer to a judge's request.

    What is refused before a model is asked (a budget that is exhausted, a route that the team may not use) will be refused
    again, so it is no reason to ask again; a model that failed, was late or said no valid verdict is.
    """
    if result.status == Status.REJECTED:
        code = "judge_over_budget" if result.code == "over_budget" else "judge_rejected"
        return Failure(f"refused as {result.code}: {result.reason}", retried=False, code=code)
    if result.status != Status.COMPLETED:
        blocked = result.status == Status.BLOCKED and not result.calls
        return Failure(f"{result.status}: {result.reason or result.code or 'no reason given'}", retried=not blocked)
    if len(result.content) > _LARGEST:
        return Failure(f"the answer has {len(result.content):,} characters and is no verdict", retried=True)
    try:
        said = _decode(result.content)
    except (ValueError, RecursionError) as error:
        # msgspec's errors are ValueErrors, as are those of text that is no Unicode.
        return Failure(f"the answer is no verdict: {error}", retried=True)
    if said.verdict not in {each.name for each in plan.verdicts}:
        names = ", ".join(each.name for each in plan.verdicts)
        return Failure(f"the verdict {said.verdict[:100]!r} is none of {names}", retried=True)
    verdict = _SWAPPED[said.verdict] if order == "swapped" else said.verdict
    reason = said.reason.strip()[:_LONGEST_REASON]
    return Given(verdict, reason, result.model or "unknown", result.timings.model_us)


def score_of(plan: Plan, said: Sequence[Given]) -> Score:
    """Return the score of a task from the verdicts in ``plan.orders``.

    A comparison has a winner where both orders agree on it, and is a tie where they do not: then the judge chose by place.
    ``categories`` says so: ``position_consistency`` is 1 where they agree, ``first_place`` is 1 where the judge preferred
    the answer that it was shown first in both orders, ``second_place`` likewise.
    """
    first = said[0]
    agreed = all(each.verdict == first.verdict for each in said)
    label = first.verdict if agreed else "tie"
    categories: dict[str, float] = {}
    reason = first.reason
    if len(said) > 1:
        shown = [each.verdict for each in said]
        categories = {
            "position_consistency": float(agreed),
            "first_place": float(shown == ["a", "b"]),
            "second_place": float(shown == ["b", "a"]),
        }
        reason = "\n".join(
            f"{place}: {each.verdict}. {each.reason}" for place, each in zip(("A first", "B first"), said, strict=True)
        )
    models = "/".join(dict.fromkeys(each.model for each in said))
    return Score(
        name=plan.rubric,
        subject="answer",
        score=next(each.score for each in plan.verdicts if each.name == label),
        label=label,
        version=f"{plan.version}+{plan.prompt_version}+{models}",
        categories=categories,
        reason=reason,
        latency_us=sum(each.model_us for each in said),
    )
