"""What the commands that talk to a cluster share: its addresses, and errors in one line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import structlog
from rich.console import Console

from penstock.bus.kafka import KafkaUnavailable
from penstock.config.plane import ConfigError
from penstock.contracts.catalogue import CatalogueError
from penstock.contracts.codec import Invalid
from penstock.contracts.registry import RegistryError
from penstock.redaction import Redaction
from penstock.settings import KafkaSettings, SettingsError, load_settings

__all__ = ["cluster_settings", "errors_of_a_check", "one_line_errors", "table_console"]

_EXPECTED = (
    CatalogueError,
    ConfigError,
    Invalid,
    KafkaUnavailable,
    RegistryError,
    SettingsError,
)


def cluster_settings(*, registry: bool = True) -> KafkaSettings:
    """Return where the cluster is: KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL where set, else the running local stack.

    Raises:
        click.ClickException: an address is not set and no local stack has been started.
        SettingsError: a variable is malformed.
    """
    needed = ["KAFKA_BOOTSTRAP", *(["SCHEMA_REGISTRY_URL"] if registry else [])]
    settings = load_settings(KafkaSettings)
    if all(os.environ.get(variable) for variable in needed):
        return settings
    found = _local_stack()
    return settings.model_copy(update={variable.lower(): found[variable] for variable in needed})


def _local_stack() -> Mapping[str, str]:
    # A producer's machine has the SDK alone: what the local stack needs is not installed there.
    try:
        from penstock.stack import Stack, StackError
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"set KAFKA_BOOTSTRAP and SCHEMA_REGISTRY_URL; a local stack is no choice here, {error.name} is not installed"
        ) from error
    try:
        return Stack.open().environment()
    except StackError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def one_line_errors(*others: type[Exception]) -> Iterator[None]:
    """Turn what a person can mend (and ``others``) into one line on standard error and exit status 1.

    Logs go to standard error as well, errors only, until the block ends.
    """
    before = structlog.get_config()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            Redaction().event,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    expected: tuple[type[Exception], ...] = (*_EXPECTED, *others)
    try:
        yield
    except expected as error:
        raise click.ClickException(str(error)) from error
    finally:
        structlog.configure(**before)


@contextmanager
def errors_of_a_check(*others: type[Exception]) -> Iterator[None]:
    """As :func:`one_line_errors`, for a command whose exit status 1 says that something became worse.

    Whatever keeps it from running ends with 2: what a person can mend in one line, a defect with its traceback, where
    Python's own status would be 1. An interruption ends with 130.
    """
    try:
        with one_line_errors(*others):
            yield
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception:
        traceback.print_exc()
        raise SystemExit(2) from None


def table_console() -> Console:
    """A console for tables: as wide as the terminal, and wide enough to cut nothing off in a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() else 220)
