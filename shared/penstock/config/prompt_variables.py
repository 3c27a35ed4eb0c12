"""Variables of registered prompts: which values they take, and the text that a value is put in as. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import SchemaError, SchemaValidator, ValidationError, core_schema

from penstock.config.entry import FieldError, Part

__all__ = ["Expression", "PromptVariable", "VariableError", "expression_problem", "matches", "narrowed", "written"]

Expression = Annotated[str, Field(min_length=1, max_length=1000)]
"""A regular expression of Rust's `regex`: linear in the text, hence without look-around and back-references."""

Bound = Annotated[Decimal, Field(allow_inf_nan=False, max_digits=30)]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER_CHARACTERS = 100
_OF_TEXTS = ("pattern", "enum", "max_length")
_OF_NUMBERS = ("minimum", "maximum")
_OF_LISTS = ("max_items", "separator")


class VariableError(ValueError):
    """A prompt's variables do not fit its template; the text names the variable and the remedy, never the value."""


class PromptVariable(Part):
    """One variable of a prompt: its type, and what a value of it may be.

    Values arrive as texts, since records carry them so: an integer or a number as JSON writes it, a boolean as ``true`` or
    ``false``, a list as a JSON array of strings.
    """

    description: str = Field(min_length=1, description="What the variable holds.")
    type: Literal["string", "integer", "number", "boolean", "list"] = Field(
        default="string", description="string, integer, number, boolean or list (of strings)."
    )
    required: bool = Field(default=True, description="Whether a request must give it.")
    default: str | None = Field(default=None, description="Value where the request gives none.")
    max_length: int | None = Field(
        default=None, ge=1, description="Most characters of a value, in a list of each item; null for no limit."
    )
    pattern: Expression | None = Field(
        default=None,
        description="Regular expression (Rust's, no look-around) that the whole value matches, in a list each item.",
    )
    enum: tuple[str, ...] = Field(
        default=(), description="The values there are, in a list of its items; empty for any."
    )
    minimum: Bound | None = Field(default=None, description="Least integer or number; null for none.")
    maximum: Bound | None = Field(default=None, description="Greatest integer or number; null for none.")
    max_items: int | None = Field(default=None, ge=1, description="Most items of a list; null for no limit.")
    separator: str = Field(default=", ", max_length=20, description="Stands between the items of a list.")

    def text(self, value: str, what: str) -> str:
        """Return what ``value`` is put into a template as.

        Args:
            what: what errors call the variable, e.g. ``the variable city of prompt 'weather'``.

        Raises:
            VariableError: the value is none of this variable's.
        """
        if self.type == "list":
            items = _items(value, what)
            if self.max_items is not None and len(items) > self.max_items:
                raise VariableError(f"{what} has {len(items)} items; {self.max_items} are allowed")
            for index, item in enumerate(items):
                self._check_text(item, f"item {index} of {what}")
            return self.separator.join(items)
        if self.type == "boolean":
            if value not in ("true", "false"):
                raise VariableError(f"{what} is a boolean: write true or false")
        elif self.type != "string":
            self._check_number(value, what)
        else:
            self._check_text(value, what)
        return value

    def _check_text(self, value: str, what: str) -> None:
        if self.max_length is not None and len(value) > self.max_length:
            raise VariableError(f"{what} has {len(value)} characters; {self.max_length} are allowed")
        if self.enum and value not in self.enum:
            raise VariableError(f"{what} must be one of {', '.join(self.enum)}")
        if self.pattern is not None and not matches(self.pattern, value, whole=True):
            raise VariableError(f"{what} must match {self.pattern}")

    def _check_number(self, value: str, what: str) -> None:
        form = _INTEGER if self.type == "integer" else _NUMBER
        if len(value) > _NUMBER_CHARACTERS or not form.fullmatch(value):
            example = "an integer: write digits alone, e.g. 42" if self.type == "integer" else "a number, e.g. 0.5"
            raise VariableError(f"{what} is {example}")
        number = Decimal(value)
        if self.minimum is not None and number < self.minimum:
            raise VariableError(f"{what} must be {self.minimum} or more")
        if self.maximum is not None and number > self.maximum:
            raise VariableError(f"{what} must be {self.maximum} or less")

    @field_validator("default", mode="before")
    @classmethod
    def _default_as_text(cls, value: Any, info: ValidationInfo) -> Any:
        """A number, a boolean or a list of YAML is the text it is written as, where the variable is of that type."""
        types = {bool: ("boolean",), int: ("integer", "number"), Decimal: ("number",), list: ("list",)}
        fits = info.data.get("type", "string") in types.get(type(value), ())
        return written(value) if fits else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        allowed = {"string": _OF_TEXTS, "list": (*_OF_TEXTS, *_OF_LISTS), "boolean": ()}.get(self.type, _OF_NUMBERS)
        for name in (*_OF_TEXTS, *_OF_NUMBERS, *_OF_LISTS):
            if name not in allowed and getattr(self, name) != type(self).model_fields[name].default:
                raise FieldError((name,), f"means nothing where type is {self.type}: remove it")
        if self.pattern is not None and (problem := expression_problem(self.pattern)):
            raise FieldError(("pattern",), problem)
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise FieldError(("maximum",), "is below minimum: no value would fit")
        if self.required and self.default is not None:
            raise ValueError("is required and has a default: the default would never be used; write required: false")
        if self.default is not None:
            try:
                self.text(self.default, "its default")
            except VariableError as error:
                raise FieldError(("default",), str(error)) from None
        return self


