"""The real engine, fed by the real log: one process of inference with vLLM in it answers what these tests ask."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from penstock.bus import KafkaBus, Producer
from penstock.config.kinds import Adapter, Retrieval, Route, Target
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.settings import KafkaSettings
from tokenizers import Tokenizer

from services.inference.vllm.adapters import digest_of
from services.inference.vllm.settings import EngineSettings, engine_arguments
from tests.integration.tiny_model import tiny_model, vllm_python
from tests.integration.vllm_engine import Asker, EngineProcess, asker, make_adapter

pytestmark = pytest.mark.timeout(900)

MODEL = "tiny"
CONTEXT_TOKENS = 1024
ROUTE = "engine"
ADAPTED, FORGED = "tiny-loud", "tiny-forged"
LONG = r"(xq){1500}"
"""Nothing shorter matches, and no token is longer than two letters of it: an answer that fills the context window."""
CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "pattern": "^[A-Z][a-z]{2,9}$"},
        "people": {"type": "integer", "minimum": 0, "maximum": 999},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> Path:
    return tiny_model()


TOOLS = [
    {"type": "function", "function": {"name": "look_up", "parameters": CITY, "strict": True}},
    {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}},
]
TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|system|>\n{{ tools | tojson }}{{ eos_token }}\n{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}"
    "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""That of the model, with tools."""


@pytest.fixture(scope="module")
def engine(
    deployed: Mapping[str, str],
    kafka_settings: KafkaSettings,
    catalogue: Catalogue,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EngineProcess]:
    """Inference with an engine, ready to answer. Its log is shown where it does not start."""
    folder = tmp_path_factory.mktemp("engine")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE, "utf-8")
    settings = {
        "model": str(model),
        "chat_template": str(template),
        "tool_call_parser": "hermes",
        "served_model_name": MODEL,
        "dtype": "bfloat16",
        "enforce_eager": True,
        "max_model_len": CONTEXT_TOKENS,
        "max_num_seqs": 64,
        "kv_cache_memory_bytes": 256 * 1024 * 1024,
        "enable_lora": True,
        "max_lora_rank": 8,
        "structured_outputs_backend": "xgrammar",
        "compact_json": True,
    }
    process = EngineProcess(deployed, settings, folder / "inference.log")
    process.start()
    for name, seed in ((ADAPTED, 1), (FORGED, 2)):
        make_adapter(folder / name, base=model, rank=8, seed=seed)
    adapters = [
        Adapter(name=ADAPTED, base_model=MODEL, path=str(folder / ADAPTED), sha256=digest_of(folder / ADAPTED), rank=8),
        Adapter(name=FORGED, base_model=MODEL, path=str(folder / FORGED), sha256=digest_of(folder / ADAPTED), rank=8),
    ]
    targets = {ROUTE: MODEL, "adapted": ADAPTED, "forged": FORGED, "unknown": "another-model"}
    routes = [
        Route(
            name=name, targets=(Target(backend="vllm", model=asked, timeout_s=300),), retrieval=Retrieval(enabled=False)
        )
        for name, asked in targets.items()
    ]
    asyncio.run(_publish(kafka_settings, catalogue, deployed["SCHEMA_REGISTRY_URL"], [*adapters, *routes]))
    try:
        process.wait_ready()
        yield process
    finally:
        process.end(signal.SIGKILL)


async def _publish(settings: KafkaSettings, catalogue: Catalogue, registry: str, entries: list[Any]) -> None:
    codec = await Codec.resolve(catalogue, registry)
    async with KafkaBus(settings, client_id="engine-config") as bus:
        changes = [Change(entry.KIND, entry.key, "new", None, entry) for entry in entries]
        await publish_changes(changes, Producer(bus.producer(), codec, "tests"), datetime.now(UTC))


@pytest.fixture
async def asked(
    engine: EngineProcess, deployed: Mapping[str, str], kafka_settings: KafkaSettings, catalogue: Catalogue
) -> AsyncIterator[Asker]:
    codec = await Codec.resolve(catalogue, deployed["SCHEMA_REGISTRY_URL"])
    async with asker(kafka_settings, codec, ROUTE) as made:
        yield made


