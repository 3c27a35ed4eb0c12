"""Presidio's own analyzer, to measure the pii scanner beside."""

from __future__ import annotations

from collections.abc import Callable

from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine, NlpEngineProvider

__all__ = ["patterns_only", "with_model"]


class _NoLanguageModel(NlpEngine):
    """What the analyzer asks of a language model, without one: the patterns alone are then run."""

    def load(self) -> None: ...

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        return NlpArtifacts([], [], [], [], self, language)  # type: ignore[arg-type]

    def process_batch(self, texts, language, **options):  # type: ignore[no-untyped-def]
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return False

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return ["en"]


def patterns_only() -> Callable[[str], object]:
    """Presidio's default pattern recognizers for English, but for e-mail, which reads the network."""
    return _analyzer(_NoLanguageModel(), without=("SpacyRecognizer", "EmailRecognizer"))


def with_model(package: str) -> Callable[[str], object]:
    """The same with the spaCy model ``package``, all of its pipeline, as Presidio runs it."""
    configuration = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": "en", "model_name": package.replace("-", "_")}],
    }
    return _analyzer(NlpEngineProvider(nlp_configuration=configuration).create_engine(), without=("EmailRecognizer",))


def _analyzer(nlp: NlpEngine, without: tuple[str, ...]) -> Callable[[str], object]:
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=nlp)
    registry.recognizers = [one for one in registry.recognizers if type(one).__name__ not in without]
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])
    return lambda text: engine.analyze(text, language="en")
