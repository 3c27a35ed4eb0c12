"""What screening costs: `python tests/bench/bench_guardrails.py`.

One process, one core; times are the thread's CPU time, so that what else runs on the machine does not count. Prints
each scanner's latency on 1,000 characters, the shipped policies' stages, messages per second of the pure steps,
resident memory, and Presidio's own engine without an NLP model on the same texts in the same run.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data import topics

import psutil
from penstock.config.files import load_files
from penstock.config.kinds import Policy
from penstock.contracts.records import AdmittedRequest, Completion, Context, Message

from services.guardrails import core
from services.guardrails.findings import Reference, Rule
from services.guardrails.policy import compile_policy
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits, Segment, screen

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PERSONAL = (
    "My name is Ann, mail ann.lee{n}@example.org, phone +49 30 9018{n:04d}, card 4111 1111 1111 1111, "
    "IBAN DE89 3704 0044 0532 0130 00, "
    "from 192.168.7.{n}. "
)
LIMITS = Limits()


def texts(kind: str, count: int, size: int, seed: int = 7) -> list[str]:
    """`count` texts of `size` characters: prose, or prose with personal data strewn in."""
    rng = random.Random(seed)
    corpus = " ".join(" ".join(topics.topics[name].split()) for name in sorted(topics.topics))
    drawn = []
    for number in range(count):
        start = rng.randrange(len(corpus) - size)
        text = corpus[start : start + size]
        if kind == "personal":
            cut = rng.randrange(size)
            text = (text[:cut] + PERSONAL.format(n=number % 200) + text[cut:])[:size]
        drawn.append(text)
    return drawn


def percentiles(call: Callable[[str], object], samples: Sequence[str]) -> tuple[float, float]:
    """(p50, p95) in milliseconds."""
    for text in samples[:20]:
        call(text)
    times = []
    for text in samples:
        started = time.thread_time()
        call(text)
        times.append((time.thread_time() - started) * 1e3)
    cuts = statistics.quantiles(times, n=20)
    return statistics.median(times), cuts[18]


def rate(call: Callable[[int], object], seconds: float) -> float:
    """Calls per second of CPU time."""
    done, started = 0, time.thread_time()
    while time.thread_time() - started < seconds:
        call(done)
        done += 1
    return done / (time.thread_time() - started)


def presidio_engine() -> Callable[[str], object]:
    """Presidio's analyzer with its default pattern recognizers, but for e-mail (it reads the network), and no NLP model."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class Nothing(NlpEngine):
        def load(self) -> None: ...
        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            return NlpArtifacts([], [], [], [], self, language)  # type: ignore[arg-type]

        def process_batch(self, texts, language, **options):  # type: ignore[no-untyped-def]
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            return False

        def is_punct(self, word: str, language: str) -> bool:
            return False

        def get_supported_entities(self) -> list[str]:
            return []

        def get_supported_languages(self) -> list[str]:
            return ["en"]

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.recognizers = [
        r for r in registry.recognizers if type(r).__name__ not in ("SpacyRecognizer", "EmailRecognizer")
    ]
    engine = AnalyzerEngine(registry=registry, nlp_engine=Nothing(), supported_languages=["en"])
    return lambda text: engine.analyze(text, language="en")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="texts of each kind")
    parser.add_argument("--size", type=int, default=1000, help="characters of a text")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a throughput run")
    args = parser.parse_args()
    memory = psutil.Process().memory_info
    before = memory().rss
    started = time.perf_counter()
    scanners = shipped_scanners()
    gc.collect()
    print(
        f"loaded in {time.perf_counter() - started:.2f} s, +{(memory().rss - before) / 2**20:.0f} MB;"
        f" {memory().rss / 2**20:.0f} MB resident"
    )

    entries = {entry.name: entry for entry in load_policies()}
    policies = {name: compile_policy(policy, scanners) for name, policy in entries.items()}
    samples = {kind: texts(kind, args.count, args.size) for kind in ("prose", "personal")}

    print(f"\n{'scanner':28}" + "".join(f"{kind + ' p50':>14}{'p95 ms':>10}" for kind in samples))
    for stage, by_name in scanners.items():
        for name, scanner in by_name.items():
            if (
                stage == "input"
                or (stage == "output" and name == "system_prompt_leak")
                or (stage == "documents" and name == "injection")
            ):
                rule = Rule("flag", scanner.default_threshold, True, words=("falcon",), patterns=("[0-9]{3}-[a-z]+",))
                reference = Reference(system_prompt=samples["prose"][0])
                row = [
                    percentiles(lambda text, s=scanner, r=rule, f=reference: s.scan(text, r, f), texts_)
                    for texts_ in samples.values()
                ]
                print(f"{stage + ' ' + name:28}" + "".join(f"{p50:14.3f}{p95:10.3f}" for p50, p95 in row))
    for name, compiled in policies.items():
        for stage in ("input", "output", "documents"):
            rules = compiled.stages[stage]
            row = [
                percentiles(
                    lambda text, r=rules: screen([Segment(text)], r, Reference(), LIMITS, time.perf_counter), texts_
                )
                for texts_ in samples.values()
            ]
            print(f"{'policy ' + name + ' ' + stage:28}" + "".join(f"{p50:14.3f}{p95:10.3f}" for p50, p95 in row))
    engine = presidio_engine()
    row = [percentiles(engine, texts_[: args.count // 4]) for texts_ in samples.values()]
    print(f"{'presidio engine, patterns':28}" + "".join(f"{p50:14.3f}{p95:10.3f}" for p50, p95 in row))

    print(f"\n{'step, messages/s on one core':40}{'120 chars':>12}{'1000 chars':>12}")
    for name, compiled in policies.items():
        for stage, step in (("input", request_step), ("output", release_step)):
            rates = [rate(step(compiled, texts("prose", 200, size)), args.seconds) for size in (120, 1000)]
            print(f"{name + ' ' + stage:40}" + "".join(f"{value:12.0f}" for value in rates))
    print(f"\n{memory().rss / 2**20:.0f} MB resident at the end")


def load_policies() -> list[Policy]:
    """The policies the project ships."""
    return [entry for entry in load_files(ROOT / "infra/config") if isinstance(entry, Policy)]


def request_step(compiled: core.CompiledPolicy, samples: Sequence[str]) -> Callable[[int], object]:
    """The whole pure step of a request: segments, screening, events."""

    def step(number: int) -> object:
        request = AdmittedRequest(
            event_id=f"e{number}", request_id=f"r{number}", tenant_id="t", occurred_at=NOW, causation_id="",
            context=Context(requested_at=NOW), messages=[Message(role="user", content=samples[number % len(samples)])],
        )  # fmt: skip
        screening = screen(
            core.request_segments(request), compiled.stages["input"], Reference(), LIMITS, time.perf_counter
        )
        return core.screened_request(request, core.Judged(screening, compiled, b"k", NOW))

    return step


def release_step(compiled: core.CompiledPolicy, samples: Sequence[str]) -> Callable[[int], object]:
    """The whole pure step of a completion."""

    def step(number: int) -> object:
        completion = Completion(
            event_id=f"e{number}", request_id=f"r{number}", tenant_id="t", occurred_at=NOW, causation_id="",
            context=Context(requested_at=NOW), messages=[Message(role="user", content="what is it?")], model="m",
            backend="b", content=samples[number % len(samples)],
        )  # fmt: skip
        reference = core.output_reference(completion)
        screening = screen(
            core.output_segments(completion), compiled.stages["output"], reference, LIMITS, time.perf_counter
        )
        return core.released(completion, core.Judged(screening, compiled, b"k", NOW))

    return step


if __name__ == "__main__":
    main()
