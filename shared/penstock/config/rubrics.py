"""Rubrics: what a model is asked when it judges an answer, and what it may say."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.entry import Entry, FieldError, Name, Part

__all__ = ["Choice", "Rubric"]


class Choice(Part):
    """One verdict that a judge may give."""

    name: Name = Field(description="The verdict, e.g. good.")
    score: float = Field(ge=0, le=1, allow_inf_nan=False, description="What it counts, from 0 (bad) to 1 (good).")
    meaning: str = Field(min_length=1, description="When to give it.")


class Rubric(Entry):
    """How a model judges. Its instructions are a registered prompt, rendered with what is judged."""

    KIND: ClassVar[str] = "rubrics"

    name: Name = Field(description="Name of the rubric: the name of its scores.")
    mode: Literal["pointwise", "pairwise"] = Field(
        default="pointwise", description="Whether one answer is graded, or two are compared."
    )
    prompt: Name = Field(
        description="Registered prompt with the judge's instructions. Its variables: question, passages, reference, "
        "answer (pointwise) or answer_a and answer_b (pairwise), verdicts (each with its meaning) and marker (the code of "
        "the lines between which each of the texts stands). What it requires and a task has not cannot be judged."
    )
    prompt_label: str = Field(
        default="production", description="Which version of the prompt: a label or a content hash."
    )
    route: Name = Field(description="Route whose model judges. It needs one that follows a JSON schema.")
    choices: tuple[Choice, ...] = Field(
        default=(), description="Verdicts of a pointwise rubric; a pairwise one has a, b and tie."
    )
    swap: bool = Field(
        default=True,
        description="Pairwise: whether both orders are judged, so that a judge's favourite place cancels out.",
    )
    attempts: int = Field(default=3, ge=1, le=10, description="How often a judge is asked that gives no valid verdict.")
    deadline_s: float = Field(
        default=120.0, gt=0, le=86400, description="Longest wait for one answer of the judge, seconds."
    )

    @property
    def key(self) -> str:
        return self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mode == "pairwise" and self.choices:
            raise FieldError(("choices",), "belong to a pointwise rubric; a pairwise one has a, b and tie")
        if self.mode == "pointwise" and len(self.choices) < 2:
            raise FieldError(("choices",), "needs two verdicts at least, e.g. good and bad with their scores")
        names = [choice.name for choice in self.choices]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("choices", index, "name"), f"{name!r} is there twice")
        return self
