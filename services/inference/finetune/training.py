"""The training itself: a LoRA adapter on a frozen causal language model, in the environment of the engine.

A plain loop rather than a trainer's: conversations have weights, the loss is that of the answers alone, and equal seeds must
give equal bytes, each of which a trainer would have to be talked into.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

# Nothing is fetched from a hub: the base is a folder. Read when transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from services.inference.finetune.encoding import Encoded, Tokenizer
from services.inference.finetune.record import Loss, Options

__all__ = [
    "Device",
    "Fitted",
    "TrainingError",
    "base_of",
    "device_of",
    "enough_memory",
    "fit",
    "tokenizer_of",
    "versions",
]

_PACKAGES = ("torch", "transformers", "peft", "safetensors")
_CLIP = 1.0
"""Longest step of the gradients together: the usual bound for fine-tuning, e.g. of LLaMA (arXiv:2302.13971, section 2.3)."""


class TrainingError(Exception):
    """Training cannot begin, or led to nothing; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs, and in which type its weights are held."""

    name: str
    dtype: Any

    @property
    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision where the weights are held in 16 bits: the adapter's own are held in 32."""
        if self.dtype == torch.float32:
            return nullcontext()
        mixed: AbstractContextManager[Any] = torch.autocast(self.name.partition(":")[0], dtype=self.dtype)
        return mixed


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it: the losses along the way, and the step whose weights were written."""

    losses: list[Loss]
    best_step: int
    parameters: int


def device_of(name: str) -> Device:
    """Return the device of a name (auto, cpu, cuda, cuda:1): bfloat16 where a GPU has it, float32 elsewhere.

    Raises:
        TrainingError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise TrainingError(f"there is no {name} here: say --device cpu, or auto ({_first_line(error)})") from error
    if name.startswith("cuda"):
        return Device(name, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32)
    return Device(name, torch.float32)


def tokenizer_of(base: Path) -> Any:
    """Return the tokenizer of a base model.

    Raises:
        TrainingError: the folder has none, or it has no chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{base} holds no tokenizer that transformers reads: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise TrainingError(
            f"the tokenizer in {base} has no chat template: take the instruction-tuned model of its kind"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def base_of(base: Path, device: Device) -> Any:
    """Return a base model with its weights on the device.

    Raises:
        TrainingError: the folder holds no causal language model.
    """
    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=device.dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise TrainingError(f"{base} holds no model that transformers reads: {_first_line(error)}") from error
    return model.to(device.name)


def fit(
    base: Path,
    tokenizer: Tokenizer,
    training: Sequence[Encoded],
    held_out: Sequence[Encoded],
    options: Options,
    device: Device,
    out: Path,
    on_look: Callable[[Loss], None] = lambda loss: None,
) -> Fitted:
    """Train an adapter and write the weights with the least held-out loss to ``out``, as peft does.

    A step minimises the weighted mean cross-entropy over all answer tokens of its batches, however they are cut up. On a
    CPU equal inputs give equal bytes.

    Args:
        on_look: is told each held-out loss, that of the base first.

    Raises:
        TrainingError: nothing to learn from, the loss is no number, or no step was better than the base.
    """
    if not training or not held_out:
        raise TrainingError("no conversation is left to learn from or to hold out: raise --max-tokens, or export more")
    torch.manual_seed(options.seed)
    # CUDA asks for it where sums are to be repeatable; those operations that have no such form only warn.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device.name != "cpu")
    model = base_of(base, device)
    try:
        model = get_peft_model(model, _lora(options))
    except ValueError as error:
        raise TrainingError(f"--target-modules {options.target_modules}: {_first_line(error)}") from error
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    parameters = [one for one in model.parameters() if one.requires_grad]
    run = _Run(model, _pad(tokenizer), device, options)
    steps = options.epochs * math.ceil(len(training) / (options.batch_size * options.accumulate))
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, options.warmup))
    losses = [Loss(step=0, epoch=0.0, held_out=run.held_out_loss(held_out))]
    on_look(losses[0])
    best, best_step, kept = losses[0].held_out, 0, {}
    since: list[float] = []
    every = options.evaluate_steps or math.ceil(steps / options.epochs)
    worse = 0
    for step, window in enumerate(_windows(training, options), start=1):
        since.append(run.gradients(window))
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % every and step != steps:
            continue
        found = Loss(
            step=step,
            epoch=round(step * options.epochs / steps, 3),
            held_out=run.held_out_loss(held_out),
            training=math.fsum(since) / len(since),
        )
        since.clear()
        losses.append(found)
        on_look(found)
        if not math.isfinite(found.held_out):
            raise TrainingError(f"the loss is no number any more after step {step}: lower --learning-rate")
        worse = 0 if found.held_out < best else worse + 1
        if found.held_out < best:
            best, best_step = found.held_out, step
            kept = {name: one.detach().to("cpu", copy=True) for name, one in get_peft_model_state_dict(model).items()}
        if worse >= options.patience:
            break
    if not best_step:
        raise TrainingError(
            f"no step was better than the base on what was held out (loss {best:.4f}): lower --learning-rate, or gather "
            "more conversations"
        )
    set_peft_model_state_dict(model, kept)
    _write(model, out)
    return Fitted(losses, best_step, sum(one.numel() for one in parameters))


@contextmanager
def enough_memory() -> Iterator[None]:
    """Say what helps where a device has too little memory.

    Raises:
        TrainingError: it ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the device has too little memory: lower --batch-size or --max-tokens, or say --gradient-checkpointing "
            "(--accumulate keeps the steps as large)"
        ) from error


