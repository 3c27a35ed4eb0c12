"""Arrival times and lengths of real traffic: the Azure LLM inference trace, or lengths drawn like it where it is not there.

The trace (AzurePublicDataset, CC-BY-4.0) is training data beside the project and no part of it.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

__all__ = ["Arrival", "drawn", "read_trace", "scaled"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: seconds since the first, tokens of its prompt, tokens of its answer."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path, seconds: float) -> list[Arrival]:
    """Return the requests of the first ``seconds`` of a trace file."""
    found: list[Arrival] = []
    begin: datetime | None = None
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            # Seven decimals; Python's clock has six.
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            begin = begin or at
            since = (at - begin).total_seconds()
            if since > seconds:
                break
            found.append(Arrival(since, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    return found


def drawn(count: int, rate: float, seed: int) -> list[Arrival]:
    """Return requests of a Poisson process, their lengths log-normal about the medians of the conversation trace (some
    1,000 tokens in, 130 out)."""
    dice = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        found.append(
            Arrival(
                at,
                int(dice.lognormvariate(math.log(1000), 0.8)),
                max(1, int(dice.lognormvariate(math.log(130), 0.8))),
            )
        )
        at += dice.expovariate(rate)
    return found


def scaled(arrivals: Sequence[Arrival], *, speed: float, most_prompt: int, most_output: int) -> list[Arrival]:
    """Return the arrivals ``speed`` times as fast, no longer than a small model bears."""
    return [
        Arrival(
            each.at_s / speed,
            max(1, min(each.prompt_tokens, most_prompt)),
            max(1, min(each.output_tokens, most_output)),
        )
        for each in arrivals
    ]
