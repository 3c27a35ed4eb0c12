"""Experiments under constant looks: wrong decisions, requests until a right one, lost users, observations a second.

    python -m tests.bench.bench_experiments [--runs 40] [--requests 20000] [--looks 200]

Streams come from users of unequal activity with levels of their own, so requests of one user depend on each other. Latencies
and costs are log-normal, one request in a hundred ten times as large. Each test looks at the same streams, ``--looks``
times: the experiment's own; Welch's t-test on means of users, and on requests as if they were independent, both at the level
of a single look; and the same once, at the end, as it is meant.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from penstock.bus import Message
from penstock.config.kinds import Arm, Experiment, Metric
from penstock.contracts.records import Observation

from services.evaluation.experiments.core import experiments
from services.evaluation.experiments.sequential import ratio_evidence
from tests.bench.experiment_streams import METRICS, Truth, first_rejections, stream

ALPHA = 0.05
TESTS = ("sequential", "t_users", "t_requests", "t_once")
SHAPES = {
    "2,000 users": {"users": 2_000},
    "200 users": {"users": 200},
    "40 users, alike": {"users": 40, "activity": 0.0},
    "20,000 users, few make most": {"users": 20_000, "activity": 0.9},
}


def false_decisions(runs: int, requests: int, looks: int) -> None:
    """Print how often each test finds a difference between arms that are alike."""
    print(
        f"Arms alike: share of {runs} streams of {requests:,} requests in which a test finds a difference, at {ALPHA:.0%}\n"
    )
    print("| users | metric | sequential | t on users, looking | t on requests, looking | t on users, once |")
    print("|---|---|---|---|---|---|")
    for shape, parameters in SHAPES.items():
        for name, metric in METRICS.items():
            wrong: Counter[str] = Counter()
            for seed in range(runs):
                data = stream(Truth(name, **parameters), requests, np.random.default_rng(seed))  # type: ignore[arg-type]
                found = first_rejections(data, metric, ALPHA, looks)
                wrong.update(test for test, at in found.items() if at is not None)
            shares = " | ".join(f"{wrong[test] / runs:.1%}" for test in TESTS)
            print(f"| {shape} | {name} | {shares} |", flush=True)


def right_decisions(runs: int, requests: int, looks: int) -> None:
    """Print after how many requests a true difference is found, beside what a fixed sample needs for 80 %."""
    print(f"\nA true difference, 20,000 users, {requests:,} requests at the most\n")
    print("| metric | difference | found | requests until then, mean | fixed sample for a power of 80 % |")
    print("|---|---|---|---|---|")
    for name, effect in (
        ("answer.groundedness", 0.03),
        ("answer.groundedness", 0.02),
        ("latency_ms", 0.25),
        ("cost", -0.3),
    ):
        truth, found = Truth(name, effect=effect, users=20_000), list[int | None]()
        fixed = [(at, 0) for at in range(requests // 50, requests + 1, requests // 50)]
        once = dict.fromkeys((at for at, _ in fixed), 0)
        for seed in range(runs):
            data = stream(truth, requests, np.random.default_rng(seed))
            found.append(first_rejections(data, METRICS[name], ALPHA, looks)["sequential"])
            for at in once:
                part = type(data)(data.user[:at], data.arm[:at], data.value[:at])
                once[at] += first_rejections(part, METRICS[name], ALPHA, 1)["t_once"] is not None
        enough = next((f"{at:,}" for at, hits in once.items() if hits >= 0.8 * runs), f"over {requests:,}")
        stopped = float(np.mean([at or requests for at in found]))
        share = sum(at is not None for at in found) / runs
        print(f"| {name} | {effect:+g} | {share:.0%} | {stopped:,.0f} | {enough} |", flush=True)


def lost_units(runs: int) -> None:
    """Print how soon it is seen that an arm loses units, and how often without a loss."""
    level = ALPHA * 0.02
    print(f"\nThe ratio of two equal arms, at {level:g}, looked at with every unit of 60,000\n")
    print("| units that the second arm loses | streams | told | units until then, median |")
    print("|---|---|---|---|")
    for loss in (0.0, 0.02, 0.05, 0.1, 0.3):
        delays = []
        for seed in range(runs):
            share = (1 - loss) / (2 - loss)
            second = np.cumsum(np.random.default_rng(seed).random(60_000) < share)
            looks = range(20, 60_001, 20)
            told = (n for n in looks if ratio_evidence([n - int(second[n - 1]), int(second[n - 1])], [1, 1]) <= level)
            if (first := next(told, None)) is not None:
                delays.append(first)
        middle = f"{np.median(delays):,.0f}" if delays else "-"
        print(f"| {loss:.0%} | {runs} | {len(delays)} | {middle} |", flush=True)


def speed(observations: int) -> None:
    """Print what one observation costs the agent, and how large its state is."""
    experiment = Experiment(
        name="models", team="support", arms=(Arm(name="control"), Arm(name="large", route="large")),
        metrics=(
            Metric(name="answer.groundedness"), Metric(name="completed"), Metric(name="latency_ms", upper_bound=30_000),
            Metric(name="cost", upper_bound=0.05),
        ),
    )  # fmt: skip
    logic, state = experiments(lambda name: experiment), None
    feed = list(_observations(experiment, observations))
    began = time.perf_counter()
    for message, observation in feed:
        for _, event in logic.route(observation, message, lambda key: None):
            state, _ = logic.step(state, event, observation.occurred_at)
    spent = time.perf_counter() - began
    packed = len(msgspec.msgpack.encode(state))
    print(
        f"\nOne process, two arms and four metrics: {observations / spent:,.0f} observations/s, state {packed:,} bytes"
    )


def _observations(experiment: Experiment, count: int) -> Iterator[tuple[Message, Observation]]:
    rng, at = np.random.default_rng(1), datetime(2026, 1, 5, tzinfo=UTC)
    for number in range(count):
        unit = experiment.unit_of(f"u{rng.integers(5_000)}", None, "")
        arm = experiment.arm_of(unit)
        assert arm is not None
        values, source = [
            ({"completed": 1.0, "latency_ms": float(rng.lognormal(6.5, 0.8))}, "llm-results"),
            ({"answer.groundedness": float(rng.beta(6, 2))}, "evaluations"),
            ({"cost": float(rng.gamma(2.0) * 1e-4)}, "costs"),
        ][number % 3]
        yield (
            Message("experiment-observations", 0, number, 0, b"k", b""),
            Observation(
                event_id=f"o{number}", request_id=f"r{number}", tenant_id=experiment.team, causation_id="",
                occurred_at=at + timedelta(milliseconds=number), experiment=experiment.name, version=experiment.design,
                arm=arm.name, unit=unit, source=source, values=values,
            ),
        )  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40, help="streams of each kind (default: 40)")
    parser.add_argument("--requests", type=int, default=20_000, help="of each stream (default: 20000)")
    parser.add_argument("--looks", type=int, default=200, help="at each stream (default: 200)")
    parser.add_argument("--observations", type=int, default=30_000, help="for the speed (default: 30000)")
    given = parser.parse_args()
    false_decisions(given.runs, given.requests, given.looks)
    right_decisions(max(10, given.runs // 4), given.requests, given.looks)
    lost_units(max(10, given.runs // 4))
    speed(given.observations)


if __name__ == "__main__":
    main()
