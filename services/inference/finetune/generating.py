"""Answers of a base model and of its adapter to the same questions, without an engine, in the engine's environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
from jinja2 import TemplateError
from peft import PeftModel

from services.inference.finetune.golden import Answer, Question
from services.inference.finetune.training import Device, TrainingError, base_of, tokenizer_of

__all__ = ["Answering"]


class Answering:
    """A base model with an adapter that can be left out.

    Both answer greedily, whatever temperature a case names: what differs between them is then the adapter and not chance.
    """

    def __init__(
        self, base: Path, adapter: Path, device: Device, digests: tuple[str, str], *, batch_size: int = 8
    ) -> None:
        """Load both.

        Args:
            base: folder of the base model.
            adapter: folder of the adapter.
            device: where they run.
            digests: of the weights of both, which answers name.
            batch_size: questions that are answered at once.

        Raises:
            TrainingError: one of the folders does not hold what it should, or the adapter is of another model.
        """
        self._tokenizer = tokenizer_of(base)
        self._tokenizer.padding_side = "left"
        self._device, self._batch = device, batch_size
        self._digests = digests
        try:
            self._model = PeftModel.from_pretrained(base_of(base, device), adapter)
        except (OSError, ValueError, RuntimeError) as error:
            raise TrainingError(
                f"{adapter} is no adapter of {base}: {str(error).partition(chr(10))[0][:300]}"
            ) from error
        self._model.eval()

    def answers(
        self, questions: Sequence[Question], *, adapted: bool, max_tokens: int, on_answer: Callable[[], None]
    ) -> list[Answer]:
        """Answer questions in their order. Answers name the digest of the weights that gave them.

        Args:
            questions: of a golden set.
            adapted: whether with the adapter.
            max_tokens: most tokens of an answer to a question that names no bound itself.
            on_answer: is called after each.
        """
        found: dict[str, Answer] = {}
        # Alike in length, so that a batch is not padded to its one long prompt.
        prompts = {one.case: self._prompt(one) for one in questions}
        ordered = sorted(questions, key=lambda one: (one.max_tokens or max_tokens, len(prompts[one.case])))
        off: AbstractContextManager[Any] = nullcontext() if adapted else self._model.disable_adapter()
        with torch.inference_mode(), off, self._device.autocast:
            for bound, batch in self._batches(ordered, max_tokens):
                for one, answer in zip(batch, self._generated(batch, prompts, bound), strict=True):
                    found[one.case] = msgspec.structs.replace(answer, model=self._digests[adapted])
                    on_answer()
        return [found[one.case] for one in questions]

    def _prompt(self, question: Question) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(question.messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise TrainingError(f"case {question.case!r}: the model's chat template refuses it: {error}") from error
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _batches(self, ordered: Sequence[Question], max_tokens: int) -> Iterator[tuple[int, list[Question]]]:
        batch: list[Question] = []
        for one in ordered:
            if batch and (
                len(batch) == self._batch or (one.max_tokens or max_tokens) != (batch[0].max_tokens or max_tokens)
            ):
                yield batch[0].max_tokens or max_tokens, batch
                batch = []
            batch.append(one)
        if batch:
            yield batch[0].max_tokens or max_tokens, batch

    def _generated(self, batch: Sequence[Question], prompts: dict[str, list[int]], bound: int) -> Iterator[Answer]:
        padded = self._tokenizer.pad({"input_ids": [prompts[one.case] for one in batch]}, return_tensors="pt")
        padded = padded.to(self._device.name)
        made = self._model.generate(
            **padded, max_new_tokens=bound, do_sample=False, pad_token_id=self._tokenizer.pad_token_id,
            temperature=None, top_p=None, top_k=None,
        )  # fmt: skip
        for one, tokens in zip(batch, made[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
            yield self._answer(one, tokens, len(prompts[one.case]))

    def _answer(self, question: Question, tokens: list[int], prompted: int) -> Answer:
        ends = self._model.generation_config.eos_token_id
        stopping = {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
        length = next((at for at, token in enumerate(tokens) if token in stopping), None)
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        cut = min((at for stop in question.stop if (at := text.find(stop)) >= 0), default=None)
        return Answer(
            case=question.case,
            version=question.version,
            answer=text[:cut].strip(),
            model="",
            finish_reason="length" if length is None and cut is None else "stop",
            input_tokens=prompted,
            output_tokens=len(tokens) if length is None else length + 1,
        )
