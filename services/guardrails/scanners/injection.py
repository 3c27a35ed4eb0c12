"""Prompt injection and jailbreaks: normalisation, rules and trained classifiers, put together by their log odds."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from penstock.embedding.static import StaticEmbedding, shared_static_embedding, words
from penstock.text.normalise import canonical

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.ciphers import Lexicon, rewritten
from services.guardrails.scanners.convolution import I64, ConvolutionModel
from services.guardrails.scanners.encodings import decoded_variants
from services.guardrails.scanners.injection_rules import strongest_rule
from services.guardrails.scanners.ngrams import LinearNgramModel, NgramFeatures
from services.guardrails.scanners.segments import sentences, unwrapped, windows

CHUNK = 4000
"""Characters the prompt classifier reads at once, as in training."""
STEP = 3000
WINDOW = 500
"""Characters of the windows of a longer prompt that are judged for themselves, so that a long harmless text does not
hide an attack.
"""
MODELS = Path(__file__).parent.parent / "models"


RULE_WEIGHT = 0.4
"""Of a rule's log odds: rules alone are no find, since harmless prompts quote and discuss attacks."""
WINDOW_PENALTY = 1.0
"""Log odds that a window of a longer text loses: it has many chances."""
HIDDEN_BONUS = 0.7
"""Log odds that a text gains that was encoded: who hides it?"""
SUPPORT = 0.7
"""Weight of the prompts' attack head in a document's sentence."""
SHORT = 12
"""Characters of a prompt in Latin letters below which it asks for nothing by itself, unless a rule finds something: no
attack of the training data is shorter, and what the heads say of an "a" or "Answer: C" is chance.
"""
_MENDED = frozenset({"", "split-words", "concatenation"})
_LOWEST = -9.0
"""Log odds below which a head has nothing more to say."""


@dataclass(frozen=True, slots=True)
class Head:
    """One question to a text: log odds = `ngram_weight` * (n-grams') + `network_weight` * (network's) - `threshold`."""

    ngrams: LinearNgramModel
    network: ConvolutionModel | None
    ngram_weight: float
    network_weight: float
    threshold: float

    @classmethod
    def load(cls, path: Path, embedding: StaticEmbedding) -> "Head":
        """Read `<path>.npz`, `<path>.json` and, where it has a network, `<path>_convolution.npz`.

        Raises ValueError, naming the file and the remedy, where they do not belong together.
        """
        ngrams = LinearNgramModel.load(path)
        weight, network = float(ngrams.metadata["network_weight"]), None
        if weight:
            network = ConvolutionModel.load(path.with_name(f"{path.name}_convolution.npz"), embedding_table(embedding))
        return cls(ngrams, network, float(ngrams.metadata["ngram_weight"]), weight, float(ngrams.metadata["threshold"]))

    @property
    def version(self) -> str:
        return f"{self.ngrams.metadata['name']}-{self.ngrams.metadata['version']}"

    def networked(self, rows: I64) -> float:
        """The network's share of the log odds of a text."""
        return 0.0 if self.network is None else self.network_weight * self.network.margin(rows)

    def margin(self, features: NgramFeatures, networked: float) -> float:
        """Log odds, 0 the operating point; minus infinity for a text without words."""
        return self.ngram_weight * self.ngrams.margin(features) + networked - self.threshold


@dataclass(frozen=True, slots=True)
class InjectionClassifier:
    """What the heads say together of a canonical text.

    The highest of `heads` counts: each asks for another kind of attack. `support`, where there is one, adds `SUPPORT`
    times its own log odds to each of them.
    """

    heads: tuple[Head, ...]
    kinds: tuple[str, ...]
    embedding: StaticEmbedding
    support: Head | None = None

    @property
    def version(self) -> str:
        return "+".join(head.version for head in (*self.heads, *([self.support] if self.support else [])))

    def networked(self, folded: str) -> tuple[float, ...]:
        """What the networks of the heads, then of the support, say of a canonical text."""
        rows = np.array(self.embedding.rows(words(folded)), dtype=np.int64)
        return tuple(head.networked(rows) for head in (*self.heads, *([self.support] if self.support else [])))

    def learned(self, folded: str, networked: tuple[float, ...] | None = None) -> tuple[str, float]:
        """Kind and log odds of the head that is surest, without rules; minus infinity for a text without words.

        ``networked`` is given where the networks have read more: they look for the highest answer anywhere, so what they
        say of a text holds for the windows in it.
        """
        features = NgramFeatures.of(folded, self.heads[0].ngrams.bits)
        if not len(features.word_slots):
            return self.kinds[0], -math.inf
        shares = self.networked(folded) if networked is None else networked
        margins = [head.margin(features, share) for head, share in zip(self.heads, shares, strict=False)]
        best = max(range(len(margins)), key=margins.__getitem__)
        margin = margins[best]
        if self.support is not None:
            margin = max(_LOWEST, margin) + SUPPORT * max(_LOWEST, self.support.margin(features, shares[-1]))
        return self.kinds[best], margin


