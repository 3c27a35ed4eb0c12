"""Named entities by a spaCy model, where one is installed and a rule asks for it."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CHUNK_CHARS = 2_000
"""Characters that the model sees at once: 50 ms of work, after which the time budget is asked."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What the model calls `start` to `end`: PERSON, ORG, GPE and the other labels of its scheme."""

    label: str
    start: int
    end: int


class NamedEntities:
    """Models by package name, each loaded once, when first used (a second and some 80 MB for a small one)."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._loading = threading.Lock()
        self._using = threading.Lock()

    def check(self, package: str) -> None:
        """Load the model. Raises ValueError naming what is missing and the remedy."""
        self._model(package)

    def find(self, package: str, text: str, checkpoint: Callable[[], None]) -> list[Entity]:
        """Entities in order of place. Raises ValueError as `check` does, and whatever `checkpoint` raises."""
        model = self._model(package)
        found = []
        for start, end in _chunks(text):
            checkpoint()
            # The model's vocabulary would otherwise keep every new word that it is shown; a zone is no thread's own.
            with self._using, model.memory_zone():
                found += [
                    Entity(entity.label_, start + entity.start_char, start + entity.end_char)
                    for entity in model(text[start:end]).ents
                ]
        return found

    def _model(self, package: str) -> Any:
        module = package.replace("-", "_")
        with self._loading:
            if module not in self._models:
                self._models[module] = _load(package, module)
            return self._models[module]


def _load(package: str, module: str) -> Any:
    if importlib.util.find_spec("spacy") is None:
        raise ValueError(f"ner: {package!r} needs spaCy: pip install spacy, or leave ner out of the rule")
    if not module.isidentifier() or importlib.util.find_spec(module) is None:
        raise ValueError(
            f"ner: the spaCy model {package!r} is not installed: pip install {package.replace('_', '-')} "
            "(requirements/ner.txt has the one that is tested), or leave ner out of the rule"
        )
    import spacy

    try:
        model = spacy.load(module)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"ner: {package!r} is no spaCy model that this spaCy loads: {error}") from error
    if "ner" not in model.pipe_names:
        raise ValueError(f"ner: the spaCy model {package!r} finds no named entities: it has no ner component")
    for name, pipe in list(model.pipeline):
        # What embeds the words for ner is needed; a model whose ner has its own embedding does not need the shared one.
        if name != "ner" and "ner" not in getattr(pipe, "listening_components", ()):
            model.remove_pipe(name)
    return model


def _chunks(text: str) -> Iterator[tuple[int, int]]:
    """Parts of at most CHUNK_CHARS, ended after a line, a sentence or a word where one ends in the second half."""
    start = 0
    while start < len(text):
        end = min(len(text), start + CHUNK_CHARS)
        if end < len(text):
            middle = start + CHUNK_CHARS // 2
            ends = (text.rfind(mark, middle, end) + len(mark) for mark in ("\n", ". ", " "))
            end = next((place for place in ends if place > middle), end)
        yield start, end
        start = end