def written(value: Any) -> str:
    """Return the text of a YAML value as requests give it: numbers and booleans as in JSON, lists as JSON arrays.

    Raises:
        ValueError: it is nothing that a variable could be.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)
    raise ValueError("must be a text, a number, true or false, or a list of texts (quote what is to be a text)")


def matches(expression: str, text: str, *, whole: bool = False) -> bool:
    """Return whether ``expression`` matches somewhere in ``text``, or all of it with ``whole``."""
    try:
        _validator(rf"\A(?:{expression})\z" if whole else expression).validate_python(text)
    except ValidationError:
        return False
    return True


def expression_problem(expression: str) -> str | None:
    """Say why ``expression`` cannot be used, or None."""
    try:
        _validator(expression)
        _validator(rf"\A(?:{expression})\z")
    except SchemaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        cause = next((line for line in lines if line.startswith("error:")), lines[-1]).removeprefix("error: ")
        return f"{expression!r} is no regular expression that can be used: {cause}"
    return None


@lru_cache(maxsize=1024)
def _validator(expression: str) -> SchemaValidator:
    return SchemaValidator(core_schema.str_schema(pattern=expression, regex_engine="rust-regex"))


def _items(value: str, what: str) -> list[str]:
    try:
        items = json.loads(value)
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise VariableError(f'{what} is a list: write a JSON array of strings, e.g. ["one", "two"]')
    for index, item in enumerate(items):
        # JSON's escapes can write half of a surrogate pair, which no record can carry.
        if any("\ud800" <= char <= "\udfff" for char in item):
            raise VariableError(f"item {index} of {what} holds half of a surrogate pair: write the whole character")
    return items


def narrowed(before: PromptVariable, after: PromptVariable) -> Iterator[str]:
    """Yield in what ``after`` may refuse values that ``before`` takes."""
    if before.type != after.type and after.type != "string":
        yield f"is of type {after.type}, not {before.type}"
    for name in ("max_length", "maximum", "max_items"):
        old, new = getattr(before, name), getattr(after, name)
        if new is not None and (old is None or new < old):
            yield f"has {name} {new}" + (f", which was {old}" if old is not None else "")
    if after.minimum is not None and (before.minimum is None or after.minimum > before.minimum):
        yield f"has minimum {after.minimum}" + (f", which was {before.minimum}" if before.minimum is not None else "")
    if after.pattern is not None and after.pattern != before.pattern:
        yield "has another pattern"
    if after.enum and (not before.enum or not set(before.enum) <= set(after.enum)):
        yield "has other values in enum"
