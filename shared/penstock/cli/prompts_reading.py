"""What the commands of ``penstock prompts`` read: the topic's history, and prompts in files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import click

from penstock.bus import history
from penstock.cli.cluster import one_line_errors
from penstock.cli.connection import Connection
from penstock.cli.publishing import EntryRefused
from penstock.config.files import ConfigInvalid, load_entries
from penstock.config.prompt_history import PromptHistory, PromptUnknown, histories
from penstock.config.prompt_tests import PromptTestsInvalid
from penstock.config.prompts import Prompt, VariableError
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import ConfigEntry

__all__ = [
    "INVALID_EXIT_CODE",
    "PRODUCTION",
    "expected_errors",
    "of_file",
    "read_histories",
    "reference",
    "require_one",
]

PRODUCTION = "production"
INVALID_EXIT_CODE = 2
_TOPIC = "config-prompts"


async def read_histories(connection: Connection) -> Mapping[str, PromptHistory]:
    """Return what was ever published of prompts, by name.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or the topic is missing.
    """
    records: list[ConfigEntry] = []
    async with history(connection.bus, [_TOPIC]) as messages:
        async for message in messages:
            with contextlib.suppress(Undecodable):
                records.append(cast("ConfigEntry", connection.codec.decode(message.topic, message.value)))
    return histories(records)


def of_file(file: Path) -> list[Prompt]:
    """Return the prompts in ``file``.

    Raises:
        ConfigInvalid: something in it is wrong.
    """
    return [located.entry for located in load_entries(Prompt.KIND, file) if isinstance(located.entry, Prompt)]


def require_one(prompts: list[Prompt], name: str, label: str | None, file: Path) -> Prompt:
    """Return the version of the prompt ``name`` that ``label``, or the hash it is, means among those of a file.

    Raises:
        PromptUnknown: there is none, or several and ``label`` is None.
    """
    own = [prompt for prompt in prompts if prompt.name == name]
    fitting = [prompt for prompt in own if label is None or label in prompt.labels or prompt.version.startswith(label)]
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(f"{prompt.name}@{'|'.join((*prompt.labels, prompt.version))}" for prompt in prompts)
    which = name if label is None else f"{name}@{label}"
    raise PromptUnknown(f"{file} holds {'several versions' if fitting else 'no version'} of {which}; it holds {held}")


def reference(text: str) -> tuple[str, str | None]:
    """Split ``NAME``, ``NAME@LABEL`` or ``NAME@VERSION``; the second is None where there is no ``@``."""
    name, at, which = text.partition("@")
    if not name or (at and not which):
        raise click.UsageError(f"{text!r} is no NAME, NAME@LABEL or NAME@VERSION")
    return name, which if at else None


@contextlib.contextmanager
def expected_errors() -> Iterator[None]:
    """Turn what a person can mend into one line: exit status 2 where files or values are invalid, else 1."""
    with one_line_errors(PromptUnknown):
        try:
            yield
        except (ConfigInvalid, EntryRefused, PromptTestsInvalid, VariableError) as error:
            problem = click.ClickException(str(error))
            problem.exit_code = INVALID_EXIT_CODE
            raise problem from error
