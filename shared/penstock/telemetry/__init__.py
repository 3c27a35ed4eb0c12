"""Logs, metrics and traces."""

from penstock.telemetry.logs import configure_logging, get_logger

__all__ = ["configure_logging", "get_logger"]
