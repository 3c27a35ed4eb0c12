"""Prompt injection and jailbreaks: normalisation, rules and trained classifiers, put together by their log odds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.ciphers import Lexicon, rewritten
from services.guardrails.scanners.convolution import ConvolutionModel
from services.guardrails.scanners.encodings import decoded_variants
from services.guardrails.scanners.injection_rules import strongest_rule
from services.guardrails.scanners.ngrams import LinearNgramModel
from services.guardrails.scanners.normalise import canonical
from services.guardrails.scanners.segments import sentences, unwrapped, windows
from services.guardrails.scanners.static_embedding import StaticEmbedding, shared_static_embedding, words

CHUNK = 4000
"""Characters the prompt classifier reads at once, as in training."""
STEP = 3000
WINDOW = 350
"""Characters of the windows of a longer prompt that are judged for themselves, so that a long harmless text does not
hide an attack.
"""
MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True, slots=True)
class Mix:
    """How the log odds of a text come about; all constants are fitted by `models/train_injection.py`.

    margin = ngrams * (log odds of the n-grams) + convolution * (log odds of the network) + rule * (log odds of the
    surest rule) - threshold. A window of a longer text has `window` less, a text that was encoded `hidden` more.
    """

    ngrams: float
    convolution: float
    rule: float
    window: float
    hidden: float
    threshold: float


class InjectionClassifier:
    """Log odds, shifted so that 0 is the operating point, that a canonical text is an attack."""

    def __init__(
        self, ngrams: LinearNgramModel, convolution: ConvolutionModel | None, embedding: StaticEmbedding, mix: Mix
    ) -> None:
        self.ngram_model, self.network, self.mix = ngrams, convolution, mix
        self._embedding = embedding
        self.version = f"{ngrams.metadata['name']}-{ngrams.metadata['version']}"

    @classmethod
    def load(cls, path: Path) -> "InjectionClassifier":
        """Read `<path>.npz`, `<path>.json` and, where the classifier has a network, `<path>_convolution.npz`.

        Raises ValueError, naming the file and the remedy, where they do not belong together.
        """
        embedding = shared_static_embedding()
        ngrams = LinearNgramModel.load(path)
        network = path.with_name(f"{path.name}_convolution.npz")
        mix = Mix(**{name: float(value) for name, value in ngrams.metadata["mix"].items()})
        convolution = ConvolutionModel.load(network, embedding_table(embedding)) if mix.convolution else None
        return cls(ngrams, convolution, embedding, mix)

    def mixed(self, mix: Mix) -> "InjectionClassifier":
        """The same models, mixed otherwise."""
        return InjectionClassifier(self.ngram_model, self.network, self._embedding, mix)

    def learned(self, folded: str) -> float:
        """Log odds without rules; minus infinity for a text without words."""
        margin = self.ngram_model.margin(folded)
        if margin == -math.inf:
            return margin
        margin *= self.mix.ngrams
        if self.network is not None:
            rows = np.array(self._embedding.rows(words(folded)), dtype=np.int64)
            margin += self.mix.convolution * self.network.margin(rows)
        return margin - self.mix.threshold

    def ruled(self, strength: float) -> float:
        """What a rule of a strength from 0 to below 1 adds."""
        return self.mix.rule * math.log(strength / (1 - strength)) if strength > 0.5 else 0.0


class InjectionScanner:
    """Judges a prompt as a whole and window by window (`by_sentence=False`), or a document sentence by sentence; the
    highest score counts.

    A hidden reading (base64, tag characters, letters set apart, ...) is judged like the text itself, and its find names
    the trick. Scores are probabilities with 0.5 as the operating point that cross-validation gave; they are never 1, so
    that finds stay in order.
    """

    name = "injection"
    default_threshold = 0.5

    def __init__(self, classifier: InjectionClassifier, lexicon: Lexicon, by_sentence: bool) -> None:
        self._classifier = classifier
        self._lexicon = lexicon
        self._by_sentence = by_sentence
        self.version = f"2+{classifier.version}"

    @classmethod
    def for_prompts(cls, models: Path = MODELS) -> "InjectionScanner":
        return cls(InjectionClassifier.load(models / "injection_prompt"), shared_lexicon(), by_sentence=False)

    @classmethod
    def for_documents(cls, models: Path = MODELS) -> "InjectionScanner":
        return cls(InjectionClassifier.load(models / "injection_document"), shared_lexicon(), by_sentence=True)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        """One span: that of the surest piece or hidden reading, or none for a text without words."""
        kind, start, end, margin = self.judge(text)
        return [Span(kind, start, end, probability(margin))] if margin > -math.inf and start < end else []

    def judge(self, text: str) -> tuple[str, int, int, float]:
        """Kind, place and log odds (0 the operating point, minus infinity without words) of the surest piece."""
        kind, start, end, margin = self._surest(text)
        for variant in decoded_variants(text):
            hidden_kind, _, _, hidden = self._surest(variant.text)
            hidden += self._classifier.mix.hidden
            if hidden > margin:
                kind, start, end, margin = f"{hidden_kind}:{variant.trick}", variant.start, variant.end, hidden
        return kind, start, end, margin

    def _surest(self, text: str) -> tuple[str, int, int, float]:
        """Kind, place and log odds of the piece of `text` with the highest."""
        best = ("PROMPT_INJECTION", 0, len(text), -math.inf)
        for start, end in self._pieces(text):
            folded = canonical(text[start:end])
            for reading, trick in ((folded, ""), *rewritten(folded, self._lexicon)):
                kind, margin = self._judge(reading)
                if margin > best[3]:
                    best = (f"{kind}:{trick}" if trick else kind, start, end, margin)
            if not self._by_sentence and end - start > 2 * WINDOW:
                for first, last in windows(text[start:end], WINDOW):
                    margin = self._classifier.learned(canonical(text[start + first : start + last]))
                    margin -= self._classifier.mix.window
                    if margin > best[3]:
                        best = ("PROMPT_INJECTION", start + first, start + last, margin)
        return best

    def _pieces(self, text: str) -> Iterator[tuple[int, int]]:
        if self._by_sentence:
            yield from sentences(text)
        elif text:
            last = max(1, len(text) - CHUNK + STEP)
            yield from ((start, min(len(text), start + CHUNK)) for start in range(0, last, STEP))

    def _judge(self, folded: str) -> tuple[str, float]:
        """Kind and log odds of a canonical text. A sentence of one or two words is a heading, not an instruction."""
        kind, strength = strongest_rule(unwrapped(folded))
        if self._by_sentence and folded.count(" ") < 2 and folded.isascii():
            return kind or "PROMPT_INJECTION", -math.inf
        return kind or "PROMPT_INJECTION", self._classifier.learned(folded) + self._classifier.ruled(strength)


def embedding_table(embedding: StaticEmbedding) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The vectors at a median length of 1, as the networks are trained on."""
    table = embedding.table
    return np.asarray(table / np.median(np.sqrt((table * table).sum(axis=1))), dtype=np.float32)


def shared_lexicon() -> Lexicon:
    """The words of the static vectors' vocabulary."""
    return Lexicon(shared_static_embedding().pieces)


def probability(margin: float) -> float:
    """Logistic function, kept off 0 and 1 so that no two margins of practice give the same score."""
    bounded = max(-30.0, min(30.0, margin))
    return 1.0 / (1.0 + math.exp(-bounded))
