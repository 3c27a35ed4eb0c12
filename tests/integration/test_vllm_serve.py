"""A real ``vllm serve`` as the OpenAI-compatible endpoint: what it is asked it does, and what it says is read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from penstock.config.kinds import Target
from penstock.contracts.records import Context, GroundedRequest, Message, Sampling
from penstock.stack.ports import HOST, free_port
from prometheus_client.parser import text_string_to_metric_families
from tokenizers import Tokenizer

from services.inference.adapters import BackendError
from services.inference.core import Answered
from services.inference.openai_endpoint import OpenAIBackend
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from tests.integration.tiny_model import tiny_model, vllm_python

MODEL = "tiny"
CONTEXT_TOKENS = 1024
START_S = 600.0
"""It is up in 45 s where the machine has nothing else to do."""
CALL_S = 120.0
QUESTION = "What is a tuple?"
LONG = r"[a-z ]{3000}"
"""Nothing shorter matches: an answer that takes the engine a while."""
CITY = {
    "type": "object",
    "properties": {"people": {"type": "integer", "maximum": 999}, "city": {"type": "string", "maxLength": 12}},
    "required": ["people", "city"],
    "additionalProperties": False,
}

pytestmark = pytest.mark.timeout(720)


@dataclass
class Server:
    """``vllm serve`` as a process."""

    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> Target:
        return Target(backend="openai", model=MODEL, base_url=f"http://{HOST}:{self.port}/v1", timeout_s=CALL_S)

    def start(self, model: Path) -> None:
        # What `vllm serve` runs: the command itself looks for its version under a name that the CPU build has not.
        command = [
            str(vllm_python()), "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(model), "--host", HOST,
            "--port", str(self.port), "--served-model-name", MODEL, "--dtype", "bfloat16", "--enforce-eager",
            "--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", "8", "--distributed-executor-backend", "uni",
            # A model that says nothing of sense would go on with blanks.
            "--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}',
        ]  # fmt: skip
        given = {
            "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": "",
            # The worker is part of the engine's process: one process less to start, which takes a third of the time.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **given}, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self.healthy():
            assert self.process.poll() is None, self.tail()
            assert time.monotonic() < deadline, f"not up within {START_S:.0f} s\n{self.tail()}"
            time.sleep(0.2)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def reaches(self, running: int) -> None:
        """Wait until so many requests are in the engine."""
        deadline = time.monotonic() + CALL_S
        while (now := await asyncio.to_thread(self.metric, "vllm:num_requests_running")) != running:
            assert time.monotonic() < deadline, f"{now:.0f} requests are running, not {running}"
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        for child in psutil.wait_procs(children, timeout=5)[1]:
            child.kill()

    def tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-6000:]


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_model()


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("serve") / "serve.log")
    try:
        started.start(model)
        yield started
    finally:
        started.stop()


@pytest.fixture
async def backend() -> AsyncIterator[OpenAIBackend]:
    async with aiohttp.ClientSession() as session:
        yield OpenAIBackend(session, {})


@dataclass
class Heard:
    """Pieces as they come."""

    text: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def add(self, text: str) -> None:
        self.text += text
        self.begun.set()

    async def break_off(self) -> None:
        raise AssertionError("an endpoint's answer does not begin anew")


def asked(text: str = QUESTION, **sampling: Any) -> GroundedRequest:
    now = datetime.now(UTC)
    return GroundedRequest(
        event_id="e", request_id="r", tenant_id="t", occurred_at=now, causation_id="c",
        context=Context(requested_at=now), messages=[Message(role="user", content=text)], sampling=Sampling(**sampling),
    )  # fmt: skip


async def answered(backend: OpenAIBackend, server: Server, pieces: Pieces | None = None, **sampling: Any) -> Answered:
    return await backend.generate(asked(**sampling), server.target, pieces or NoPieces(), Progress())


def prompt_tokens(model: Path) -> int:
    """Tokens of the question as the model's chat template writes it."""
    words = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = f"<s><|user|>\n{QUESTION}</s>\n<|assistant|>\n"
    return len(words.encode(text, add_special_tokens=False).ids)


async def test_at_once_and_bit_by_bit_are_the_same_answer_at_the_tokenizers_count(
    backend: OpenAIBackend, server: Server, model: Path
) -> None:
    heard = Heard()
    sampling: dict[str, Any] = {"temperature": 0.0, "max_completion_tokens": 24, "top_logprobs": 2}
    at_once = await answered(backend, server, **sampling)
    streamed = await answered(backend, server, heard, **sampling)
    assert at_once.content == streamed.content == heard.text != ""
    for answer in (at_once, streamed):
        assert (answer.model, answer.backend, answer.finish_reason) == (MODEL, "openai", "length")
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (prompt_tokens(model), 24)
        assert len(answer.logprobs) == 24
        # Of a character that was begun and not finished a token has nothing.
        assert "".join(each.token for each in answer.logprobs) == answer.content.replace("\ufffd", "")
        for each in answer.logprobs:
            # The likeliest token is taken at this temperature, so it leads the two.
            assert each.logprob == max(each.top.values()) <= 0
            assert 1 <= len(each.top) <= 2
    assert at_once.first_token_us is None
    assert streamed.first_token_us is not None
    assert 0 < streamed.first_token_us <= streamed.model_us


