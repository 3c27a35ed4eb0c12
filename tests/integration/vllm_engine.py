"""Inference with a real engine as a process of its own, and what tests ask of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from penstock.bus import KafkaBus, Producer
from penstock.bus.types import RawReader
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, CompletionChunk, Context, GroundedRequest, Message, Refusal, Sampling
from penstock.settings import KafkaSettings
from penstock.stack.ports import free_port
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.tiny_model import vllm_python

PROJECT = Path(__file__).resolve().parents[2]
START_S = 600.0
"""An engine of this size is up in 40 s where the machine has nothing else to do, later where it has."""


@dataclass
class EngineProcess:
    """``python -m services.inference`` in the environment of vLLM."""

    environment: Mapping[str, str]
    engine: Mapping[str, Any]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        given = {
            "PYTHONPATH": f"{PROJECT / 'shared'}:{PROJECT}",
            "INFERENCE_ENGINE": json.dumps(self.engine),
            "PENSTOCK_METRICS_PORT": str(self.port),
            "SESSION_TIMEOUT_MS": "6000",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [vllm_python(), "-m", "services.inference"],
                env={**os.environ, **self.environment, **given}, cwd=PROJECT, stdout=log, stderr=log,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until /readyz says that requests are answered."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.tail()
            if self.status("/readyz") == 200:
                return
            time.sleep(0.2)
        raise AssertionError(f"the engine was not up within {START_S:.0f} s\n{self.tail()}")

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as response:
            families = text_string_to_metric_families(response.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def engines(self) -> list[psutil.Process]:
        """Return the processes of the engine: its core and its workers."""
        assert self.process is not None
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "resource_tracker" not in " ".join(child.cmdline())
        ]

    def core(self) -> psutil.Process:
        """Return the engine's core."""
        return next(child for child in self.engines() if "EngineCore" in " ".join(child.cmdline()))

    def end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-6000:]


@dataclass
class Asker:
    """Sends requests to inference and waits for what comes of them."""

    producer: Producer
    reader: RawReader
    codec: Codec
    route: str
    completions: dict[str, list[Completion]] = field(default_factory=dict)
    chunks: dict[str, list[CompletionChunk]] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)

    async def send(
        self, text: str, *, route: str | None = None, stream: bool = False, deadline_at: datetime | None = None,
        priority: str = "standard", **sampling: Any,
    ) -> str:  # fmt: skip
        """Send a request; return its id."""
        now, request_id = datetime.now(UTC), uuid.uuid4().hex
        request = GroundedRequest(
            event_id=f"{request_id}-g", request_id=request_id, tenant_id="team", occurred_at=now, causation_id="",
            context=Context(requested_at=now, route=route or self.route, deadline_at=deadline_at, priority=priority),
            messages=[Message(role="user", content=text)], stream=stream, sampling=Sampling(**sampling),
        )  # fmt: skip
        await (await self.producer.send("requests-grounded", request_id, request))
        return request_id

    async def read(self) -> None:
        """Take what has come."""
        for message in await self.reader.poll(0.1):
            record = self.codec.decode(message.topic, message.value)
            if isinstance(record, Completion):
                self.completions.setdefault(record.request_id, []).append(record)
            elif isinstance(record, CompletionChunk):
                self.chunks.setdefault(record.request_id, []).append(record)
            elif isinstance(record, Refusal):
                self.refusals[record.request_id] = record

    async def wait(self, *request_ids: str, timeout_s: float = 60) -> list[Completion]:
        """Return the completions of these requests, in their order."""
        async with asyncio.timeout(timeout_s):
            while not all(request_id in self.completions for request_id in request_ids):
                refused = [self.refusals[each] for each in request_ids if each in self.refusals]
                assert not refused, refused[0].reason
                await self.read()
        return [self.completions[request_id][0] for request_id in request_ids]

    async def refused(self, request_id: str, timeout_s: float = 60) -> str:
        """Return why a request was refused."""
        async with asyncio.timeout(timeout_s):
            while request_id not in self.refusals:
                assert request_id not in self.completions, self.completions[request_id]
                await self.read()
        return self.refusals[request_id].reason

    async def ask(self, text: str, **options: Any) -> Completion:
        """Return the completion of one request."""
        (answer,) = await self.wait(await self.send(text, **options))
        return answer


@asynccontextmanager
async def asker(settings: KafkaSettings, codec: Codec, route: str) -> AsyncIterator[Asker]:
    """An :class:`Asker` for ``route``."""
    async with KafkaBus(settings, client_id=f"asker-{route}") as bus:
        reader = await bus.read(["completions", "completion-chunks", "refusals"], from_end=True)
        try:
            yield Asker(Producer(bus.producer(), codec, "tests"), reader, codec, route)
        finally:
            await reader.close()


def make_adapter(folder: Path, *, base: Path, rank: int, seed: int) -> None:
    """Write a LoRA adapter of random weights, large enough to be heard, as peft writes one."""
    shape = json.loads((base / "config.json").read_text("utf-8"))
    width, head = shape["hidden_size"], shape["hidden_size"] // shape["num_attention_heads"]
    outputs = {"q_proj": width, "v_proj": head * shape["num_key_value_heads"]}
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, size in outputs.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = random.normal(0, 0.5, (rank, width)).astype(np.float32)
            tensors[f"{place}.lora_B.weight"] = random.normal(0, 0.5, (size, rank)).astype(np.float32)
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0,
        "target_modules": sorted(outputs), "base_model_name_or_path": str(base), "bias": "none",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")


def safetensors(tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Return float32 arrays in the format of https://github.com/huggingface/safetensors#format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + body
