"""Guardrails: every prompt, document and answer judged before it goes on."""
