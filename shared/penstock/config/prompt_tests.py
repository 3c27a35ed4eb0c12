"""Tests of prompts: what a prompt must render for given values, and what its answers must keep. Pure but for reading files.

They lie beside the prompts: ``support.tests.yaml`` holds those of the prompts in ``support.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from penstock.config.entry import FieldError, Name, Part
from penstock.config.prompt_variables import Expression, VariableError, expression_problem, matches, written
from penstock.config.prompts import Prompt
from penstock.config.yaml_lines import YamlError, read_yaml

__all__ = [
    "TESTS_SUFFIX", "AnswerExpectation", "Expectation", "PromptTest", "PromptTests", "PromptTestsInvalid",
    "RenderedExpectation", "answer_failures", "read_tests", "rendered_failures", "tests_beside",
]  # fmt: skip

TESTS_SUFFIX = ".tests.yaml"
"""What the name of a file of tests ends in."""

_SHOWN = 200


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Value = Annotated[str, BeforeValidator(written)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more)]
Expressions = Annotated[tuple[Expression, ...], BeforeValidator(_one_or_more)]


class PromptTestsInvalid(Exception):
    """A file of tests cannot be used; the message names file, line, field and cause of every problem."""


class Expectation(Part):
    """What a text must keep; each of ``contains``, ``not_contains`` and ``matches`` is one or a list."""

    contains: Texts = Field(default=(), description="Texts that it holds.")
    not_contains: Texts = Field(default=(), description="Texts that it does not hold.")
    matches: Expressions = Field(
        default=(), description="Regular expressions (no look-around) that each match somewhere in it."
    )
    max_characters: int | None = Field(default=None, ge=1, description="Most characters of it.")

    @model_validator(mode="after")
    def _expressions_are_usable(self) -> Self:
        for index, expression in enumerate(self.matches):
            if problem := expression_problem(expression):
                raise FieldError(("matches", index), problem)
        return self

    def failures(self, text: str, what: str, *, cased: bool = True) -> Iterator[str]:
        """Yield what ``text`` lacks or has too much.

        Args:
            what: what the failures call it, e.g. ``the answer``.
            cased: whether upper and lower case differ in ``contains`` and ``not_contains``.
        """

        def folded(part: str) -> str:
            return part if cased else part.casefold()

        for wanted in self.contains:
            if folded(wanted) not in folded(text):
                yield f"{what} does not contain {_shown(wanted)}; it is {_shown(text)}"
        for unwanted in self.not_contains:
            if folded(unwanted) in folded(text):
                yield f"{what} contains {_shown(unwanted)}"
        for expression in self.matches:
            if not matches(expression, text):
                yield f"nothing in {what} matches {expression}; it is {_shown(text)}"
        if self.max_characters is not None and len(text) > self.max_characters:
            yield f"{what} has {len(text)} characters; {self.max_characters} are expected at most"


class RenderedExpectation(Expectation):
    """What the rendered messages must keep: those of one role, or all of them."""

    role: Literal["system", "user", "assistant"] | None = Field(
        default=None, description="Messages that are looked at, joined by line feeds; null for all of them."
    )
    equals: str | None = Field(default=None, description="The whole text.")


class AnswerExpectation(Expectation):
    """What the answer must keep, without regard to case; it depends on a model, so write what every good answer keeps."""

    status: Literal["completed", "blocked", "rejected", "failed", "expired"] = Field(
        default="completed", description="How the request ends."
    )
    code: str | None = Field(default=None, description="Machine-readable reason of that end.")


class PromptTest(Part):
    """One set of values, and what comes of it."""

    name: str = Field(min_length=1, max_length=200, description="What it shows, in words.")
    variables: dict[str, Value] = Field(default={}, description="Values of the prompt's variables, by name.")
    refused: str | None = Field(
        default=None, min_length=1, description="The values are refused, with an error that holds this text."
    )
    rendered: tuple[RenderedExpectation, ...] = Field(default=(), description="What the messages keep.")
    question: str | None = Field(default=None, min_length=1, description="User message that follows the prompt's own.")
    answer: AnswerExpectation | None = Field(
        default=None, description="What the answer keeps; looked at with --answers."
    )

    @model_validator(mode="after")
    def _expects_something(self) -> Self:
        if self.refused is None and not self.rendered and self.answer is None:
            raise ValueError("expects nothing: write rendered, refused or answer")
        if self.refused is not None and (self.rendered or self.answer is not None):
            raise ValueError("expects values to be refused and something of what they render: make two tests of it")
        if self.question is not None and self.answer is None:
            raise FieldError(("question",), "is asked with an answer to expect only: add answer, or remove it")
        return self


class PromptTests(Part):
    """The tests of a prompt's versions in the file beside."""

    prompt: Name | None = Field(default=None, description="Prompt they are for; null: every one in the file beside.")
    labels: tuple[Name, ...] = Field(
        default=(), description="Versions they are for, by their labels in that file; empty for all of them."
    )
    tests: tuple[PromptTest, ...] = Field(min_length=1, description="The tests.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [test.name for test in self.tests]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise FieldError(("tests", index, "name"), f"{name!r} is there twice")
        return self

    def concern(self, prompt: Prompt) -> bool:
        """Return whether the tests are for this version."""
        return self.prompt in (None, prompt.name) and (not self.labels or bool(set(self.labels) & set(prompt.labels)))


def read_tests(file: Path) -> PromptTests:
    """Read a file of tests.

    Raises:
        PromptTestsInvalid: it cannot be read, or something in it is wrong.
    """
    try:
        document = read_yaml(file.read_text("utf-8"))
    except YamlError as error:
        raise PromptTestsInvalid(f"{file}:{error.line}: {error.cause}; {error.remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PromptTestsInvalid(f"{file}:1: cannot be read: {error}; make it a readable UTF-8 file") from None
    try:
        return PromptTests.model_validate(document.data)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            raised = detail.get("ctx", {}).get("error")
            path, cause = detail["loc"], detail["msg"].removeprefix("Value error, ")
            if isinstance(raised, FieldError):
                path, cause = (*path, *raised.path), raised.cause
            where = f"{file}:{document.line(path)}: "
            problems.append(where + (f"{'.'.join(map(str, path))}: " if path else "") + cause[:1].lower() + cause[1:])
        raise PromptTestsInvalid("\n".join(problems)) from None


def tests_beside(file: Path) -> Path:
    """Return where the tests of the prompts in ``file`` lie."""
    return file.with_name(file.stem + TESTS_SUFFIX)


def rendered_failures(prompt: Prompt, test: PromptTest) -> list[str]:
    """Return what ``prompt`` does not keep of ``test``, answers aside; empty where all is well."""
    try:
        messages = prompt.render(test.variables)
    except VariableError as error:
        if test.refused is None:
            return [f"the values are refused: {error}"]
        return [] if test.refused in str(error) else [f"the values are refused otherwise: {error}"]
    if test.refused is not None:
        return [f"the values are taken; they were to be refused with {_shown(test.refused)}"]
    return [failure for expected in test.rendered for failure in _rendered(expected, messages)]


def answer_failures(expected: AnswerExpectation, status: str, code: str | None, reason: str, answer: str) -> list[str]:
    """Return what a result does not keep; empty where all is well."""
    why = ": ".join(part for part in (code, reason) if part)
    if status != expected.status:
        return [f"the request ended as {status}" + (f" ({why})" if why else "") + f", not as {expected.status}"]
    failures = [] if expected.code in (None, code) else [f"the code is {code or 'none'}, not {expected.code}"]
    return [*failures, *expected.failures(answer, "the answer", cased=False)]


def _rendered(expected: RenderedExpectation, messages: Sequence[tuple[str, str]]) -> Iterator[str]:
    text = "\n".join(content for role, content in messages if expected.role in (None, role))
    what = f"the {expected.role} message" if expected.role else "the rendered text"
    if expected.role and all(role != expected.role for role, _ in messages):
        yield f"there is no {expected.role} message"
        return
    if expected.equals is not None and text != expected.equals:
        yield f"{what} is {_shown(text)}, not {_shown(expected.equals)}"
    yield from expected.failures(text, what)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
