"""The shipped classifier: reads texts, scores features, says which words and which categories of abuse they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from penstock.embedding import Embedder

from services.evaluation.toxicity.features import (
    DIMENSION,
    SLOTS,
    Features,
    dequantised,
    hashed,
    quantised,
)
from services.evaluation.toxicity.heads import CATEGORIES, Categories, Experts, Head, sigmoid
from services.evaluation.toxicity.lexicon import MODELS, Lexicon
from services.evaluation.toxicity.reading import Piece, read
from services.evaluation.toxicity.weights import Weights, WeightsError

__all__ = ["CATEGORIES", "Mode", "Scored", "ToxicityModel"]

Mode = Literal["hashed", "cascade", "embedded"]
"""Which texts are embedded: none; those whose hashed features leave it open; all."""

_PIECES_EMBEDDED = 3
"""Of a long text only the pieces that its hashed features say are the worst are embedded."""
_BLOCK = 256
_TOP_WORDS = 5
_LEAST_SHARE = 0.05


class Scored(msgspec.Struct, frozen=True):
    """What the model says of a text.

    Attributes:
        score: probability that the text is toxic, from 0 to 1.
        label: ``toxic`` from the model's threshold, else ``clean``.
        categories: probability of each of :data:`CATEGORIES`, not above ``score``.
        features: the words that moved the score up most, with what each adds to its log-odds; empty where the text is clean
            or its words are not known.
    """

    score: float
    label: str
    categories: dict[str, float] = {}
    features: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class ToxicityModel:
    """Experts for texts that are embedded and for texts that are not, and one head a category.

    Attributes:
        version: of the shipped weights.
        embedder_name: the embedder whose vectors the weights are for.
        lexicon: the words.
        embedded: experts of embedded texts.
        plain: experts of the others; they also find the worst pieces of a long text.
        categories: heads of the categories.
        threshold: score from which a text counts as toxic.
        band: scores of ``plain`` between which a cascade embeds a text.
    """

    version: str
    embedder_name: str
    lexicon: Lexicon
    embedded: Experts
    plain: Experts
    categories: Categories
    threshold: float = 0.5
    band: tuple[float, float] = (0.02, 0.98)
    _learned: dict[str, tuple[Weights, Head]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: Path = MODELS) -> ToxicityModel:
        """Read ``toxicity_model.npz`` (plain arrays, no pickle), ``toxicity_model.json`` and the lexicon.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the arrays do not fit this code.
        """
        metadata = json.loads((folder / "toxicity_model.json").read_text("utf-8"))
        with np.load(folder / "toxicity_model.npz", allow_pickle=False) as arrays:
            tables = arrays["sparse"].astype(np.float32) * arrays["scales"].astype(np.float32)[:, None]
            dense = arrays["dense"].astype(np.float32)
            biases = arrays["biases"].tolist()
        expected = (6 + len(CATEGORIES), SLOTS)
        if tables.shape != expected or dense.shape != (expected[0], DIMENSION) or len(biases) != expected[0]:
            raise ValueError(f"toxicity_model.npz has tables of shape {tables.shape}, not {expected}: train it again")
        heads = [Head(*parts) for parts in zip(tables, dense, biases, strict=True)]
        return cls(
            version=metadata["version"],
            embedder_name=metadata["embedder"],
            lexicon=Lexicon.load(folder),
            embedded=Experts(*heads[:3]),
            plain=Experts(*heads[3:6]),
            categories=Categories.of(heads[6:]),
            threshold=metadata["threshold"],
            band=(metadata["band"][0], metadata["band"][1]),
        )

    def featurise(
        self,
        texts: Sequence[str],
        embedder: Embedder | None = None,
        weights: Weights | None = None,
        mode: Mode = "embedded",
    ) -> list[Features]:
        """Return the features of each text: of its worst piece under ``weights`` where it has several.

        Args:
            texts: raw texts.
            embedder: the embedder whose vectors the model is for; needed unless ``mode`` is ``hashed``.
            weights: what was learned; ``None`` is the shipped model.
            mode: which texts are embedded.

        Raises:
            ValueError: the embedder is missing, or another one.
            EmbedderUnavailable: the embedder is away for now.
            EmbedderError: it cannot embed this.
        """
        if mode != "hashed" and (embedder is None or embedder.name != self.embedder_name):
            given = "none" if embedder is None else embedder.name
            raise ValueError(
                f"the toxicity model reads embeddings of {self.embedder_name}, the embedder is {given}: "
                "unset EMBEDDING_BASE_URL, or set the mode to hashed"
            )
        found: list[Features] = []
        for first in range(0, len(texts), _BLOCK):
            pieces = [read(text, self.lexicon) for text in texts[first : first + _BLOCK]]
            found += self._block(pieces, embedder if mode != "hashed" else None, weights, mode)
        return found

    def score(self, features: Features, weights: Weights | None = None) -> Scored:
        """Return what the model, with ``weights`` added where something was learned, says of a text's features.

        Raises:
            WeightsError: the weights are for another shipped model.
        """
        return self.scores([features], weights)[0]

    def scores(self, features: Sequence[Features], weights: Weights | None = None) -> list[Scored]:
        """Return :meth:`score` of each; faster together."""
        return [self._scored(each, self.margin(each, weights), weights) for each in features]

    def margin(self, features: Features, weights: Weights | None = None) -> float:
        """Return the log-odds that a text is toxic."""
        margin = self.experts(features).margin(features)
        learned = self._added(weights)
        return margin if learned is None else margin + learned.margin(features)

    def experts(self, features: Features) -> Experts:
        """Return the shipped experts that score these features."""
        return self.embedded if features.embedding else self.plain

    def _added(self, weights: Weights | None) -> Head | None:
        """Return what was learned as a head whose log-odds are added to the shipped ones."""
        if weights is None or not weights.updates:
            return None
        known = self._learned.get("last")
        if known is None or (known[0] is not weights and known[0] != weights):
            if weights.base != self.version:
                raise WeightsError(
                    f"weights learned on toxicity model {weights.base} do not fit the shipped {self.version}: "
                    "start a new challenger, or go back to the release they were learned on"
                )
            slots, deltas = weights.sparse()
            table = np.zeros(SLOTS, np.float32)
            table[slots] = deltas
            known = self._learned["last"] = (weights, Head(table, weights.embedding(), weights.bias))
        return known[1]

    def _block(
        self, texts: list[list[Piece]], embedder: Embedder | None, weights: Weights | None, mode: Mode
    ) -> list[Features]:
        """Return the features of the worst piece of each text."""
        flat = [piece for pieces in texts for piece in pieces]
        sparse = hashed(flat)
        learned = self._added(weights)
        moved = 0 if learned is None else learned.margins(sparse)
        margins = self.plain.margins(sparse) + moved
        chosen: list[list[int]] = []
        start = 0
        for pieces in texts:
            worst = sorted(range(start, start + len(pieces)), key=lambda place: -margins[place])
            chosen.append(worst[:_PIECES_EMBEDDED])
            start += len(pieces)
        vectors: dict[int, bytes] = {}
        if embedder is not None:
            least, most = (float(np.log(share / (1 - share))) for share in self.band)
            asked = [
                place
                for places in chosen
                if mode == "embedded" or least < margins[places[0]] < most
                for place in places
                if flat[place]
            ]
            if asked:
                # One call a text: the same text has the same vector to the last bit, whatever it is read together with.
                codes = np.concatenate([quantised(embedder.embed([_written(flat[place])])) for place in asked])
                read_back = dequantised(codes)
                full = self.embedded.margins(sparse, read_back, asked) + moved
                if learned is not None:
                    full[asked] += read_back @ learned.dense
                vectors = dict(zip(asked, (row.tobytes() for row in codes), strict=True))
                chosen = [
                    [max(places, key=lambda place: full[place])] if places[0] in vectors else places
                    for places in chosen
                ]
        families = sparse.families()
        return [
            Features(*families[places[0]], vectors.get(places[0], b""), tuple(word.surface for word in flat[places[0]]))
            for places in chosen
        ]

    def _scored(self, features: Features, margin: float, weights: Weights | None) -> Scored:
        score = sigmoid(margin)
        toxic = score >= self.threshold
        explained = self.explain(features, weights) if toxic and features.surfaces else {}
        return Scored(score, "toxic" if toxic else "clean", self.categories.chances(features, score), explained)

    def explain(self, features: Features, weights: Weights | None = None) -> dict[str, float]:
        """Return the words without which the log-odds would be lower, by how much, the strongest first, five at most.

        Each word is left out in turn; what the embedding says stays as it is, since a vector has no words. Empty where the
        features have come without their words.
        """
        piece = tuple(word for surface in features.surfaces for word in self.lexicon.words(surface))
        if not piece:
            return {}
        places: dict[str, list[int]] = {}
        for place, word in enumerate(piece):
            if word.surface.isalnum() or len(word.surface) > 1:
                places.setdefault(word.surface, []).append(place)
        names = list(places)
        without = [tuple(word for place, word in enumerate(piece) if place not in places[name]) for name in names]
        experts, learned = self.experts(features), self._added(weights)
        share = experts.share(features)
        sparse = hashed([piece, *without])
        margins = (1 - share) * sparse.margins(experts.general.sparse) + share * sparse.margins(experts.tweets.sparse)
        if learned is not None:
            margins = margins + sparse.margins(learned.sparse)
        shares = sorted(
            ((float(margins[0] - margin), name) for margin, name in zip(margins[1:], names, strict=True)), reverse=True
        )
        return {name: round(share, 4) for share, name in shares[:_TOP_WORDS] if share >= _LEAST_SHARE}


def _written(piece: Piece) -> str:
    return " ".join(word.text for word in piece)