def ruled(strength: float) -> float:
    """Log odds that a rule of a strength from 0 to below 1 adds."""
    return RULE_WEIGHT * math.log(strength / (1 - strength)) if strength > 0.5 else 0.0


def _unbounded() -> None:
    """The checkpoint of a caller without a time budget."""


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
        self.version = f"3+{classifier.version}"

    @classmethod
    def for_prompts(cls, models: Path = MODELS) -> "InjectionScanner":
        embedding = shared_static_embedding()
        heads = tuple(Head.load(models / f"injection_{name}", embedding) for name in ("prompt", "harm"))
        classifier = InjectionClassifier(heads, ("PROMPT_INJECTION", "JAILBREAK"), embedding)
        return cls(classifier, shared_lexicon(), by_sentence=False)

    @classmethod
    def for_documents(cls, models: Path = MODELS) -> "InjectionScanner":
        embedding = shared_static_embedding()
        document, support = (Head.load(models / f"injection_{name}", embedding) for name in ("document", "prompt"))
        classifier = InjectionClassifier((document,), ("INDIRECT_INSTRUCTION",), embedding, support)
        return cls(classifier, shared_lexicon(), by_sentence=True)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        """One span: that of the surest piece or hidden reading, or none for a text without words."""
        kind, start, end, margin = self.judge(text, reference.checkpoint)
        return [Span(kind, start, end, probability(margin))] if margin > -math.inf and start < end else []

    def judge(self, text: str, checkpoint: Callable[[], None] = _unbounded) -> tuple[str, int, int, float]:
        """Kind, place and log odds (0 the operating point, minus infinity without words) of the surest piece.

        ``checkpoint`` is called between pieces and readings; what it raises ends the judging.
        """
        kind, start, end, margin = self._surest(text, checkpoint)
        for variant in decoded_variants(text):
            checkpoint()
            hidden_kind, _, _, hidden = self._surest(variant.text, checkpoint)
            hidden += HIDDEN_BONUS
            if hidden > margin:
                kind, start, end, margin = f"{hidden_kind}:{variant.trick}", variant.start, variant.end, hidden
        return kind, start, end, margin

    def _surest(self, text: str, checkpoint: Callable[[], None]) -> tuple[str, int, int, float]:
        """Kind, place and log odds of the piece of `text` with the highest."""
        best = (self._classifier.kinds[0], 0, len(text), -math.inf)
        for start, end in self._pieces(text):
            checkpoint()
            folded = canonical(text[start:end])
            networked = self._classifier.networked(folded)
            for reading, trick in ((folded, ""), *rewritten(folded, self._lexicon)):
                checkpoint()
                # Where few words change, the networks are not asked again: they cost more than all the rest.
                kind, margin = self._judge(reading, networked if trick in _MENDED else None)
                if margin > best[3]:
                    best = (f"{kind}:{trick}" if trick else kind, start, end, margin)
            if not self._by_sentence and end - start > 2 * WINDOW:
                for first, last in windows(text[start:end], WINDOW):
                    kind, margin = self._classifier.learned(canonical(text[start + first : start + last]), networked)
                    if margin - WINDOW_PENALTY > best[3]:
                        best = (kind, start + first, start + last, margin - WINDOW_PENALTY)
        return best

    def _pieces(self, text: str) -> Iterator[tuple[int, int]]:
        if self._by_sentence:
            yield from sentences(text)
        elif text:
            last = max(1, len(text) - CHUNK + STEP)
            yield from ((start, min(len(text), start + CHUNK)) for start in range(0, last, STEP))

    def _judge(self, folded: str, networked: tuple[float, ...] | None) -> tuple[str, float]:
        """Kind and log odds of a canonical text. A sentence of one or two words is a heading, not an instruction."""
        if self._by_sentence and folded.count(" ") < 2 and folded.isascii():
            return self._classifier.kinds[0], -math.inf
        rule_kind, strength = strongest_rule(unwrapped(folded))
        if not self._by_sentence and not rule_kind and len(folded) < SHORT and folded.isascii():
            return self._classifier.kinds[0], -math.inf
        kind, margin = self._classifier.learned(folded, networked)
        return rule_kind or kind, margin + ruled(strength)


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
