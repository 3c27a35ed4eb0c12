"""Registered prompts: messages with variables, versioned by content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from penstock.config.canonical import canonical_json
from penstock.config.entry import Entry, FieldError, Name, Part
from penstock.config.prompt_variables import PromptVariable, VariableError

__all__ = ["Prompt", "PromptMessage", "PromptVariable", "VariableError"]

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_BRACES = re.compile(r"\{\{.*?\}\}|\{\{|\}\}", re.DOTALL)


class PromptMessage(Part):
    """One message of a template."""

    role: Literal["system", "user", "assistant"] = Field(description="Who says it.")
    content: str = Field(min_length=1, description="Text with {{variable}} placeholders.")

    def placeholders(self) -> list[str]:
        """Names between double braces, in order."""
        return _PLACEHOLDER.findall(self.content)


class Prompt(Entry):
    """One immutable version of a prompt; labels point at versions and are no part of one."""

    KIND: ClassVar[str] = "prompts"

    name: Name = Field(description="Name that requests and routes refer to.")
    template: tuple[PromptMessage, ...] = Field(
        min_length=1, description="Messages that come before those of the request."
    )
    variables: dict[str, PromptVariable] = Field(default={}, description="The template's variables, by name.")
    labels: tuple[Name, ...] = Field(
        default=("production",), description="Labels that point at this version, e.g. production, canary."
    )

    @property
    def key(self) -> str:
        """Key of the version itself; every label has one of its own, ``<name>@<label>``."""
        return f"{self.name}@{self.version}"

    @cached_property
    def canonical(self) -> str:
        """As for every entry, without the labels: moving one changes no version."""
        return canonical_json(self.model_dump(mode="python", exclude_defaults=True, exclude={"labels"}))

    @model_validator(mode="after")
    def _check(self) -> Self:
        used: set[str] = set()
        for index, message in enumerate(self.template):
            # One by one: a text of braces that never close is read once, not once for each.
            for found in _BRACES.finditer(message.content):
                braces = found.group()
                if not _PLACEHOLDER.fullmatch(braces):
                    raise FieldError(("template", index), f"{braces!r} is no placeholder: write {{{{name}}}}")
            used.update(message.placeholders())
        if missing := sorted(used - self.variables.keys()):
            raise FieldError(("template",), f"uses {', '.join(missing)}, which variables does not declare")
        if unused := sorted(self.variables.keys() - used):
            raise FieldError(("variables", unused[0]), "is declared and not used in the template")
        for label in self.labels:
            if re.fullmatch(r"[0-9a-f]{16}", label):
                raise FieldError(("labels",), f"{label!r} looks like a version's hash: choose another")
        return self

    def filled(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the text that each variable is put in as, by its name.

        Raises:
            VariableError: a required variable is missing, an unknown one is given, or a value is none of its variable's.
        """
        if unknown := sorted(values.keys() - self.variables.keys()):
            raise VariableError(
                f"prompt {self.name!r} has no variable {', '.join(unknown)}; "
                f"it has {', '.join(self.variables) or 'none'}"
            )
        filled: dict[str, str] = {}
        for name, variable in self.variables.items():
            value = values.get(name, variable.default)
            if value is not None:
                filled[name] = variable.text(value, f"the variable {name} of prompt {self.name!r}")
            elif variable.required:
                raise VariableError(f"prompt {self.name!r} needs the variable {name}: {variable.description}")
            else:
                filled[name] = ""
        return filled

    def render(self, values: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the messages as (role, content) with ``values`` in their places.

        Values are put in as they are (those of lists joined) and never expanded again, so a value cannot bring
        placeholders of its own, and none makes a message of its own.

        Raises:
            VariableError: as of :meth:`filled`.
        """
        filled = self.filled(values)
        return [(m.role, _PLACEHOLDER.sub(lambda hit: filled[hit[1]], m.content)) for m in self.template]

    def inserted(self, values: Mapping[str, str]) -> list[str]:
        """Return what ``values`` put into the system's messages: words that are not the platform's own, as they stand there.

        Raises:
            VariableError: as of :meth:`filled`.
        """
        filled = self.filled(values)
        used = {name for m in self.template if m.role == "system" for name in m.placeholders()}
        return [filled[name] for name in values if name in used and filled[name]]
