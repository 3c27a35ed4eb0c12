"""The evaluators that are shipped, and those that teams add."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from penstock.embedding.protocol import Embedder
from penstock.embedding.recent import RecentVectors

from services.evaluation.evaluators import reference
from services.evaluation.evaluators.citations import CitationEvaluator
from services.evaluation.evaluators.coherence import Coherence
from services.evaluation.evaluators.completeness import Completeness
from services.evaluation.evaluators.format_validity import format_validity
from services.evaluation.evaluators.groundedness import groundedness_evaluators
from services.evaluation.evaluators.language_match import language_match
from services.evaluation.evaluators.passages_found import passages_found
from services.evaluation.evaluators.protocol import Evaluator
from services.evaluation.evaluators.readability import readability
from services.evaluation.evaluators.refusal import refusal
from services.evaluation.evaluators.relevance import AnswerRelevance
from services.evaluation.evaluators.similarity import SemanticSimilarity

__all__ = ["GROUP", "NAMES", "SHIPPED", "EvaluatorError", "added", "all_evaluators", "named", "shipped"]

GROUP = "penstock.evaluators"
"""Entry points of this group are evaluators, or modules that hold some."""

Make = Callable[[Embedder], Sequence[Evaluator]]


def _toxicity(embedder: Embedder) -> Sequence[Evaluator]:
    # Imported here: River and the model are of no use to who asks for another evaluator.
    from services.evaluation.toxicity.evaluator import ToxicityEvaluator
    from services.evaluation.toxicity.model import ToxicityModel

    model = ToxicityModel.load()
    return [ToxicityEvaluator(subject, model, embedder) for subject in ("prompt", "answer")]


SHIPPED: Mapping[tuple[str, ...], Make] = {
    ("toxicity",): _toxicity,
    # By words alone: embeddings cost a hundred times as much and measure no better.
    ("groundedness", "hallucination", "context_use"): lambda _: groundedness_evaluators(),
    ("citation_correctness",): lambda _: [CitationEvaluator()],
    ("passages_found",): lambda _: [passages_found],
    ("answer_relevance",): lambda embedder: [AnswerRelevance(embedder)],
    ("completeness",): lambda embedder: [Completeness(embedder)],
    ("coherence",): lambda embedder: [Coherence(embedder)],
    ("readability",): lambda _: [readability],
    ("refusal",): lambda _: [refusal],
    ("language_match",): lambda _: [language_match],
    ("format_validity",): lambda _: [format_validity],
    ("semantic_similarity",): lambda embedder: [SemanticSimilarity(embedder)],
    ("exact_match",): lambda _: [reference.exact_match],
    ("token_f1",): lambda _: [reference.token_f1],
    ("bleu",): lambda _: [reference.bleu],
    ("rouge",): lambda _: [reference.rouge],
}
"""How evaluators are made of an embedder, by their names: those that share work are made together."""
NAMES = tuple(name for names in SHIPPED for name in names)
"""Names of the evaluators that are shipped; one evaluator a subject."""


class EvaluatorError(ValueError):
    """An evaluator cannot be used; the message names it, the cause and the remedy."""


def shipped(embedder: Embedder, *, instead: Mapping[str, Sequence[Evaluator]] | None = None) -> list[Evaluator]:
    """Return every evaluator that is shipped.

    Args:
        embedder: for those that compare meanings; texts that several of them need are embedded once.
        instead: evaluators by name that take the place of the shipped ones, e.g. a classifier that keeps learning.
    """
    vectors = RecentVectors(embedder)
    given = instead or {}
    found: list[Evaluator] = []
    for names, make in SHIPPED.items():
        # What is replaced as a whole is not made: its model would be loaded for nothing.
        made = () if all(name in given for name in names) else make(vectors)
        for name in names:
            found += given[name] if name in given else [one for one in made if one.name == name]
    return found


def named(name: str, embedder: Callable[[], Embedder], modules: Iterable[str] = ()) -> list[Evaluator]:
    """Return the evaluators of one name, one a subject; only what these need is loaded.

    Args:
        name: shipped, or of a team's own.
        embedder: makes the embedder, for a shipped one.
        modules: where else to look; see :func:`added`.

    Raises:
        EvaluatorError: there is none, or a module cannot be used.
    """
    for names, make in SHIPPED.items():
        if name in names:
            return [one for one in make(RecentVectors(embedder())) if one.name == name]
    own = added(modules)
    found = [one for one in own if one.name == name]
    if not found:
        known = [*NAMES, *sorted({one.name for one in own})]
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}? There are" if close else "there are"
        raise EvaluatorError(
            f"there is no evaluator {name!r}; {hint} {', '.join(known)}; those of your own are found through the setting "
            "EVALUATOR_MODULES and the entry point group penstock.evaluators"
        )
    return found


def all_evaluators(
    embedder: Embedder, modules: Iterable[str] = (), *, instead: Mapping[str, Sequence[Evaluator]] | None = None
) -> list[Evaluator]:
    """Return those that are shipped, then those of teams.

    Raises:
        EvaluatorError: a module or entry point cannot be used, or two evaluators have the same name and subject.
    """
    return _distinct([*shipped(embedder, instead=instead), *added(modules)])


def added(modules: Iterable[str] = (), points: Iterable[EntryPoint] | None = None) -> list[Evaluator]:
    """Return the evaluators of ``modules`` and of the installed entry points of the group ``penstock.evaluators``.

    Args:
        modules: importable modules, every evaluator of which counts.
        points: entry points; None: the installed ones.

    Raises:
        EvaluatorError: one cannot be imported, or holds no evaluator; two have the same name and subject.
    """
    found: list[Evaluator] = []
    for point in sorted(entry_points(group=GROUP) if points is None else points, key=lambda point: point.name):
        found += _evaluators_of(f"entry point {point.name!r} ({point.value})", point.load)
    for module in dict.fromkeys(name.strip() for name in modules if name.strip()):
        found += _evaluators_of(f"evaluator module {module!r}", partial(importlib.import_module, module))
    return _distinct(found)


def _evaluators_of(what: str, load: Callable[[], Any]) -> list[Evaluator]:
    try:
        loaded = load()
    except Exception as error:  # an import runs anything
        raise EvaluatorError(
            f"{what} cannot be imported: {type(error).__name__}: {error}; install it, put its folder on PYTHONPATH, or "
            "take its name out"
        ) from error
    if _is_evaluator(loaded):
        return [loaded]
    found = {
        id(one): one for one in getattr(loaded, "__dict__", {}).values() if _is_evaluator(one) and not _is_shipped(one)
    }
    if not found:
        raise EvaluatorError(
            f"{what} holds no evaluator: decorate a function with services.evaluation.evaluators.own.evaluator, or give "
            "an object with name, subject, version and evaluate"
        )
    return list(found.values())


def _is_evaluator(value: Any) -> bool:
    if isinstance(value, type):
        return False
    return (
        isinstance(getattr(value, "name", None), str)
        and isinstance(getattr(value, "version", None), str)
        and getattr(value, "subject", None) in ("prompt", "answer")
        and callable(getattr(value, "evaluate", None))
    )


def _is_shipped(value: Any) -> bool:
    """Whether a module has ``value`` only because it imported it from here, to build on it."""
    made_in: str = getattr(getattr(value, "function", type(value)), "__module__", "")
    return made_in.startswith(f"{__package__}.")


def _distinct(evaluators: Sequence[Evaluator]) -> list[Evaluator]:
    seen: set[tuple[str, str]] = set()
    for one in evaluators:
        if (one.name, one.subject) in seen:
            raise EvaluatorError(
                f"there are two evaluators named {one.name!r} of the {one.subject}: scores of both could not be told "
                "apart; rename one"
            )
        seen.add((one.name, one.subject))
    return list(evaluators)
