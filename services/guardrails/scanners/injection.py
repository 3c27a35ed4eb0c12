"""Prompt injection and jailbreaks: normalisation, rules and a linear classifier, whichever is surest."""

from pathlib import Path

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.ciphers import Lexicon, rewritten
from services.guardrails.scanners.encodings import decoded_variants
from services.guardrails.scanners.injection_rules import combine, strongest_rule
from services.guardrails.scanners.ngrams import LinearNgramModel
from services.guardrails.scanners.normalise import canonical
from services.guardrails.scanners.segments import sentences, unwrapped

CHUNK = 4000
"""Characters the prompt classifier reads at once, as in training."""
STEP = 3000
VOCABULARY = "wordpiece_vocabulary.txt"
MODELS = Path(__file__).parent.parent / "models"


class InjectionScanner:
    """Judges a prompt as a whole (`by_sentence=False`) or a document sentence by sentence, the highest score counting.

    A hidden reading (base64, tag characters, letters set apart, ...) is judged like the text itself, and its find names
    the trick. The classifier's score is calibrated so that 0.5 is the threshold that cross-validation gave.
    """

    name = "injection"
    default_threshold = 0.5

    def __init__(self, model: LinearNgramModel, lexicon: Lexicon, by_sentence: bool) -> None:
        self._model = model
        self._lexicon = lexicon
        self._by_sentence = by_sentence
        self.version = f"1+{model.metadata['name']}-{model.version}"

    @classmethod
    def for_prompts(cls, models: Path = MODELS) -> "InjectionScanner":
        return cls(
            LinearNgramModel.load(models / "injection_prompt"), Lexicon.load(models / VOCABULARY), by_sentence=False
        )

    @classmethod
    def for_documents(cls, models: Path = MODELS) -> "InjectionScanner":
        return cls(
            LinearNgramModel.load(models / "injection_document"), Lexicon.load(models / VOCABULARY), by_sentence=True
        )

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        """One span: that of the surest piece or hidden reading, or none for a text without words."""
        best = self._surest(text)
        for variant in decoded_variants(text):
            hidden = self._surest(variant.text)
            if hidden.score > max(best.score, self.default_threshold):
                best = Span(f"{hidden.kind}:{variant.trick}", variant.start, variant.end, hidden.score)
        return [best] if best.score > 0 else []

    def _surest(self, text: str) -> Span:
        """The piece of ``text`` with the highest score."""
        best = Span("PROMPT_INJECTION", 0, len(text), 0.0)
        for start, end in self._pieces(text):
            folded = canonical(text[start:end])
            kind, score = self._judge(folded)
            if score > best.score:
                best = Span(kind, start, end, score)
            for reading, trick in rewritten(folded, self._lexicon):
                kind, score = self._judge(reading)
                # A reading that had to be made up first counts only where it is a find.
                if score > max(best.score, self.default_threshold):
                    best = Span(f"{kind}:{trick}", start, end, score)
        return best

    def _pieces(self, text: str) -> list[tuple[int, int]]:
        if self._by_sentence:
            return list(sentences(text))
        if len(text) <= CHUNK:
            return [(0, len(text))] if text else []
        return [(start, min(len(text), start + CHUNK)) for start in range(0, len(text), STEP)]

    def _judge(self, folded: str) -> tuple[str, float]:
        """Kind and score of a canonical text. A sentence of one or two words is a heading, not an instruction."""
        kind, ruled = strongest_rule(unwrapped(folded))
        learned = 0.0 if self._by_sentence and folded.count(" ") < 2 else self._model.score(folded)
        return kind or "PROMPT_INJECTION", combine(ruled, learned)
