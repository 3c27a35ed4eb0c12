"""How a model is asked to generate, as a command line or a line of JSON says it."""

from __future__ import annotations

import json
from typing import Any

import click
import msgspec

from penstock.contracts.records import Sampling

__all__ = ["named", "sampling_of"]

_TEXTS = frozenset({"regex", "response_format"})
"""Parameters that are texts, whatever they look like."""


def named(option: str) -> tuple[str, Any]:
    """Return the parameter and the value of NAME=VALUE: a number or a list where it is one in JSON, else the text.

    Raises:
        click.UsageError: it has no name or no value.
    """
    name, equals, text = option.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--sampling {option!r} is no NAME=VALUE, e.g. --sampling temperature=0")
    if name in _TEXTS:
        return name, text
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    # One stop sequence is a list of one; what looks like a number is a sequence too.
    return name, [text] if name == "stop" and not isinstance(value, list) else value


def sampling_of(fields: Any) -> Sampling:
    """Return the parameters that ``fields``, a JSON object, gives.

    Raises:
        click.ClickException: there is none of that name, or its value is of another type.
    """
    known = Sampling.__struct_fields__
    if isinstance(fields, dict) and (unknown := sorted(set(fields) - set(known))):
        raise click.ClickException(f"sampling has no parameter {unknown[0]!r}; there are: {', '.join(known)}")
    try:
        return msgspec.convert(fields, Sampling)
    except msgspec.ValidationError as error:
        raise click.ClickException(f"sampling: {error}") from None
