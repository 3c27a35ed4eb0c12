"""Quality and CPU time of the extractive model on ../shared/data/retrieval: python -m tests.bench.bench_extractive

Every question is asked in seven phrasings and answered from what the service's own retrieval finds. Printed for each: the
share of answers that hold what was expected where the passage was found, and the share of "I found nothing" where only
passages without the answer are attached. The shipped weights were learned from these questions; how such weights do on
articles that they were not learned from is printed by `python -m tests.bench.fit_extractive`.
"""

from __future__ import annotations

import asyncio
import time

from services.inference.extractive import NOTHING_FOUND, answer
from tests.bench.bench_retrieval import DATA
from tests.bench.extractive_questions import cases, table

_MOST_TOKENS = 256
"""As the default route has it."""


def main() -> None:
    """Print the figures."""
    if not (DATA / "retrieval").is_dir():
        print(f"the extractive model is not measured: {DATA}, the development data, is not there")
        return
    found = asyncio.run(cases(DATA))
    started = time.process_time()
    answers = [answer(case.question, case.passages, _MOST_TOKENS) for case in found]
    taken = time.process_time() - started
    outcomes = [
        (case, given.content != NOTHING_FOUND, given.content) for case, given in zip(found, answers, strict=True)
    ]
    print("\n".join(table(outcomes)))
    print(f"{len(found)} answers, {taken / len(found) * 1e3:.2f} ms of CPU time each")


if __name__ == "__main__":
    main()
