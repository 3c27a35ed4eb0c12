"""What evaluating costs: `python -m tests.bench.bench_evaluators`.

One process, one thread; rates are by CPU time of the process, so that what else runs on the machine does not count. Prints
messages a second of every evaluator that is shipped, on exchanges of a question of ten words, an answer of four sentences,
three passages and a reference. Then the memory of a process that runs all of them, each over a share, as a million messages
(--messages) pass: evaluators keep no state but bounded memories, so it must not grow. State in tables is measured by the
benchmarks of what keeps it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pydoc_data import topics

import msgspec
import psutil
from penstock.contracts.records import Passage
from penstock.embedding.minilm import MiniLmEmbedder

from services.evaluation.evaluators.protocol import Evaluator, Exchange
from services.evaluation.evaluators.registry import shipped
from services.evaluation.evaluators.runner import evaluate, takes
from services.evaluation.evaluators.text import sentences

BATCH = 64
SHARES = {"dear": 0.0005, "fair": 0.005}
"""Of the messages, for the run over memory: what those that embed score, and what the others do."""
DEAR_BELOW = 300.0
"""Messages a second below which an evaluator is dear."""


def exchanges(seed: int) -> Iterator[Exchange]:
    """Yield exchanges without end, no two alike, made of the sentences of Python's own language reference."""
    rng = random.Random(seed)
    known = [
        " ".join(sentence.split())
        for name in sorted(topics.topics)
        for sentence in sentences(topics.topics[name])
        if 40 <= len(sentence) <= 200 and sentence[0].isupper()
    ]
    number = 0
    while True:
        texts = rng.sample(known, 12)
        passages = tuple(
            Passage(passage_id=str(at), document_id=str(at), text=" ".join(texts[3 * at : 3 * at + 3]), score=1.0)
            for at in range(3)
        )
        number += 1
        yield Exchange(
            request_id=f"request-{number}",
            question=f"What does item {number} say about {' '.join(texts[0].split()[:6])}?",
            answer=" ".join((texts[0], texts[4], f"Item {number} says so.", texts[10])),
            passages=passages,
            reference=f"{texts[0]} {texts[5]}",
            response_format='{"type": "object"}',
        )


def rate(one: Evaluator, source: Iterator[Exchange], seconds: float) -> tuple[float, int]:
    """Return messages a second of CPU time, and how many were scored in about ``seconds`` of it."""
    evaluate([one], list(islice(source, 4)))  # loads models
    count, spent = 0, 0.0
    while spent < seconds:
        batch = list(islice(source, BATCH if count else 8))
        started = time.process_time()
        evaluate([one], batch)
        spent += time.process_time() - started
        count += len(batch)
    return count / spent, count


def steady(evaluators: Sequence[Evaluator], shares: Mapping[str, float], messages: int) -> None:
    """Run all evaluators over ``messages``, each over its share of them, and print the memory of the process on the way."""

    def sampled(name: str, exchange: Exchange) -> bool:
        return takes(exchange.request_id, name, shares[name])

    process, source = psutil.Process(), exchanges(2)
    marks = [messages // 10, messages // 2, messages]
    resident: list[float] = []
    batch: list[Exchange] = []
    scores = 0
    for number in range(1, messages + 1):
        request_id = f"request-{number}"
        if any(takes(request_id, name, share) for name, share in shares.items()):
            batch.append(msgspec.structs.replace(next(source), request_id=request_id))
        if len(batch) == BATCH or number in marks:
            scores += sum(map(len, evaluate(evaluators, batch, sampled=sampled)))
            batch = []
        if number in marks:
            resident.append(process.memory_info().rss / 2**20)
            print(f"{number:>12,} messages  {scores:>9,} scores  {resident[-1]:>7.0f} MiB resident", flush=True)
    print(f"{'':>12} from the first mark to the last {resident[-1] - resident[0]:+.1f} MiB")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time an evaluator (default: 3)")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of the run over memory (default: 1,000,000)")
    arguments = parser.parse_args()
    embedder = MiniLmEmbedder()
    evaluators = shipped(embedder)
    rates: dict[str, float] = {}
    print(f"{'evaluator':<22}{'of the':<9}{'messages/s':>12}{'ms each':>10}{'scored':>9}")
    for one in evaluators:
        found, count = rate(one, exchanges(1), arguments.seconds)
        rates[one.name] = min(found, rates.get(one.name, found))
        print(f"{one.name:<22}{one.subject:<9}{found:>12,.0f}{1000 / found:>10.2f}{count:>9,}", flush=True)
    shares = {name: SHARES["dear" if found < DEAR_BELOW else "fair"] for name, found in rates.items()}
    print(
        f"\nall together, those that embed over {SHARES['dear']:.2%}, the others over {SHARES['fair']:.1%} of messages"
    )
    steady(evaluators, shares, arguments.messages)


if __name__ == "__main__":
    main()
