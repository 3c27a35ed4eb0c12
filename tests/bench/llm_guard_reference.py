"""llm-guard's scanners that need no model from a hub, timed on the same texts: run in an environment of its own.

    python tests/bench/llm_guard_reference.py < texts.json

reads a JSON list of texts and prints {scanner: [p50, p95]} in milliseconds of CPU time of the process with all its
threads. What it has beyond these (prompt injection, toxicity, gibberish, language, anonymize, token limit) loads a model
or a vocabulary by name from a hub and is not measured.
"""

from __future__ import annotations

import importlib.machinery
import json
import logging
import statistics
import sys
import time
import types


def _without_torch() -> None:
    """llm-guard asks torch for its device when it is imported, whatever is used of it. The scanners measured here never
    call it, so an answer of "cpu" stands in for the 5 GB.
    """
    absent = types.SimpleNamespace(is_available=lambda: False)
    torch = types.ModuleType("torch")
    torch.__spec__ = importlib.machinery.ModuleSpec("torch", None)
    torch.__dict__.update(
        cuda=absent, backends=types.SimpleNamespace(mps=absent), device=str, no_grad=lambda: lambda function: function
    )
    sys.modules["torch"] = torch


def main() -> None:
    logging.disable(logging.CRITICAL)
    import spacy  # noqa: F401  (before the stand-in: it looks for the real torch)
    import structlog

    _without_torch()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    from llm_guard.input_scanners import BanSubstrings, InvisibleText, Regex, Secrets

    texts = json.load(sys.stdin)
    figures = {}
    for scanner in (Secrets(), InvisibleText(), BanSubstrings(["falcon"]), Regex(["[0-9]{3}-[a-z]+"])):
        for text in texts[:5]:
            scanner.scan(text)
        times = []
        for text in texts:
            started = time.process_time()
            scanner.scan(text)
            times.append((time.process_time() - started) * 1e3)
        figures[type(scanner).__name__] = [statistics.median(times), statistics.quantiles(times, n=20)[18]]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
