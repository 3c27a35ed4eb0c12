"""Personal data: what the pii scanner finds and how sure it is. README.md lists every kind with its source."""

from services.guardrails.scanners.pii.scanner import PiiScanner

__all__ = ["PiiScanner"]
