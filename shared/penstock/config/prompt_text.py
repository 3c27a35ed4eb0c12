"""A prompt as a person reads it, and how two versions of one differ. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from penstock.config.prompt_variables import PromptVariable, narrowed
from penstock.config.prompts import Prompt

__all__ = ["breaking_changes", "differing_lines", "readable", "rules_of"]


def readable(prompt: Prompt) -> list[str]:
    """Return the messages and the variables of ``prompt`` as lines."""
    lines: list[str] = []
    for message in prompt.template:
        lines += [f"[{message.role}]", *message.content.split("\n")]
    if prompt.variables:
        lines.append("[variables]")
        for name, variable in sorted(prompt.variables.items()):
            lines.append(f"{name}: {'; '.join(rules_of(variable))}")
            lines += [f"  {line}" for line in variable.description.split("\n")]
    return lines


def rules_of(variable: PromptVariable) -> list[str]:
    """Return what a value of ``variable`` may be, rule by rule; the first is its type."""
    rules: list[str] = ["list of strings" if variable.type == "list" else variable.type]
    if variable.default is not None:
        rules.append(f"default {variable.default!r}")
    elif not variable.required:
        rules.append("may be left out")
    if variable.enum:
        rules.append(f"one of {', '.join(variable.enum)}")
    for name, said in (
        ("pattern", "matches"), ("max_length", "characters at most"), ("minimum", "at least"), ("maximum", "at most"),
        ("max_items", "items at most"),
    ):  # fmt: skip
        if (value := getattr(variable, name)) is not None:
            rules.append(f"{value} {said}" if name in ("max_length", "max_items") else f"{said} {value}")
    if variable.type == "list":
        rules.append(f"joined by {variable.separator!r}")
    return rules


def differing_lines(before: Prompt, after: Prompt, named_before: str, named_after: str) -> list[str]:
    """Return a unified diff of two versions, as lines; empty where they are the same."""
    return list(
        difflib.unified_diff(readable(before), readable(after), fromfile=named_before, tofile=named_after, lineterm="")
    )


def breaking_changes(before: Prompt, after: Prompt) -> Iterator[str]:
    """Yield what ``after`` refuses of the requests that ``before`` takes, for those who send them."""
    for name, variable in sorted(after.variables.items()):
        old = before.variables.get(name)
        if variable.required and (old is None or not old.required):
            yield f"{name} is required now: requests that do not give it are refused"
        if old is not None:
            for rule in narrowed(old, variable):
                yield f"{name} {rule}: requests with other values are refused"
    for name in sorted(before.variables.keys() - after.variables.keys()):
        yield f"{name} is no variable any more: requests that give it are refused"
