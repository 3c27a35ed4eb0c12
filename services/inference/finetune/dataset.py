"""The dataset of an adapter: what `penstock feedback export --format conversations` wrote, checked against its manifest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from penstock.contracts.records import Context, GroundedRequest, LogRange, Message, Passage

from services.inference.finetune.personal import personal_data
from services.inference.prompt import prompt_of

__all__ = [
    "CONVERSATIONS",
    "Conversation",
    "Dataset",
    "DatasetError",
    "Example",
    "Split",
    "chosen",
    "read_dataset",
    "split",
]

CONVERSATIONS = "conversations.jsonl"
_FORMAT = "conversations"


class DatasetError(Exception):
    """A dataset cannot be used; the message names the file, the cause and the remedy."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the file: a request that people rated.

    Attributes:
        messages: what was asked, as guardrails left it.
        passages: evidence that it was answered from.
        answer: what the model should say: a person's correction, or the released answer.
        rating: mean rating of the released answer, 0 to 1; None where only a correction was given.
        corrected: whether the answer is a correction.
    """

    team: str
    request_id: str
    conversation_id: str | None = None
    messages: list[Message]
    passages: list[Passage] = []
    answer: str
    rating: float | None = None
    corrected: bool = False

    @property
    def unit(self) -> str:
        """What stays on one side of the split: the conversation, of a request without one the request itself."""
        return f"{self.team}/{self.conversation_id or self.request_id}"

    @property
    def prompt(self) -> list[dict[str, str]]:
        """The conversation as the model was sent it, with its evidence; as OpenAI's chat API writes it."""
        request = GroundedRequest(
            event_id="", request_id=self.request_id, tenant_id=self.team, occurred_at=_NO_TIME, causation_id="",
            context=Context(requested_at=_NO_TIME), messages=self.messages, passages=self.passages,
        )  # fmt: skip
        return [{"role": each.role, "content": each.content} for each in prompt_of(request).messages]


_NO_TIME = datetime.fromtimestamp(0, UTC)


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What this reads of an export's manifest."""

    format: str
    rows: int
    sha256: str
    log: list[LogRange]
    parquet_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset, as its manifest describes it.

    Attributes:
        name: of its folder.
        version: SHA-256 of the manifest, hexadecimal: names rows, topic offsets and choices alike.
        sha256: of the file of its rows.
        log: the topic offsets that it was made of.
    """

    name: str
    version: str
    sha256: str
    log: Sequence[LogRange]
    rows: Sequence[Conversation]


def read_dataset(path: Path) -> Dataset:
    """Read a dataset: a folder with ``conversations.jsonl``, or such a file itself, with its manifest beside it.

    Raises:
        DatasetError: files are missing, or are not as the manifest says.
    """
    file = path / CONVERSATIONS if path.is_dir() else path
    manifest_file = Path(f"{file}.manifest.json")
    try:
        content, described = file.read_bytes(), manifest_file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{error.filename}: {error.strerror}; write both with `penstock finetune export`") from error
    try:
        manifest = msgspec.json.decode(described, type=_Manifest)
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{manifest_file} is no manifest of an export: {error}") from error
    if manifest.format != _FORMAT:
        raise DatasetError(
            f"{file} holds {manifest.format}, not conversations: write it with `penstock finetune export`"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise DatasetError(
            f"{file} is not what its manifest describes (sha256 {digest[:16]}, there {manifest.sha256[:16]}): it was "
            "changed after the export; make it again with `penstock feedback export --like`"
        )
    rows = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append(msgspec.json.decode(line, type=Conversation))
            except msgspec.MsgspecError as error:
                raise DatasetError(f"{file}:{number} is no conversation: {error}") from error
    name = file.resolve().parent.name or _FORMAT
    return Dataset(name, hashlib.sha256(described).hexdigest(), digest, manifest.log, rows)


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that is learned from, and how much it counts."""

    conversation: Conversation
    weight: float


@dataclass(frozen=True, slots=True)
class Split:
    """What is learned from, and what is held out to tell whether it helps: no conversation is on both sides."""

    training: Sequence[Example]
    held_out: Sequence[Example]


def chosen(
    rows: Sequence[Conversation], *, min_rating: float, weights: Literal["rating", "equal"], personal: bool = False
) -> tuple[list[Example], Mapping[str, int]]:
    """Return the rows that a model should learn from, and how many are left out, by the reason.

    Args:
        rows: of the dataset.
        min_rating: mean rating from which a released answer is good enough, 0 to 1. Corrections count whatever the
            rating of what they correct.
        weights: rating: an answer counts as much as its rating, a correction 1; equal: all count alike.
        personal: whether conversations with what looks like personal data are kept.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        rating = 1.0 if row.corrected else row.rating or 0.0
        if rating < min_rating:
            left_out[f"rated below {min_rating:g}"] += 1
        elif not row.answer.strip() or not row.messages:
            left_out["nothing asked or answered"] += 1
        elif not personal and (found := personal_data([*(each.content for each in row.messages), row.answer])):
            left_out[f"holds what looks like {found}"] += 1
        elif (weight := rating if weights == "rating" else 1.0) > 0:
            examples.append(Example(row, weight))
        else:
            left_out["weighs nothing"] += 1
    return examples, dict(sorted(left_out.items()))


def split(examples: Sequence[Example], *, share: float, seed: int) -> Split:
    """Hold a share of the conversations out, the first in the order of a hash of the seed and their identity.

    Datasets that have conversations in common hold out much the same ones, whatever the order of their rows.

    Args:
        share: of the conversations, more than 0 and less than 1; at least one is held out, and one is not.

    Raises:
        DatasetError: there are fewer than two conversations.
    """
    units = sorted({each.conversation.unit for each in examples}, key=lambda unit: _drawn(unit, seed))
    if len(units) < 2:
        raise DatasetError(
            f"{len(units)} conversations are left to learn from, and it takes two, one of them to tell whether it helped: "
            "export more, or lower --min-rating"
        )
    held = set(units[: min(max(1, round(share * len(units))), len(units) - 1)])
    return Split(
        [each for each in examples if each.conversation.unit not in held],
        [each for each in examples if each.conversation.unit in held],
    )


def _drawn(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{unit}".encode()).digest()
