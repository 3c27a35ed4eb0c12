"""Structured logs: one JSON object a line on standard output, never the text of users, and no credential."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, cast

import structlog

from penstock.redaction import Redaction

__all__ = ["configure_logging", "get_logger"]


def configure_logging(service: str, level: str = "info", *, json: bool = True, secrets: Iterable[str] = ()) -> None:
    """Send structlog and the standard library's loggers to standard output as JSON lines bound to ``service``.

    Credentials are masked in every line, whoever wrote it: see :mod:`penstock.redaction`. ``secrets`` are values to mask
    wherever they stand.
    """
    redaction = Redaction(secrets)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redaction.event,
                renderer,
                redaction.line,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These say every poll and every request at info.
    for chatty in ("aiokafka", "faust", "mode", "httpx", "httpcore", "presidio-analyzer", "uvicorn"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Reports each step of finding the coordinator and of a rebalance as an error, which they are not: what lasts ends
    # the service with an error of ours.
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))