@pytest.fixture(scope="module")
def words(model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(model / "tokenizer.json"))


def test_every_setting_is_an_argument_of_this_vllm() -> None:
    # Read rather than imported, which would take as long as starting it.
    (source,) = (vllm_python().parents[1] / "lib").glob("python3*/site-packages/vllm/engine/arg_utils.py")
    classes = {node.name: node for node in ast.parse(source.read_text("utf-8")).body if isinstance(node, ast.ClassDef)}
    known = {
        line.target.id
        for name in ("EngineArgs", "AsyncEngineArgs")
        for line in classes[name].body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    everything = EngineSettings(
        model="m", tokenizer="t", revision="r", quantization="awq", max_model_len=1, max_num_seqs=1,
        max_num_batched_tokens=1, kv_cache_memory_bytes=1, enable_lora=True, max_cpu_loras=1,
    )  # fmt: skip
    assert not set(engine_arguments(everything)) - known
    assert "worker_extension_cls" in known


def prompt(text: str) -> str:
    """The chat template of the model, written out for one question."""
    return f"<s><|user|>\n{text}</s>\n<|assistant|>\n"


async def test_an_answer_has_the_tokens_that_were_used_to_the_last_one(asked: Asker, words: Tokenizer) -> None:
    question = "Which statement leaves a loop? " * 30
    first = await asked.ask(question, max_completion_tokens=24, temperature=0.0)
    assert (first.model, first.backend, first.finish_reason, first.error) == (MODEL, "vllm", "length", None)
    assert first.usage.input_tokens == len(words.encode(prompt(question), add_special_tokens=False).ids)
    assert first.usage.output_tokens == 24
    assert first.content
    assert first.timings.first_token_us is not None
    assert first.timings.engine_queue_us is not None
    assert 0 <= first.timings.engine_queue_us <= first.timings.first_token_us <= first.timings.model_us
    again = await asked.ask(question, max_completion_tokens=24, temperature=0.0)
    assert again.content == first.content
    # The prompt's whole blocks were kept; its last token is computed for the answer's first.
    assert 0 < again.usage.cached_input_tokens < again.usage.input_tokens


async def test_chance_is_repeated_by_its_seed(asked: Asker) -> None:
    sampling = {"max_completion_tokens": 16, "temperature": 1.0, "top_p": 0.9, "top_k": 200}
    ids = [await asked.send("Roll the dice.", seed=seed, **sampling) for seed in (7, 7, 8)]
    same, again, other = await asked.wait(*ids)
    assert same.content == again.content != other.content


async def test_several_answers_with_their_probabilities(asked: Asker) -> None:
    answer, greedy = await asked.wait(
        await asked.send("Name a colour.", n=3, top_logprobs=2, max_completion_tokens=8, temperature=1.0, seed=1),
        await asked.send("Name a colour.", n=2, max_completion_tokens=8, temperature=0.0),
    )
    assert len({answer.content, *(other.content for other in answer.alternatives)}) == 3
    assert answer.usage.output_tokens == 24
    for logprobs in (answer.logprobs, *(other.logprobs for other in answer.alternatives)):
        assert len(logprobs) == 8
        for token in logprobs:
            assert token.logprob <= 0
            assert 1 <= len(token.top) <= 2
            assert all(token.logprob <= likelier or token.token in token.top for likelier in token.top.values())
    # At temperature 0 there is one answer, generated once.
    assert [other.content for other in greedy.alternatives] == [greedy.content]
    assert greedy.usage.output_tokens == 8


async def test_answers_keep_to_a_schema_and_to_an_expression(asked: Asker) -> None:
    schema, date = json.dumps(CITY), r"\d{4}-\d{2}-\d{2}"
    ids = [await asked.send("Where?", response_format=schema, max_completion_tokens=200, seed=seed) for seed in (1, 2)]
    ids.append(await asked.send("When?", regex=date, max_completion_tokens=60, seed=3))
    *cities, day = await asked.wait(*ids)
    for city in cities:
        assert city.finish_reason == "stop"
        found = json.loads(city.content)
        assert set(found) == {"city", "people"}
        assert re.fullmatch("[A-Z][a-z]{2,9}", found["city"])
        assert 0 <= found["people"] <= 999
    assert re.fullmatch(date, day.content)


async def test_tools_are_called_where_one_must_be(asked: Asker) -> None:
    offered = json.dumps(TOOLS)
    named = '{"type": "function", "function": {"name": "look_up"}}'
    must = await asked.send("Where?", tools=offered, tool_choice=named, max_completion_tokens=300, seed=1)
    may = await asked.send("Where?", tools=offered, max_completion_tokens=8, seed=1)
    none = await asked.send("Where?", tools=offered, tool_choice='"none"', max_completion_tokens=8, seed=1)
    plain = await asked.send("Where?", max_completion_tokens=8, seed=1)
    calling, words, without, as_ever = await asked.wait(must, may, none, plain)
    (call,) = calling.tool_calls
    assert (call.name, calling.content, calling.finish_reason) == ("look_up", "", "tool_calls")
    assert set(json.loads(call.arguments)) == {"city", "people"}
    assert (words.tool_calls, words.finish_reason) == ([], "length")
    # The template told the model what there is, and only where it may be called.
    assert words.usage.input_tokens > without.usage.input_tokens
    assert (without.content, without.usage) == (as_ever.content, as_ever.usage)


async def test_an_answer_ends_before_the_words_that_stop_it(asked: Asker) -> None:
    whole = await asked.ask("Go on.", max_completion_tokens=60, temperature=0.0)
    stop = whole.content[12:16]
    answer = await asked.ask("Go on.", max_completion_tokens=60, temperature=0.0, stop=[stop])
    assert answer.finish_reason == "stop"
    assert answer.content == whole.content[: whole.content.index(stop)]
    assert answer.usage.output_tokens < whole.usage.output_tokens


async def test_pieces_are_the_answer(asked: Asker) -> None:
    answer = await asked.ask("Tell me more.", stream=True, n=2, max_completion_tokens=120, temperature=1.0, seed=5)
    chunks = sorted(asked.chunks[answer.request_id], key=lambda chunk: chunk.sequence)
    assert "".join(chunk.content for chunk in chunks) == answer.content
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert chunks[-1].finish_reason == answer.finish_reason
    assert len(chunks) > 2
    assert answer.stream
    assert len(answer.alternatives) == 1


async def test_many_are_answered_at_once(asked: Asker, engine: EngineProcess) -> None:
    steps = "penstock_engine_batch_size_bucket"
    before = engine.metric(steps, le="+Inf") - engine.metric(steps, le="8.0")
    # More than fits into one step: prompts wait for the next.
    sampling = {"max_completion_tokens": 48, "temperature": 1.0}
    ids = [await asked.send(f"Question {n}. {'And so on. ' * 40}", seed=n, **sampling) for n in range(40)]
    answers = await asked.wait(*ids)
    assert all(answer.usage.output_tokens <= 48 and answer.error is None for answer in answers)
    assert len({answer.content for answer in answers}) == 40
    assert engine.metric(steps, le="+Inf") - engine.metric(steps, le="8.0") > before, "never more than 8 in one step"
    assert engine.metric("penstock_engine_tokens_total", direction="output") >= sum(
        a.usage.output_tokens for a in answers
    )
    assert engine.metric("penstock_engine_prefix_cache_queries_total") > 0
    assert engine.metric("penstock_engine_deaths_total") == 0


async def test_a_deadline_stops_the_engine_and_what_it_generated_is_paid_for(
    asked: Asker, engine: EngineProcess
) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=1.0)
    late = await asked.ask("Write a book.", regex=LONG, deadline_at=deadline)
    assert (late.ends_as, late.finish_reason, late.content) == ("expired", "cancelled", "")
    assert 0 < late.usage.output_tokens < CONTEXT_TOKENS - late.usage.input_tokens
    async with asyncio.timeout(10):
        # It was aborted there, too: another request makes a step, of which it is no part.
        while engine.metric("penstock_engine_running_requests") > 0:
            await asked.ask("Next.", max_completion_tokens=1)


