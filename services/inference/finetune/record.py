"""What is known of an adapter: ``training.json`` and ``evaluation.json`` in its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import msgspec
from penstock.contracts.records import LogRange

__all__ = [
    "EVALUATION", "TRAINING", "Evaluated", "Loss", "Options", "RecordError", "Trained", "TrainedOn", "base_digest",
    "read_evaluation", "read_training", "write_record",
]  # fmt: skip

TRAINING, EVALUATION = "training.json", "evaluation.json"
_Record = TypeVar("_Record")


class RecordError(Exception):
    """An adapter's folder does not hold what is needed; the message names the remedy."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How an adapter is trained.

    Attributes:
        rank: of the two matrices that stand for the change of each weight matrix.
        alpha: the change is scaled by alpha / rank.
        dropout: share of the adapter's inputs that is dropped while it learns.
        target_modules: names of the layers that are adapted, or all-linear: every linear layer but the last.
        learning_rate: highest, after the warm-up; it falls to 0 along a cosine.
        warmup: share of the steps in which the rate rises.
        epochs: most passes over the data.
        batch_size: conversations on the device at once.
        accumulate: batches that make one step.
        max_tokens: longest conversation, prompt and answer.
        evaluate_steps: steps between two looks at the held-out loss; None for one an epoch.
        patience: looks without a better loss after which training ends.
        min_rating, weights, held_out: as of :func:`services.inference.finetune.dataset.chosen` and ``split``.
        gradient_checkpointing: whether activations are computed again rather than kept: less memory, more time.
        seed: of the split, the order, the initial weights and the dropout.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    target_modules: str = "all-linear"
    learning_rate: float = 2e-4
    warmup: float = 0.05
    epochs: int = 3
    batch_size: int = 4
    accumulate: int = 4
    max_tokens: int = 2048
    evaluate_steps: int | None = None
    patience: int = 2
    min_rating: float = 0.75
    weights: str = "rating"
    held_out: float = 0.1
    gradient_checkpointing: bool = False
    seed: int = 0


class TrainedOn(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset of an adapter.

    Attributes:
        version: SHA-256 of its manifest.
        sha256: of the file of its rows.
        rows: conversations that were learned from.
        held_out: conversations that were held out.
        left_out: conversations that were not used, by the reason.
        log: topic offsets that the dataset was made of.
    """

    name: str
    version: str
    sha256: str
    rows: int
    held_out: int
    left_out: dict[str, int]
    log: list[LogRange]


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cross-entropy of a token of the answers, nats, weighted; ``training`` is that since the last look."""

    step: int
    epoch: float
    held_out: float
    training: float | None = None


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """How an adapter came about.

    Attributes:
        base_model: name of the base model.
        base_sha256: see :func:`base_digest`.
        adapter_sha256: of ``adapter_model.safetensors``.
        best_step: step whose weights were kept: those with the least held-out loss. The first loss is of the base itself.
        device, dtype: what it was trained on and in.
        versions: of the packages.
    """

    base_model: str
    base_sha256: str
    adapter_sha256: str
    dataset: TrainedOn
    options: Options
    best_step: int
    losses: list[Loss]
    parameters: int
    device: str
    dtype: str
    versions: dict[str, str]
    seconds: float

    @property
    def base_loss(self) -> float:
        """Held-out loss of the base model."""
        return self.losses[0].held_out

    @property
    def loss(self) -> float:
        """Held-out loss of the adapter."""
        return next(one.held_out for one in self.losses if one.step == self.best_step)


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What a golden set says of an adapter beside its base.

    Attributes:
        adapter_sha256: of the weights that answered.
        golden: name of the set.
        version: its version.
        cases: that both answered.
        ok: whether nothing became worse beyond noise, by the set's own rules.
        problems: what did, in words.
        figures: means by name: ``golden.token_f1`` of the adapter, ``base.token_f1`` of the base.
    """

    adapter_sha256: str
    golden: str
    version: str
    cases: int
    ok: bool
    problems: list[str]
    figures: dict[str, float]


def base_digest(folder: Path) -> str:
    """Return the digest of a base model: SHA-256 over names and SHA-256 of its config, tokenizer and safetensors files.

    Raises:
        RecordError: the folder holds no model in safetensors.
    """
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer*.json"), *folder.glob("config.json")])
    if not any(file.suffix == ".safetensors" for file in files) or not (folder / "config.json").exists():
        raise RecordError(
            f"{folder} holds no model: give a folder of transformers with config.json and *.safetensors (other formats may "
            "run code when they are loaded)"
        )
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def write_record(folder: Path, name: str, record: msgspec.Struct) -> None:
    """Write a record into an adapter's folder, whole or not at all."""
    part = folder / f".{name}.part"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    part.replace(folder / name)


def read_training(folder: Path) -> Trained:
    """Read how an adapter came about.

    Raises:
        RecordError: the folder holds no adapter that `penstock finetune train` made.
    """
    return _read(folder / TRAINING, Trained, "train it with `penstock finetune train`")


def read_evaluation(folder: Path) -> Evaluated:
    """Read what a golden set says of an adapter.

    Raises:
        RecordError: it was not evaluated.
    """
    return _read(folder / EVALUATION, Evaluated, "evaluate it with `penstock finetune evaluate`")


def _read(path: Path, kind: type[_Record], remedy: str) -> _Record:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; {remedy}") from error
    except msgspec.MsgspecError as error:
        raise RecordError(f"{path} is damaged ({error}); {remedy}") from error
