"""The HTTP edge beside LiteLLM's proxy, before the same endpoint that answers at once, under the same load, in one run.

    python -m tests.bench.bench_edge [--connections 1,16,64] [--seconds 10] [--rounds 2] [--policy minimal]

Closed loop, by wrk (Debian: apt-get install wrk): each connection sends its next request when it has the last answer. The
edge has the whole of Penstock behind it: the log, admission with a limit and a hard budget, guardrails, the release gate,
costs and scores; all services, the broker, Redis, the endpoint and the load share the machine. LiteLLM runs with one worker,
no database and its master key, so it neither limits nor accounts. They take turns, and only one of them runs at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from penstock.stack.ports import free_port
from penstock.stack.supervisor import FLOW
from rich.console import Console
from rich.table import Table

from tests.bench.bench_pipeline import bench_config, processes
from tests.bench.bench_stack import BenchStack, bench_stack, deploy, services
from tests.bench.environments import environment

_LOAD = Path(__file__).with_name("chat.lua")
_START_S = 120.0
_WARM_S = 12
_MASTER_KEY = "sk-bench"

Figures = Mapping[str, int]


def load(base_url: str, model: str, key: str, connections: int, seconds: float) -> Figures:
    """Let wrk ask for so long, and return what it saw: microseconds, and what was no answer."""
    environ = {**os.environ, "BENCH_KEY": key, "BENCH_MODEL": model}
    run = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(_LOAD),
         f"{base_url}/chat/completions"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in run.stdout.splitlines() if line.startswith('{"requests"')]
    if run.returncode or not lines:
        raise SystemExit(f"wrk failed with {run.returncode}: {run.stdout}{run.stderr}")
    found: Figures = json.loads(lines[0])
    return found


async def answers(url: str, headers: Mapping[str, str] | None = None) -> None:
    """Wait until ``url`` answers with 200."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(_START_S):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url, headers=headers) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def penstock(own: BenchStack, policy: str, mock: int) -> AsyncIterator[tuple[str, str]]:
    """The whole flow with the edge; give its base URL and a key of a team."""
    config, port = bench_config(own.folder / "config", mock), free_port()
    team = (
        "name: bench\nrequests_per_minute: 1000000\nbudgets: [{name: all, window: month, limit: 1000000, mode: hard}]\n"
    )
    (config / "teams/bench.yaml").write_text(team)
    route = (config / "routes/bench.yaml").read_text().replace("policy: minimal", f"policy: {policy}")
    (config / "routes/bench.yaml").write_text(route)
    environ = own.environ | {"EDGE_PORT": str(port), "PENSTOCK_LOG_LEVEL": "warning", "PENSTOCK_KEYS_SECRET": "b" * 48}
    deploy(environ, config)
    cli = Path(sys.executable).with_name("penstock")
    created = subprocess.run(
        [cli, "keys", "create", "bench", "--reason", "bench", "--json"],
        env=environ, check=True, capture_output=True, text=True,
    )  # fmt: skip
    key: str = json.loads(created.stdout)["key"]
    async with services(list(dict.fromkeys(["edge", *FLOW])), own.stack, environ):
        url = f"http://127.0.0.1:{port}/v1"
        await answers(f"{url}/models", {"Authorization": f"Bearer {key}"})
        yield url, key


@contextlib.asynccontextmanager
async def litellm(state: Path, mock: int) -> AsyncIterator[tuple[str, str]]:
    """LiteLLM's proxy with one worker; give its base URL and its key."""
    settings: dict[str, Any] = {
        "model_list": [
            {
                "model_name": "bench",
                "litellm_params": {
                    "model": "openai/bench-model", "api_base": f"http://127.0.0.1:{mock}/v1", "api_key": "sk-none",
                },
            }
        ],
        "litellm_settings": {"num_retries": 0, "request_timeout": 30, "callbacks": []},
        "general_settings": {"master_key": _MASTER_KEY},
    }  # fmt: skip
    config, port = state / "litellm.json", free_port()
    config.write_text(json.dumps(settings))
    environ = {
        **os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True", "DISABLE_ADMIN_UI": "True", "NO_DOCS": "True",
    }  # fmt: skip
    program = environment("litellm") / "litellm"
    with (state / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"],
            env=environ, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await answers(f"http://127.0.0.1:{port}/health/liveliness")
        yield f"http://127.0.0.1:{port}/v1", _MASTER_KEY
    finally:
        process.terminate()
        process.wait(20)


def show(console: Console, found: Mapping[str, Mapping[int, Sequence[Figures]]]) -> None:
    """Print medians of the rounds side by side."""
    table = Table(
        "connections",
        "",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "not answered",
        title="Chat completions over HTTP",
    )
    for connections in next(iter(found.values())):
        rates = {}
        for name, runs in found.items():
            of = runs[connections]
            rates[name] = statistics.median(run["requests"] / run["microseconds"] * 1e6 for run in of)
            latencies = [f"{statistics.median(run[at] for run in of) / 1000:.1f}" for at in ("p50", "p95", "p99")]
            bad = sum(run["status"] + run["broken"] for run in of)
            table.add_row(str(connections), name, f"{rates[name]:.0f}", *latencies, str(bad))
        table.add_row("", "ratio", f"{rates['penstock'] / rates['litellm']:.2f}", style="bold", end_section=True)
    console.print(table)


async def main(arguments: argparse.Namespace) -> None:
    """Run both in turns, and print."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")
    console = Console(width=100)
    connections = [int(each) for each in arguments.connections.split(",")]
    found: dict[str, dict[int, list[Figures]]] = {
        name: {each: [] for each in connections} for name in ("litellm", "penstock")
    }
    mock = free_port()
    with bench_stack() as own:
        async with processes([["tests.bench.mock_endpoint", str(mock)]], own.environ):
            for number in range(arguments.rounds):
                # Each goes first in turn.
                for name in sorted(found, reverse=bool(number % 2)):
                    running = litellm(own.folder, mock) if name == "litellm" else penstock(own, arguments.policy, mock)
                    async with running as (url, key):
                        await asyncio.to_thread(load, url, "bench", key, 16, _WARM_S)
                        for each in connections:
                            began = time.perf_counter()
                            run = await asyncio.to_thread(load, url, "bench", key, each, arguments.seconds)
                            found[name][each].append(run)
                            took = time.perf_counter() - began
                            console.print(f"round {number + 1}: {name}, {each} connections, {took:.0f} s", style="dim")
        show(console, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", default="1,16,64", help="connections at once, comma-separated")
    parser.add_argument("--seconds", type=float, default=10, help="length of each run")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each of the two")
    parser.add_argument("--policy", default="minimal", help="guardrail policy of the route")
    asyncio.run(main(parser.parse_args()))