async def test_adapters_are_served_where_their_weights_are_those_that_were_registered(asked: Asker) -> None:
    sampling = {"max_completion_tokens": 24, "temperature": 0.0}
    plain = await asked.ask("Say something.", **sampling)
    adapted, again = await asked.wait(
        await asked.send("Say something.", route="adapted", **sampling),
        await asked.send("Say something.", route="adapted", **sampling),
    )
    assert (adapted.model, adapted.usage.input_tokens) == (ADAPTED, plain.usage.input_tokens)
    assert adapted.content == again.content != plain.content
    assert "has the digest" in await asked.refused(await asked.send("Say something.", route="forged", **sampling))
    reason = await asked.refused(await asked.send("Say something.", route="unknown", **sampling))
    assert f"the engine serves {MODEL}" in reason


async def test_what_cannot_be_generated_is_refused_with_its_cause(asked: Asker) -> None:
    reason = await asked.refused(await asked.send("word " * 2 * CONTEXT_TOKENS))
    assert "context" in reason
    assert str(CONTEXT_TOKENS) in reason.replace(",", "")
    assert "regex" in await asked.refused(await asked.send("When?", regex="[0-9"))
    fitting = await asked.ask("How far?", regex=LONG)
    # No limit was set: the answer takes what the prompt leaves.
    assert fitting.finish_reason == "length"
    assert fitting.usage.input_tokens + fitting.usage.output_tokens == CONTEXT_TOKENS