@pytest.mark.parametrize("pieces", [Heard(), NoPieces()], ids=["streamed", "at once"])
async def test_as_many_answers_come_as_were_asked_for(backend: OpenAIBackend, server: Server, pieces: Pieces) -> None:
    answer = await answered(
        backend, server, pieces, n=3, temperature=1.0, seed=5, max_completion_tokens=8, top_logprobs=0, min_p=0.0001
    )
    texts = [answer.content, *(each.content for each in answer.alternatives)]
    assert len(set(texts)) == len(texts) == 3
    assert [len(logprobs) for logprobs in (answer.logprobs, *(each.logprobs for each in answer.alternatives))] == [
        8
    ] * 3
    assert answer.usage.output_tokens == 24
    if isinstance(pieces, Heard):
        assert pieces.text == answer.content


async def test_a_seed_and_the_width_of_the_choice_reach_the_engine(backend: OpenAIBackend, server: Server) -> None:
    drawn = [
        (await answered(backend, server, temperature=1.5, seed=seed, max_completion_tokens=12)).content
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    greedy = (await answered(backend, server, temperature=0.0, max_completion_tokens=12)).content
    narrow = await answered(backend, server, temperature=1.5, top_k=1, seed=2, max_completion_tokens=12)
    assert narrow.content == greedy
    again = await answered(backend, server, temperature=0.0, frequency_penalty=2.0, max_completion_tokens=48)
    freely = await answered(backend, server, temperature=0.0, max_completion_tokens=48)
    assert again.content != freely.content


async def test_answers_follow_a_schema_and_an_expression(backend: OpenAIBackend, server: Server) -> None:
    schema = await answered(
        backend, server, response_format=json.dumps(CITY), temperature=1.0, seed=1, max_completion_tokens=200
    )
    said = json.loads(schema.content)
    # In the order of the schema: it went out as it came in.
    assert list(said) == ["people", "city"]
    assert isinstance(said["people"], int)
    matched = await answered(backend, server, regex="(yes|no) [0-9]{3}", temperature=1.0, seed=1)
    assert re.fullmatch("(yes|no) [0-9]{3}", matched.content)
    assert (schema.finish_reason, matched.finish_reason) == ("stop", "stop")


@pytest.mark.parametrize("pieces", [Heard(), NoPieces()], ids=["streamed", "at once"])
async def test_a_call_that_is_given_up_leaves_the_engine(
    backend: OpenAIBackend, server: Server, pieces: Pieces
) -> None:
    before = server.metric("vllm:generation_tokens_total")
    progress = Progress()
    request = asked(regex=LONG, max_completion_tokens=900, temperature=1.0)
    call = asyncio.create_task(backend.generate(request, server.target, pieces, progress))
    try:
        if isinstance(pieces, Heard):
            await asyncio.wait_for(pieces.begun.wait(), CALL_S)
        else:
            await server.reaches(1)
    finally:
        call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await server.reaches(0)
    assert progress.began
    # Of 900 tokens the engine had made a few when it was told.
    assert server.metric("vllm:generation_tokens_total") - before < 900
    if isinstance(pieces, Heard):
        assert progress.answer_size == len(pieces.text.encode())


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"n": 2, "temperature": 0.0}, "does not take n as it was sent: change sampling.n"),
        ({"max_completion_tokens": 5000}, "HTTP 400.*5000"),
        ({"regex": "("}, "HTTP 400"),
    ],
)
async def test_what_the_endpoint_refuses_is_named_and_costs_nothing(
    backend: OpenAIBackend, server: Server, sampling: dict[str, Any], words: str
) -> None:
    progress = Progress()
    with pytest.raises(BackendError, match=words) as raised:
        await backend.generate(asked(**sampling), server.target, NoPieces(), progress)
    assert (raised.value.of_request, raised.value.charged, progress.began) == (True, False, False)


async def test_a_model_that_is_not_served_is_the_targets_fault(backend: OpenAIBackend, server: Server) -> None:
    elsewhere = server.target.model_copy(update={"model": "another"})
    with pytest.raises(BackendError, match="HTTP 404") as raised:
        await backend.generate(asked(), elsewhere, NoPieces(), Progress())
    assert not raised.value.of_request
