"""What the engine runs and how: INFERENCE_ENGINE, mapped to vLLM's own arguments. Pure: vLLM is not needed to read it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["EngineSettings", "EngineSettingsField", "engine_arguments", "engine_settings", "unknown_argument"]

_OURS = frozenset({"disable_log_stats", "enable_log_requests", "worker_extension_cls"})
"""Arguments that inference sets itself: its figures, its logs, and the end of the engine with its owner need them."""


class EngineSettings(BaseModel):
    """The engine of this process. Names are those of vLLM (https://docs.vllm.ai/en/latest/configuration/engine_args)."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(min_length=1, description="Folder of the model, or its name on the hub.")
    served_model_name: tuple[str, ...] = Field(
        (), description="Names that targets ask for; none: the model's folder, or its name on the hub."
    )
    tokenizer: str | None = Field(None, description="Folder or name of the tokenizer; null: the model's.")
    revision: str | None = Field(None, description="Revision on the hub.")
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = Field(
        "auto", description="Type of weights and activations."
    )
    quantization: str | None = Field(
        None, description="How the weights are quantized, e.g. awq, gptq, fp8; null: as the model says."
    )
    tensor_parallel_size: int = Field(1, ge=1, le=1024, description="Accelerators that share every layer.")
    pipeline_parallel_size: int = Field(1, ge=1, le=1024, description="Accelerators, or groups, that share the layers.")
    max_model_len: int | None = Field(None, ge=1, description="Context window, tokens; null: the model's.")
    max_num_seqs: int | None = Field(None, ge=1, description="Most sequences in one step; null: vLLM's choice.")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="Most tokens in one step; null: vLLM's choice.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of an accelerator's memory to use.")
    kv_cache_dtype: str = Field("auto", description="Type of the KV cache, e.g. auto or fp8.")
    kv_cache_memory_bytes: int | None = Field(
        None,
        ge=1,
        description="Size of the KV cache on one accelerator, or of the CPU's; null: what the memory leaves.",
    )
    enable_prefix_caching: bool = Field(True, description="Whether prompts that begin alike are computed once.")
    enforce_eager: bool = Field(False, description="Whether graphs are left out: a faster start, slower steps.")
    seed: int = Field(0, description="Seed of the engine; requests have their own.")
    chat_template: Path | None = Field(None, description="File of the chat template (Jinja); null: the tokenizer's.")
    enable_lora: bool = Field(False, description="Whether adapters are served (config kind adapters).")
    max_loras: int = Field(1, ge=1, description="Different adapters in one step.")
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(16, description="Largest rank of an adapter.")
    max_cpu_loras: int | None = Field(None, ge=1, description="Adapters that are kept in memory; null: max_loras.")
    scheduling_policy: Literal["priority", "fcfs"] = Field(
        "priority", description="Who is served first: by the requests' priority, or by arrival alone."
    )
    structured_outputs_backend: Literal["auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer"] = Field(
        "auto", description="What holds answers to a JSON schema or a regular expression."
    )
    compact_json: bool = Field(
        False,
        description="Whether answers to a JSON schema have no blanks between their parts, which small models may fill their "
        "answer with; needs the backend xgrammar or guidance.",
    )
    tool_call_parser: str | None = Field(
        None,
        description="Which of vLLM's parsers reads the model's words as calls of tools, e.g. hermes, llama3_json, mistral; "
        "null: requests with tools are refused.",
    )
    trust_remote_code: bool = Field(False, description="Whether code that comes with the model is run.")
    max_restarts: int = Field(
        3, ge=0, le=100, description="Engines that may die within the window before inference stops."
    )
    restart_window_s: float = Field(600.0, gt=0, description="That window, seconds.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Any other argument of vLLM's AsyncEngineArgs.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.extra:
            if name in type(self).model_fields or name in ("structured_outputs_config", "served_model_names"):
                raise ValueError(f"extra.{name} has a field of its own: write it beside extra")
            if name == "hf_token":
                raise ValueError("extra.hf_token would be printed: set HF_TOKEN in the environment instead")
            if name in _OURS:
                raise ValueError(f"extra.{name} is set by inference itself: leave it out")
        if self.compact_json and self.structured_outputs_backend not in ("xgrammar", "guidance"):
            raise ValueError("compact_json needs structured_outputs_backend to be xgrammar or guidance")
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise ValueError(f"max_cpu_loras is {self.max_cpu_loras}, below max_loras, {self.max_loras}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names that targets ask for, the first of them the model's in events."""
        return self.served_model_name or (self.model,)


def engine_settings(value: Any) -> EngineSettings:
    """Return the settings that ``value`` says: a mapping, one as JSON text, or the path of a YAML or JSON file.

    Raises:
        ValueError: it says none; the message names the file and the field. (pydantic's ValidationError is one.)
    """
    if isinstance(value, EngineSettings):
        return value
    if isinstance(value, str):
        if value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"is no JSON: {error}; write the path of a file, or a JSON object") from None
        else:
            value = _read(Path(value))
    if not isinstance(value, dict):
        raise ValueError(
            "must be a mapping with at least model; write the path of a YAML or JSON file, or a JSON object"
        )
    if isinstance(name := value.get("served_model_name"), str):
        value = {**value, "served_model_name": [name]}
    for field in value:
        if field not in EngineSettings.model_fields:
            raise ValueError(
                f"{unknown_argument(field, EngineSettings.model_fields)}; vLLM's other arguments stand under extra"
            )
    return EngineSettings.model_validate(value)


def _read(path: Path) -> Any:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None


EngineSettingsField = Annotated[EngineSettings, BeforeValidator(engine_settings)]
"""For a field that holds what :func:`engine_settings` reads."""


def unknown_argument(name: str, known: Collection[str]) -> str:
    """Return that ``name`` is none of ``known``, with the one it may be meant for."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name!r} is unknown" + (f": {close[0]!r} is meant?" if close else "")


def engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's AsyncEngineArgs. What is left open stays vLLM's choice."""
    given = settings.model_dump(
        exclude={"served_model_name", "chat_template", "structured_outputs_backend", "compact_json", "tool_call_parser",
                 "extra", "max_restarts", "restart_window_s", "max_loras", "max_lora_rank", "max_cpu_loras"},
    )  # fmt: skip
    arguments = {name: value for name, value in given.items() if value is not None}
    arguments["served_model_name"] = list(settings.names)
    arguments["structured_outputs_config"] = {
        "backend": settings.structured_outputs_backend,
        "disable_any_whitespace": settings.compact_json,
    }
    if settings.enable_lora:
        arguments["max_loras"] = settings.max_loras
        arguments["max_lora_rank"] = settings.max_lora_rank
        if settings.max_cpu_loras is not None:
            arguments["max_cpu_loras"] = settings.max_cpu_loras
    # vLLM's own log of each request would hold what users wrote; its figures come by the statistics of inference.
    arguments |= {"disable_log_stats": True, "enable_log_requests": False}
    return arguments | settings.extra
