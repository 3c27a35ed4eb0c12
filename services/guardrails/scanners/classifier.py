"""Any text classifier in ONNX, by path: the way to a model that is not shipped."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from services.guardrails.findings import Reference, Rule, Span

__all__ = ["ClassifierScanner"]

MAX_TOKENS = 512
"""Tokens of one window, special ones included, where the model does not say that it takes fewer."""
OVERLAP = 64
"""Tokens that a window shares with the one before it."""
WINDOWS_A_RUN = 4
"""Windows judged at once; the time budget is looked at in between."""
MAX_CACHED = 8
"""Models kept in memory."""
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_HARMLESS = frozenset(
    """safe benign neutral normal harmless clean ok okay none negative legit legitimate allowed allow pass ham human
    other acceptable appropriate nontoxic non-toxic non_toxic not_toxic no_injection not_injection nothate not-hate
    not_hate not_offensive non-offensive noninjection no""".split()
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FILES = ("model.onnx", "tokenizer.json", "config.json")


class ClassifierScanner:
    """Judges a text by the model in the folder that the rule names: `model.onnx`, `tokenizer.json` and `config.json`
    with `id2label`, as `optimum-cli export onnx --task text-classification` writes them.

    A find's kind is the label, its score the model's probability: by softmax, or by sigmoid for each label where
    `problem_type` is `multi_label_classification` or there is one label only. A long text is judged in windows of up to
    512 tokens that overlap by 64; each label counts where it is highest, and its find has that window's place. Labels
    that name the harmless case (SAFE, BENIGN, ..., the first of LABEL_0 and LABEL_1) are no finds, unless the rule's
    `kinds` ask for them.

    Models are kept in memory by path; a file that has changed is read again. `version` holds a short hash of every
    model file that was read.
    """

    name = "classifier"
    default_threshold = 0.5

    def __init__(self) -> None:
        self._models: dict[tuple[str, int, int], _Model] = {}
        self._lock = threading.Lock()
        self.version = "1"

    def check(self, rule: Rule) -> None:
        """Read the model. Raises ValueError, with the remedy, where a file is missing or does not fit."""
        self._model(rule.model)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        if not text.strip():
            return []
        model = self._model(rule.model)
        best: dict[str, Span] = {}
        for (start, end), scores in model.judge(text, reference):
            for label, score in zip(model.labels, scores, strict=True):
                wanted = label in rule.kinds if rule.kinds is not None else label not in model.harmless
                if wanted and (label not in best or score > best[label].score):
                    best[label] = Span(label, start, end, float(score))
        return [best[label] for label in model.labels if label in best]

    def _model(self, path: str | None) -> _Model:
        if not path:
            raise ValueError("needs model: the folder of an ONNX text classifier")
        key = _identity(Path(path))
        model = self._models.get(key)
        if model is None:
            with self._lock:
                model = self._models.get(key) or _Model.load(Path(path))
                for other in [k for k in self._models if k[0] == key[0]] or list(self._models)[: -MAX_CACHED + 1]:
                    del self._models[other]
                self._models[key] = model
                self.version = "+".join(["1", *sorted({each.digest for each in self._models.values()})])
        return model


def _identity(folder: Path) -> tuple[str, int, int]:
    """What changes when the model does, without reading it. Raises ValueError where there is none."""
    for name in _FILES:
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} does not exist: a model is a folder with {', '.join(_FILES)} "
                "(`optimum-cli export onnx --task text-classification --model NAME FOLDER` writes one)"
            )
    stats = [(folder / name).stat() for name in _FILES]
    return str(folder), max(stat.st_mtime_ns for stat in stats), sum(stat.st_size for stat in stats)


@dataclass(frozen=True, slots=True)
class _Model:
    session: Any
    tokenizer: Any
    inputs: tuple[str, ...]
    types: Mapping[str, type[np.signedinteger[Any]]]
    labels: tuple[str, ...]
    harmless: frozenset[str]
    sigmoid: bool
    pad: int
    digest: str

    @classmethod
    def load(cls, folder: Path) -> _Model:
        """Read a model's folder. Raises ValueError, with the remedy, where a file cannot be used."""
        config = _config(folder / "config.json")
        labels = _labels(config, folder)
        tokenizer = _tokenizer(folder / "tokenizer.json", config)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        raw = (folder / "model.onnx").read_bytes()
        try:
            # By path, since weights may lie in a file beside it.
            session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common class of its own
            raise ValueError(f"{folder / 'model.onnx'} cannot be run: {error}; export it again") from error
        inputs = {node.name: node for node in session.get_inputs()}
        if "input_ids" not in inputs or set(inputs) - _INPUTS:
            raise ValueError(
                f"{folder / 'model.onnx'} takes {', '.join(sorted(inputs))}: a text classifier takes input_ids and at most "
                "attention_mask and token_type_ids"
            )
        model = cls(
            session=session,
            tokenizer=tokenizer,
            inputs=tuple(inputs),
            types={name: np.int32 if "int32" in node.type else np.int64 for name, node in inputs.items()},
            labels=labels,
            harmless=_harmless(labels),
            sigmoid=config.get("problem_type") == "multi_label_classification" or len(labels) == 1,
            pad=int(config.get("pad_token_id") or 0),
            digest=hashlib.sha256(raw).hexdigest()[:8],
        )
        try:
            shape = model.run([tokenizer.encode("a")]).shape
        except Exception as error:  # as above: whatever the graph raises, the policy's author is to read it
            raise ValueError(
                f"{folder / 'model.onnx'} fails on a text of one letter: {error}; export it again"
            ) from error
        if shape != (1, len(labels)):
            raise ValueError(
                f"{folder / 'model.onnx'} gives logits of shape {shape} for one text, not (1, {len(labels)}): its head must "
                "be one of sequence classification, with as many labels as id2label in config.json"
            )
        return model

    def judge(self, text: str, reference: Reference) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.float64]]]:
        """((start, end), score of each label) of every window."""
        first = self.tokenizer.encode(_encodable(text))
        windows = [first, *first.overflowing]
        for begin in range(0, len(windows), WINDOWS_A_RUN):
            reference.checkpoint()
            run = windows[begin : begin + WINDOWS_A_RUN]
            for window, scores in zip(run, self._probabilities(self.run(run)), strict=True):
                yield _place(window, len(text)), scores

    def run(self, windows: Sequence[Any]) -> npt.NDArray[np.float64]:
        """Logits of shape (windows, labels)."""
        width = max(len(window.ids) for window in windows)
        feeds = {}
        for name in self.inputs:
            fill = self.pad if name == "input_ids" else 0
            rows = np.full((len(windows), width), fill, self.types[name])
            for row, window in zip(rows, windows, strict=True):
                values = {"input_ids": window.ids, "attention_mask": window.attention_mask}.get(name, window.type_ids)
                row[: len(values)] = values
            feeds[name] = rows
        return np.asarray(self.session.run(None, feeds)[0], np.float64)

    def _probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.sigmoid:
            return 1.0 / (1.0 + np.exp(-np.clip(logits, -60, 60)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; export the model again") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no JSON object: export the model again")
    if config.get("problem_type") == "regression":
        raise ValueError(f"{path} says that the model is a regression: only a classifier gives probabilities")
    return config


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    try:
        labels = tuple(str(named[key]) for key in sorted(named, key=int)) if isinstance(named, dict) else ()
        numbers = sorted(map(int, named)) if isinstance(named, dict) else []
    except (TypeError, ValueError):
        labels, numbers = (), []
    if not labels or numbers != list(range(len(labels))) or len(set(labels)) != len(labels):
        raise ValueError(
            f"{folder / 'config.json'} needs id2label: a name for each output from 0 on, as in "
            '{"0": "SAFE", "1": "INJECTION"}'
        )
    return labels


def _harmless(labels: Sequence[str]) -> frozenset[str]:
    if [label.upper() for label in labels] == ["LABEL_0", "LABEL_1"]:
        return frozenset(labels[:1])
    return frozenset(label for label in labels if label.lower().replace(" ", "_") in _HARMLESS)


def _tokenizer(path: Path, config: Mapping[str, Any]) -> Any:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises the bare class
        raise ValueError(f"{path} cannot be read: {error}; export the model again") from error
    tokenizer.no_padding()
    given = config.get("max_position_embeddings")
    # RoBERTa and its kind count positions from pad_token_id + 1.
    offset = int(config.get("pad_token_id") or 0) + 1 if "roberta" in str(config.get("model_type", "")) else 0
    size = min(MAX_TOKENS, int(given) - offset) if isinstance(given, int) and given > offset else MAX_TOKENS
    spare = size - tokenizer.num_special_tokens_to_add(False)
    if spare < 1:
        raise ValueError(
            f"{path}: the model takes {size} tokens, which leaves no room for text: see max_position_embeddings"
        )
    tokenizer.enable_truncation(size, stride=min(OVERLAP, spare // 2))
    return tokenizer


def _place(window: Any, length: int) -> tuple[int, int]:
    """Code points of the text that a window covers; the whole text where none of its tokens stands in it."""
    places = [place for place, special in zip(window.offsets, window.special_tokens_mask, strict=True) if not special]
    places = [place for place in places if place[1] > place[0]]
    return (min(start for start, _ in places), max(end for _, end in places)) if places else (0, length)


def _encodable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot carry, replaced; places stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
