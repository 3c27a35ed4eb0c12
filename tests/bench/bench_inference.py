"""What the log costs an engine: the same prompts through the stream and from AsyncLLM directly, in turns, in one run.

    python -m tests.bench.bench_inference [--rounds 4] [--requests 120] [--singles 40] [--trace-seconds 60] [--speed 1]

One process has the engine (vLLM on the CPU, a model of four million weights that is made on the spot) and is the inference
service; a job inside it asks now the engine itself, now publishes the requests on `requests-grounded` and waits until it has
read their completions. Lengths and arrival times are those of the Azure trace where ../shared/data is there, else drawn
like them. Needs .venv-vllm (`make vllm`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from penstock.contracts.catalogue import project_file
from rich.console import Console
from rich.table import Table

from tests.bench.bench_stack import bench_stack, deploy
from tests.bench.request_trace import Arrival, drawn, read_trace, scaled
from tests.bench.scheduling import sessions_as_equals
from tests.integration.tiny_model import tiny_model, vllm_python

_TRACE = Path(__file__).resolve().parents[3] / "shared/data/traffic/AzureLLMInferenceTrace_conv.csv"
_CONTEXT = 2048
_MOST_OUTPUT = 512
_CONCURRENCY = 128


def arrivals(seconds: float, speed: float) -> list[Arrival]:
    """Return what arrives within ``seconds`` of the bench."""
    found = read_trace(_TRACE, seconds * speed) if _TRACE.exists() else drawn(int(5 * seconds * speed), 5, seed=1)
    return scaled(found, speed=speed, most_prompt=_CONTEXT - _MOST_OUTPUT - 300, most_output=_MOST_OUTPUT)


def bench_config(folder: Path) -> Path:
    """The project's configuration with a route to the engine."""
    shutil.copytree(project_file("infra/config"), folder, dirs_exist_ok=True)
    (folder / "routes/bench.yaml").write_text(
        "name: bench\ntargets: [{backend: vllm, model: tiny, timeout_s: 600}]\nretrieval: {enabled: false}\n"
    )
    (folder / "prices/bench.yaml").write_text("model: tiny\ninput_cost_per_token: 1e-7\noutput_cost_per_token: 2e-7\n")
    return folder


def rounds(environ: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
    """Run the service with its driver, and return what it saw."""
    engine = {"model": str(tiny_model()), "served_model_name": "tiny", "dtype": "bfloat16", "enforce_eager": True,
              "max_model_len": _CONTEXT, "max_num_seqs": _CONCURRENCY, "kv_cache_memory_bytes": 2**30}  # fmt: skip
    variables = {
        "INFERENCE_ENGINE": json.dumps(engine),
        "INFERENCE_CONCURRENCY": str(_CONCURRENCY),
        "BENCH_ROUNDS": msgspec.json.encode(parameters).decode(),
        "PENSTOCK_LOG_LEVEL": "warning",
        # As beside an accelerator: the engine has a core of its own, all else the other; it does not spin while idle.
        "VLLM_CPU_OMP_THREADS_BIND": "0",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{project_file('shared')}:{project_file('services').parent}",
    }
    run = subprocess.run(
        [vllm_python(), "-m", "tests.bench.inference_rounds"], env=environ | variables, stdout=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith('{"bursts"')]
    if not lines:
        raise SystemExit(f"the rounds failed with {run.returncode}:\n{run.stdout[-4000:]}")
    found: dict[str, Any] = json.loads(lines[0])
    return found


def show(console: Console, found: dict[str, Any]) -> None:
    """Print the figures side by side."""
    rates = {name: [one["tokens"] / one["seconds"] for one in each] for name, each in found["bursts"].items()}
    table = Table("", "direct", "through the log", "ratio", title="All requests at once: tokens generated a second")
    for number, (direct, stream) in enumerate(zip(rates["direct"], rates["stream"], strict=True), start=1):
        table.add_row(f"round {number}", f"{direct:,.0f}", f"{stream:,.0f}", f"{stream / direct:.3f}")
    medians = {name: statistics.median(each) for name, each in rates.items()}
    table.add_row(
        "median", f"{medians['direct']:,.0f}", f"{medians['stream']:,.0f}",
        f"{statistics.median(s / d for d, s in zip(rates['direct'], rates['stream'], strict=True)):.3f}", style="bold",
    )  # fmt: skip
    console.print(table)
    if found["first"]:
        console.print(_latencies("One request at a time: ms to the first token", {"": found["first"]}))
    if found["trace"]:
        kinds = {kind: {name: each[kind] for name, each in found["trace"].items()} for kind in ("first", "whole")}
        console.print(_latencies("The trace: ms to the first token, and to the end", kinds))


def _latencies(title: str, kinds: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table("", "", "direct", "through the log", "added", title=title)
    for kind, ways in kinds.items():
        for at in ("p50", "p95", "p99"):
            direct, stream = ways["direct"][at], ways["stream"][at]
            table.add_row(kind, at, f"{direct:,.1f}", f"{stream:,.1f}", f"{stream - direct:+,.1f}")
    return table


def main(arguments: argparse.Namespace) -> None:
    """Start a stack, run the rounds on it, and print."""
    console = Console(width=100)
    with bench_stack() as own:
        deploy(own.environ, bench_config(own.folder / "config"))
        trace = arrivals(arguments.trace_seconds, arguments.speed) if arguments.trace_seconds > 0 else []
        lengths = arrivals(600, 1)[: arguments.requests]
        parameters = {
            "lengths": lengths, "rounds": arguments.rounds, "singles": arguments.singles, "arrivals": trace,
        }  # fmt: skip
        with sessions_as_equals(console):
            found = rounds(own.environ, parameters)
        show(console, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="rounds each way")
    parser.add_argument("--requests", type=int, default=120, help="requests of a round, all there at once")
    parser.add_argument("--singles", type=int, default=40, help="requests asked one by one each way")
    parser.add_argument("--trace-seconds", type=float, default=60, help="length of the replay; 0 for none")
    parser.add_argument("--speed", type=float, default=1, help="how many times as fast as it was recorded")
    main(parser.parse_args())
