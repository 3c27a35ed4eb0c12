"""The agent ``feedback``: events a second of processor time of its logic, and its state over a million messages.

    python -m tests.bench.bench_feedback [--messages 1000000]

One partition's logic in this process, states as the bytes that the shell writes to the table: results of traffic, two
evaluation events of each, and feedback on a tenth of them, minutes to days late. No Kafka: the shell's share is what
bench_money measures.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from penstock.bus import Message
from penstock.contracts.records import Record

from services.evaluation.feedback.core import FeedbackRules, feedback_logic
from services.evaluation.feedback.memory import Limits
from tests.unit.feedback_partition import NOW, TOPICS, Lengths, evaluation, feedback, passage, result

_WORDS = tuple(
    "the reader returned by csv is an iterator each row read from file list of strings no automatic data type conversion "
    "performed unless format option specified large memory without loading whole how do when what garbage collector runs "
    "cycle reference count generation threshold object module function argument decorator cache clear size bounded".split()
)
_EVERY = 100_000


def traffic(messages: int) -> Iterator[tuple[datetime, Record]]:
    """Yield records with the times at which the log took them in: ten results a minute."""
    dice = random.Random(1)
    late: list[tuple[datetime, int, Record]] = []
    number = sent = 0
    while sent < messages:
        at = NOW + timedelta(seconds=6 * number)
        toxicity, grounded = dice.random() ** 4, dice.random() ** 0.5
        text = " ".join(dice.choices(_WORDS, k=90))
        cited = passage(" ".join(dice.choices(_WORDS, k=120)))
        events: list[Record] = [
            evaluation(
                number, [("answer.groundedness", grounded, "grounded" if grounded >= 0.5 else "ungrounded")], part="q"
            ),
            result(number, prompt=text[:120], content=text, citations=[cited]),
            evaluation(number, [("answer.toxicity", toxicity, "toxic" if toxicity >= 0.5 else "clean")], part="t"),
        ]
        if dice.random() < 0.1:
            said = feedback(number, f"user-{number % 500}", rating=dice.choice([0.0, 1.0]))
            heapq.heappush(late, (at + timedelta(minutes=dice.choice([1, 60, 4_000])), number, said))
        while late and late[0][0] <= at:
            events.append(heapq.heappop(late)[2])
        for record in events:
            yield at, record
            sent += 1
        number += 1


def main() -> None:
    """Measure, and print a line every so many messages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=Limits().slots)
    arguments = parser.parse_args()
    logic = feedback_logic(
        FeedbackRules(limits=Limits(slots=arguments.slots)), {"toxicity": Lengths()}, lambda name: None
    )  # fmt: skip
    states: dict[str, bytes] = {}
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(logic.state_type)

    def lookup(key: str) -> Any:
        found = states.get(key)
        return None if found is None else decoder.decode(found)

    offsets: dict[str, int] = {}
    outputs: dict[str, int] = {}
    spent = 0.0
    print(f"{'messages':>10} {'events/s':>9} {'states':>8} {'MB':>7} {'bytes/state':>11}  outputs")
    for count, (at, record) in enumerate(traffic(arguments.messages), start=1):
        topic = TOPICS[type(record)]
        offset = offsets[topic] = offsets.get(topic, -1) + 1
        message = Message(topic, 0, offset, int(at.timestamp() * 1000), b"key", b"value")
        began = time.process_time()
        for key, event in list(logic.route(record, message, lookup)):
            assert key is not None
            state, emits = logic.step(lookup(key), event, at)
            if state is None:
                states.pop(key, None)
            else:
                states[key] = encoder.encode(state)
            for emit in emits:
                outputs[emit.topic] = outputs.get(emit.topic, 0) + 1
        spent += time.process_time() - began
        if count % _EVERY == 0 or count == arguments.messages:
            size = sum(len(key) + len(value) for key, value in states.items())
            told = ", ".join(f"{name} {number}" for name, number in sorted(outputs.items()))
            figures = (
                f"{count:>10,} {count / spent:>9,.0f} {len(states):>8,} {size / 1e6:>7.1f} {size / len(states):>11,.0f}"
            )
            print(f"{figures}  {told}", flush=True)


if __name__ == "__main__":
    main()