async def test_an_engine_that_is_killed_loses_no_request(asked: Asker, engine: EngineProcess) -> None:
    repeatable = {"regex": LONG, "max_completion_tokens": 400, "temperature": 0.0}
    ids = [await asked.send(f"Number {n}.", regex=LONG, max_completion_tokens=400, seed=n) for n in range(16)]
    streams = [await asked.send(f"Stream {n}.", stream=True, seed=n, max_completion_tokens=400) for n in range(4)]
    streams += [await asked.send(f"Again {n}.", stream=True, **repeatable) for n in range(4)]
    async with asyncio.timeout(30):
        while not all(asked.chunks.get(each) for each in streams):
            await asked.read()
    assert not any(each in asked.completions for each in ids)
    engine.core().kill()
    started = time.monotonic()
    async with asyncio.timeout(10):
        while engine.status("/readyz") == 200:
            await asked.read()
    waiting = await asked.send("While there is none.", max_completion_tokens=4)
    answers = await asked.wait(*ids, *streams, waiting, timeout_s=500)
    print(f"answered {time.monotonic() - started:.1f} s after the engine was killed")
    assert all(answer.error is None and answer.ends_as is None for answer in answers)
    assert [len(asked.completions[each]) for each in (*ids, *streams, waiting)] == [1] * 25
    assert engine.status("/readyz") == 200
    assert engine.metric("penstock_engine_deaths_total") == 1
    assert engine.metric("penstock_wasted_tokens_total", backend="vllm", model=MODEL, cause="engine") > 24
    for request_id in streams:
        answer = asked.completions[request_id][0]
        chunks = sorted(asked.chunks[request_id], key=lambda chunk: chunk.sequence)
        said = "".join(chunk.content for chunk in chunks)
        # What a reader was told stays: the stream goes on where it was, or breaks off and the answer comes as a whole.
        assert chunks[-1].finish_reason == (answer.finish_reason if answer.stream else "error")
        assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
        assert said == answer.content if answer.stream else chunks[-1].finish_reason == "error"


def test_the_engine_ends_with_its_process(engine: EngineProcess) -> None:
    engine.wait_ready()
    processes = engine.engines()
    assert len(processes) >= 2
    assert engine.process is not None
    # Were it killed, they would end too: one of them waits for that (what it does then: tests/unit/test_vllm_lifeline.py).
    assert engine.process.pid in {owner for process in processes for owner in awaited(process.pid)}
    assert engine.end(signal.SIGTERM) == 0, engine.tail()
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert not alive


def awaited(process: int) -> Iterator[int]:
    """Yield the processes whose end ``process`` waits for (pidfd_open(2))."""
    for descriptor in Path(f"/proc/{process}/fdinfo").iterdir():
        found = re.search(r"^Pid:\s+(\d+)", descriptor.read_text("utf-8"), re.MULTILINE)
        if found:
            yield int(found.group(1))
