"""The engine's settings: what is written reaches vLLM's arguments under its names; what is wrong is told with its remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from penstock.settings import SettingsError, load_settings

from services.inference.settings import Settings
from services.inference.vllm.settings import EngineSettings, engine_arguments, engine_settings

PLAIN: dict[str, Any] = {"model": "/models/llama"}


def test_a_model_alone_leaves_the_rest_to_vllm() -> None:
    arguments = engine_arguments(engine_settings(PLAIN))
    assert arguments["model"] == "/models/llama"
    assert arguments["served_model_name"] == ["/models/llama"]
    # Priorities of requests reach the scheduler, code of strangers is not run, and the log holds no prompts.
    assert arguments["scheduling_policy"] == "priority"
    assert arguments["trust_remote_code"] is False
    assert arguments["enable_log_requests"] is False
    assert {"max_model_len", "quantization", "max_loras", "max_lora_rank", "kv_cache_memory_bytes"}.isdisjoint(
        arguments
    )


def test_every_setting_reaches_the_engine_under_its_name() -> None:
    given = PLAIN | {
        "served_model_name": ["llama", "default"], "dtype": "bfloat16", "quantization": "awq", "tensor_parallel_size": 2,
        "max_model_len": 4096, "max_num_seqs": 32, "gpu_memory_utilization": 0.8, "kv_cache_dtype": "fp8",
        "enable_prefix_caching": False, "enforce_eager": True, "seed": 7, "enable_lora": True, "max_loras": 2,
        "max_lora_rank": 32, "max_cpu_loras": 4, "structured_outputs_backend": "guidance", "compact_json": True,
        "scheduling_policy": "fcfs",
        "extra": {"swap_space": 2, "speculative_config": {"method": "ngram"}},
    }  # fmt: skip
    arguments = engine_arguments(engine_settings(given))
    assert arguments.pop("structured_outputs_config") == {"backend": "guidance", "disable_any_whitespace": True}
    assert arguments.pop("swap_space") == 2
    assert arguments.pop("speculative_config") == {"method": "ngram"}
    del given["structured_outputs_backend"], given["compact_json"], given["extra"]
    assert given.items() <= arguments.items()
    assert {"chat_template", "max_restarts", "restart_window_s", "extra"}.isdisjoint(arguments)


def test_it_is_read_from_a_file_or_from_the_variable_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text("model: /models/llama\nserved_model_name: llama\nmax_model_len: 2048\n", "utf-8")
    read: list[EngineSettings | None] = []
    for value in (str(file), json.dumps({**PLAIN, "served_model_name": "llama", "max_model_len": 2048})):
        monkeypatch.setenv("INFERENCE_ENGINE", value)
        read.append(load_settings(Settings).inference_engine)
    assert read[0] == read[1]
    assert read[0] is not None
    assert (read[0].names, read[0].max_model_len) == (("llama",), 2048)
    monkeypatch.delenv("INFERENCE_ENGINE")
    assert load_settings(Settings).inference_engine is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{"model": "m", "max_model_ln": 1}', "'max_model_len' is meant"),
        ('{"model": "m", "max_model_len": 0}', "greater than or equal to 1"),
        ('{"model": "m", "extra": {"seed": 1}}', "extra.seed has a field of its own"),
        ('{"model": "m", "extra": {"hf_token": "secret"}}', "HF_TOKEN"),
        ('{"model": "m", "extra": {"enable_log_requests": true}}', "set by inference itself"),
        ('{"model": "m", "max_loras": 4, "max_cpu_loras": 2}', "below max_loras"),
        ('{"model": "m", "compact_json": true}', "xgrammar or guidance"),
        ('{"dtype": "auto"}', "MODEL: Field required"),
        ('{"model": ', "is no JSON"),
        ("/no/such/file.yaml", "cannot be read: No such file"),
        ("{}", "MODEL: Field required"),
    ],
)
def test_what_is_wrong_is_told_with_its_remedy(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENGINE", value)
    with pytest.raises(SettingsError, match="INFERENCE_ENGINE") as found:
        load_settings(Settings)
    assert said in str(found.value)


def test_a_file_that_holds_no_mapping_is_told(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text("- model\n", "utf-8")
    with pytest.raises(ValueError, match="must be a mapping"):
        engine_settings(str(file))
    file.write_text("model: [\n", "utf-8")
    with pytest.raises(ValueError, match="is no YAML"):
        engine_settings(str(file))


def test_the_page_has_every_field_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "services/inference/vllm/README.md").read_text("utf-8")
    for name, entry in EngineSettings.model_fields.items():
        default = entry.get_default(call_default_factory=True)
        shown = "(required)" if entry.is_required() else f"`{json.dumps(default)}`"
        assert f"| `{name}` | {shown} | {entry.description} |" in page
