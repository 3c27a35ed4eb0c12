"""What screening costs: `python -m tests.bench.bench_guardrails`.

One process, one core; times are CPU time of the process with all its threads, so that what else runs on the machine
does not count. Prints, on texts of 1,000 characters: each scanner of the default policy, all of them together with and
without the spaCy model, beside Presidio's analyzer and (--with-llm-guard) llm-guard's scanners in the same run; then
messages per second of the pure steps of a request and of an answer, and memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pydoc_data import topics

import psutil
from penstock.config.files import load_entries
from penstock.config.policies import Policy
from penstock.contracts.records import AdmittedRequest, Completion, Context, Message

from services.guardrails import core, releasing
from services.guardrails.findings import AnyScanner, Reference, Rule
from services.guardrails.policy import CompiledPolicy, compile_policy
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits, Segment, screen
from services.guardrails.verdicts import Judged
from tests.bench import presidio_reference
from tests.bench.environments import ROOT, environment

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGETS_MS = {"default": 12.0, "default-ner": 45.0}
"""p95 of all input scanners together on 1,000 characters."""
PERSONAL = (
    "My name is Ann, mail ann.lee{n}@example.org, phone +49 30 9018{n:04d}, card 4111 1111 1111 1111, "
    "IBAN DE89 3704 0044 0532 0130 00, "
    "from 192.168.7.{n}. "
)
LIMITS = Limits()
COUNTERPARTS = {
    "Secrets": "secrets", "InvisibleText": "invisible_text", "BanSubstrings": "banned_words", "Regex": "regex",
}  # fmt: skip

Figures = tuple[float, float]
"""p50 and p95, milliseconds."""


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


def percentiles(call: Callable[[str], object], samples: Sequence[str]) -> Figures:
    """p50 and p95 of a call a text, the first 20 once more ahead."""
    for text in samples[:20]:
        call(text)
    times = []
    for text in samples:
        started = time.process_time()
        call(text)
        times.append((time.process_time() - started) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=20)[18]


def rate(call: Callable[[int], object], seconds: float) -> float:
    """Calls per second of CPU time."""
    for number in range(20):
        call(number)
    done, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        call(done)
        done += 1
    return done / (time.process_time() - started)


def policies(scanners: Mapping[str, Mapping[str, AnyScanner]]) -> dict[str, CompiledPolicy]:
    """The policies the project ships, but for those that ask for what is not installed here."""
    found = {}
    for file in sorted((ROOT / "infra/config/policies").glob("*.yaml")):
        for located in load_entries("policies", file):
            assert isinstance(located.entry, Policy)
            try:
                found[located.entry.name] = compile_policy(located.entry, scanners)
            except ValueError as error:
                print(f"left out: {error}")
    return found


def screened(rules: Sequence[tuple[AnyScanner, Rule]]) -> Callable[[str], object]:
    """All of ``rules`` together on a user's message."""
    return lambda text: screen([Segment(text)], rules, Reference(), LIMITS, time.perf_counter)


def row(name: str, figures: Sequence[Figures], note: str = "") -> None:
    """Print one line of a table."""
    print(f"{name:38}" + "".join(f"{p50:14.3f}{p95:10.3f}" for p50, p95 in figures) + (f"  {note}" if note else ""))


def header(title: str, kinds: Sequence[str]) -> None:
    """Print the first line of a table."""
    print(f"\n{title:38}" + "".join(f"{kind + ' p50':>14}{'p95 ms':>10}" for kind in kinds))


def alone(scanner: AnyScanner, samples: Mapping[str, Sequence[str]]) -> list[Figures]:
    """One scanner under a rule that finds nothing of its own words and expressions."""
    rule = Rule(
        "flag", scanner.default_threshold, True, name=scanner.name, words=("falcon",), patterns=("[0-9]{3}-[a-z]+",)
    )
    return [percentiles(screened([(scanner, rule)]), texts_) for texts_ in samples.values()]


def bench_latency(
    compiled: Mapping[str, CompiledPolicy], samples: Mapping[str, Sequence[str]]
) -> dict[str, list[Figures]]:
    """Print each default scanner and each policy's stages; return the figures of the input stages by policy."""
    header("scanner of the default policy, alone", list(samples))
    for scanner, rule in compiled["default"].stages["input"]:
        row(scanner.name, [percentiles(screened([(scanner, rule)]), texts_) for texts_ in samples.values()])
    header("all scanners of a stage", list(samples))
    inputs = {}
    for name, policy in compiled.items():
        for stage in ("input", "output", "documents"):
            figures = [percentiles(screened(policy.stages[stage]), texts_) for texts_ in samples.values()]
            note = ""
            if stage == "input":
                inputs[name] = figures
                if target := TARGETS_MS.get(name):
                    worst = max(p95 for _, p95 in figures)
                    note = f"target p95 {target:g} ms: {'kept' if worst <= target else 'MISSED'}"
            row(f"{name} {stage}", figures, note)
    return inputs


