"""What releasing a streamed answer costs: `python -m tests.bench.bench_streaming`.

One process, one core; times are the thread's CPU time. Prints, for every policy shipped, answers of 2,000 characters cut
into pieces of 24 characters (about six tokens) and of 64: pieces and characters a second of the pure step, the slowest
piece in a hundred, how many characters are held back, and how many come before the first are released.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data import topics

from penstock.config.files import load_entries
from penstock.config.policies import Policy
from penstock.contracts.records import CompletionChunk, Context, GroundedRequest, Message, ResultChunk

from services.guardrails.policy import compile_policy
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.guardrails.streaming import PieceJudge, StreamState, step
from services.inference.core import Streamed, piece

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
CHARS = 2_000
ANSWERS = 40


def answers() -> list[str]:
    """Prose of Python's own manual, with something to mask in every third."""
    text = " ".join(" ".join(topics.topics.values()).split())
    found = []
    for number in range(ANSWERS):
        part = text[number * CHARS :][:CHARS]
        found.append(part[:900] + " Write to ann.lee@example.org. " + part[931:] if number % 3 == 0 else part)
    return found


def chunks(number: int, text: str, size: int) -> Iterator[CompletionChunk]:
    """The answer as inference streams it."""
    request = GroundedRequest(
        event_id=f"request-{number}", request_id=f"r-{number}", tenant_id="t", occurred_at=NOW, causation_id="",
        context=Context(requested_at=NOW), stream=True,
        messages=[Message(role="system", content="You answer from the manual."), Message(role="user", content="How?")],
    )  # fmt: skip
    streamed = Streamed()
    for start in range(0, len(text), size):
        finish = "stop" if start + size >= len(text) else None
        streamed, emit = piece(request, streamed, text[start : start + size], finish, NOW)
        assert isinstance(emit.record, CompletionChunk)
        yield emit.record


def measure(judge: PieceJudge, size: int) -> str:
    """One line of figures."""
    times: list[float] = []
    held: list[int] = []
    first: list[int] = []
    released = 0
    for number, text in enumerate(answers()):
        state: StreamState | None = None
        seen = False
        for chunk in list(chunks(number, text, size)):
            started = time.thread_time()
            state, emits = step(state, chunk, judge, NOW)
            times.append(time.thread_time() - started)
            pieces = [emit.record for emit in emits if isinstance(emit.record, ResultChunk)]
            released += len(pieces)
            if not state.ended:
                held.append(len(state.held))
            if pieces and not seen:
                seen = True
                first.append(chunk.offset + len(chunk.content))
    total = sum(times)
    slowest = statistics.quantiles(times, n=100)[98]
    return (
        f"{size:4d} {len(times) / total:9,.0f} {ANSWERS * CHARS / total:11,.0f} {slowest * 1e3:8.2f} "
        f"{released / len(times):9.2f} {statistics.median(held):7.0f} {max(held):7d} {statistics.median(first):7.0f}"
    )


def main() -> None:
    """Print the table."""
    scanners = shipped_scanners()
    print(f"{'policy':16s} size  pieces/s     chars/s   p99 ms  rel/piece  held50  heldmax  first")
    for file in sorted((ROOT / "infra" / "config" / "policies").glob("*.yaml")):
        (located,) = load_entries("policies", file)
        entry = located.entry
        assert isinstance(entry, Policy)
        try:
            judge = PieceJudge(compile_policy(entry, scanners), b"key", Limits(), time.monotonic)
        except ValueError as error:
            print(f"{entry.name:16s} {error}")
            continue
        measure(judge, 64)  # Models are loaded and expressions compiled.
        for size in (24, 64):
            print(f"{entry.name:16s} {measure(judge, size)}")


if __name__ == "__main__":
    main()