def versions() -> dict[str, str]:
    """Return the versions of the packages that training depends on."""
    return {name: metadata.version(name) for name in _PACKAGES}


class _Run:
    """One model on one device, and what a batch of conversations costs it."""

    def __init__(self, model: Any, pad: int, device: Device, options: Options) -> None:
        self._model, self._pad, self._device, self._batch = model, pad, device, options.batch_size

    def gradients(self, window: Sequence[Encoded]) -> float:
        """Add up the gradients of one step and return its loss."""
        self._model.train()
        whole = _weight(window)
        total = 0.0
        for batch in _batched(window, self._batch):
            loss = self._loss(batch) / whole
            loss.backward()
            total += loss.item()
        return total

    def held_out_loss(self, examples: Sequence[Encoded]) -> float:
        """Return the weighted mean loss of an answer token."""
        self._model.eval()
        with torch.inference_mode():
            return math.fsum(self._loss(batch).item() for batch in _batched(examples, self._batch)) / _weight(examples)

    def _loss(self, batch: Sequence[Encoded]) -> Any:
        """The weighted sum over the answers' tokens of a batch."""
        length = max(len(one.tokens) for one in batch)
        tokens = torch.full((len(batch), length), self._pad)
        attended = torch.zeros((len(batch), length), dtype=torch.long)
        weights = torch.zeros((len(batch), length))
        for row, one in enumerate(batch):
            tokens[row, : len(one.tokens)] = torch.tensor(one.tokens)
            attended[row, : len(one.tokens)] = 1
            weights[row, one.answer_from : len(one.tokens)] = one.weight
        tokens, attended, weights = (each.to(self._device.name) for each in (tokens, attended, weights))
        with self._device.autocast:
            logits = self._model(input_ids=tokens, attention_mask=attended, use_cache=False).logits
        # Position i foretells token i + 1. Answers alone are taken to 32 bits: prompts are most of the tokens.
        learned = weights[:, 1:] > 0
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1][learned].float(), tokens[:, 1:][learned], reduction="none"
        )
        return (each * weights[:, 1:][learned]).sum()


def _windows(training: Sequence[Encoded], options: Options) -> Iterator[Sequence[Encoded]]:
    """Yield the conversations of every step, in an order of each epoch's own."""
    for epoch in range(options.epochs):
        order = list(training)
        random.Random(f"{options.seed}/{epoch}").shuffle(order)
        yield from _batched(order, options.batch_size * options.accumulate)


def _batched(examples: Sequence[Encoded], size: int) -> Iterator[Sequence[Encoded]]:
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


def _weight(examples: Sequence[Encoded]) -> float:
    return math.fsum(one.weight * one.answer_tokens for one in examples)


def _rate(step: int, steps: int, warmup: float) -> float:
    """The learning rate as a share of the highest: a rising line, then half a cosine to 0."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _lora(options: Options) -> LoraConfig:
    named = options.target_modules.split(",")
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=named[0] if named == ["all-linear"] else named,
        task_type="CAUSAL_LM",
    )


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id)


def _write(model: Any, out: Path) -> None:
    model.save_pretrained(out)
    # peft's own model card says nothing that training.json does not.
    (out / "README.md").unlink(missing_ok=True)
    (out / "adapter_model.safetensors").chmod(0o644)  # safetensors lets its owner alone read; inference is another user
    # Sets come in an order of their own in every process; where the base lay here is of no use elsewhere.
    config = json.loads((out / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = None
    config = {name: sorted(value) if isinstance(value, list) else value for name, value in sorted(config.items())}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