def bench_presidio(compiled: Mapping[str, CompiledPolicy], samples: Mapping[str, Sequence[str]]) -> None:
    """Print Presidio's analyzer beside the pii scanner on the same texts, without and with the same model."""
    header("personal data", list(samples))
    fewer = {kind: texts_[: max(20, len(texts_) // 4)] for kind, texts_ in samples.items()}
    for policy in ("default", "default-ner"):
        if policy not in compiled:
            continue
        scanner, rule = next(pair for pair in compiled[policy].stages["input"] if pair[0].name == "pii")
        ours = [percentiles(screened([(scanner, rule)]), texts_) for texts_ in fewer.values()]
        analyze = presidio_reference.with_model(rule.ner) if rule.ner else presidio_reference.patterns_only()
        theirs = [percentiles(analyze, texts_) for texts_ in fewer.values()]
        model = f", {rule.ner}" if rule.ner else ""
        row(f"pii scanner{model}", ours)
        ratios = ", ".join(f"{b[0] / a[0]:.1f}" for a, b in zip(ours, theirs, strict=True))
        row("presidio analyzer" + (", same model" if rule.ner else ", patterns"), theirs, f"times ours, p50: {ratios}")


def bench_llm_guard(scanners: Mapping[str, AnyScanner], samples: Mapping[str, Sequence[str]]) -> None:
    """Print llm-guard's scanners beside ours on the same texts, or why they cannot be run."""
    header("llm-guard, without models", list(samples))
    try:
        python = environment("llm-guard") / "python"
        found = {
            kind: json.loads(
                subprocess.run(
                    [python, ROOT / "tests/bench/llm_guard_reference.py"],
                    input=json.dumps(texts_[: max(20, len(texts_) // 4)]), capture_output=True, text=True, check=True,
                ).stdout.splitlines()[-1]
            )
            for kind, texts_ in samples.items()
        }  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip().splitlines()[-1] if isinstance(error, subprocess.CalledProcessError) else error
        print(f"skipped, llm-guard cannot be run here: {detail}")
        return
    for theirs, name in COUNTERPARTS.items():
        ours = alone(scanners[name], samples)
        figures = [(p50, p95) for p50, p95 in (by_scanner[theirs] for by_scanner in found.values())]
        row(f"ours {name}", ours)
        ratios = ", ".join(f"{b[0] / a[0]:.1f}" for a, b in zip(ours, figures, strict=True))
        row(f"llm-guard {theirs}", figures, f"times ours, p50: {ratios}")


def bench_throughput(compiled: Mapping[str, CompiledPolicy], seconds: float) -> None:
    """Print messages per second of the steps, everything but the log."""
    sizes = (120, 1000)
    print(f"\n{'step, messages/s on one core':38}" + "".join(f"{f'{size} chars':>12}" for size in sizes))
    for name, policy in compiled.items():
        for stage, step in (("input", request_step), ("output", release_step)):
            rates = [rate(step(policy, texts("prose", 200, size)), seconds) for size in sizes]
            print(f"{name + ' ' + stage:38}" + "".join(f"{value:12.0f}" for value in rates))


def request_step(policy: CompiledPolicy, samples: Sequence[str]) -> Callable[[int], object]:
    """The whole pure step of a request: segments, screening, events."""

    def step(number: int) -> object:
        request = AdmittedRequest(
            event_id=f"e{number}", request_id=f"r{number}", tenant_id="t", occurred_at=NOW, causation_id="",
            context=Context(requested_at=NOW), messages=[Message(role="user", content=samples[number % len(samples)])],
        )  # fmt: skip
        screening = screen(
            core.request_segments(request), policy.stages["input"], Reference(), LIMITS, time.perf_counter, b"k"
        )
        return core.screened_request(request, Judged(screening, policy, b"k", NOW))

    return step


def release_step(policy: CompiledPolicy, samples: Sequence[str]) -> Callable[[int], object]:
    """The whole pure step of a completion."""

    def step(number: int) -> object:
        completion = Completion(
            event_id=f"e{number}", request_id=f"r{number}", tenant_id="t", occurred_at=NOW, causation_id="",
            context=Context(requested_at=NOW), messages=[Message(role="user", content="what is it?")], model="m",
            backend="b", content=samples[number % len(samples)],
        )  # fmt: skip
        reference = releasing.output_reference(completion, core.canary_of(b"k", completion.request_id))
        screening = screen(
            releasing.output_segments(completion), policy.stages["output"], reference, LIMITS, time.perf_counter, b"k"
        )
        return releasing.released(completion, Judged(screening, policy, b"k", NOW))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="texts of each kind")
    parser.add_argument("--size", type=int, default=1000, help="characters of a text")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a throughput run")
    parser.add_argument(
        "--with-llm-guard", action="store_true", help="install llm-guard into .venv/llm-guard (416 MB) and measure it"
    )
    args = parser.parse_args()
    memory = psutil.Process().memory_info
    before, started = memory().rss, time.process_time()
    scanners = shipped_scanners()
    gc.collect()
    print(
        f"scanners loaded in {time.process_time() - started:.2f} s of CPU, +{(memory().rss - before) / 2**20:.0f} MB;"
        f" {memory().rss / 2**20:.0f} MB resident"
    )
    compiled = policies(scanners)
    samples = {kind: texts(kind, args.count, args.size) for kind in ("prose", "personal")}
    bench_latency(compiled, samples)
    bench_presidio(compiled, samples)
    if args.with_llm_guard:
        bench_llm_guard(scanners["input"], samples)
    bench_throughput(compiled, args.seconds)
    print(f"\n{memory().rss / 2**20:.0f} MB resident at the end")


if __name__ == "__main__":
    main()
