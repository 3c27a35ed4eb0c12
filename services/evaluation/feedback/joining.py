"""What follows when feedback, its result and the scores of its texts have come, in whatever order. Pure.

Every output is made of one feedback event and its result, or of those and one evaluation event, and of nothing else: so
its identity and content are the same whichever came last.

Scores of subject ``feedback``:

- ``rating`` as given, ``correction`` (1 where the right answer was given beside it) and ``chosen`` (1 for the first of two
  answers, 0 for the second, 0.5 for a tie), as soon as the result is known;
- ``disagreement``, 1 where a label contradicts an evaluator's and 0 where it bears it out, and ``rating_gap``, the distance
  between the rating and the groundedness of the answer, for each evaluation event that has the score. They are how drift
  sees that scores no longer mean what people mean (concept drift);
- ``rating_cached``, the rating again, of an answer that a cache gave; the label says which, exact or semantic;
- ``rating_grounded`` or ``rating_empty``, the rating again, of an answer with passages or of one for which none was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Protocol

from penstock.bus import Emit
from penstock.contracts.envelope import Envelope, event_id, request_key
from penstock.contracts.records import Evaluation, Label, Score

from services.evaluation.evaluators.passages_found import passages_found
from services.evaluation.feedback.memory import Entry, Heard, Kept, Taken, unpacked
from services.evaluation.feedback.opinions import Opinion

__all__ = ["VERSION", "Featuriser", "joined"]

VERSION = "feedback-2"
_GOOD = ("bad", "good")
_CHOSEN = {"a": 1.0, "tie": 0.5, "b": 0.0}


class Featuriser(Protocol):
    """What a classifier that learns online makes of a text, so that no text need travel to it."""

    @property
    def version(self) -> str:
        """Version of the features: a classifier learns from those of its own."""
        ...

    def features(self, text: str) -> bytes:
        """Return the packed features of a text."""
        ...


def joined(taken: Taken, featurisers: Mapping[str, Featuriser]) -> Iterator[Emit]:
    """Yield what follows from that which is new in a slot; nothing while the result is not known.

    Args:
        featurisers: by the classifier's name, which is also the name of the label.
    """
    entry, before = taken.entry, taken.before
    if not entry.result or not entry.opinions:
        return
    was = before if before is not None and before.result else Entry(entry.team, entry.request_id, 0.0)
    known = {each.event_id for each in was.opinions}
    scored = {each.event_id for each in was.heard}
    if all(each.event_id in known for each in entry.opinions) and all(each.event_id in scored for each in entry.heard):
        return
    kept = unpacked(entry.result)

    @cache
    def features(name: str, subject: str) -> bytes:
        """Embedding takes a while, and many people may have labelled one text before its score came: once a text."""
        return featurisers[name].features(kept.prompt if subject == "prompt" else kept.content)

    for opinion in entry.opinions:
        new = opinion.event_id not in known
        if new:
            yield from _evaluation(entry, kept, opinion, _given(opinion, kept), "evaluation.feedback")
        for heard in entry.scores:
            if new or heard.event_id not in scored:
                stage = f"evaluation.feedback.{heard.event_id}"
                yield from _evaluation(entry, kept, opinion, _compared(opinion, heard), stage)
                yield from _labels(entry, kept, opinion, heard, featurisers, features)


def _envelope(entry: Entry, opinion: Opinion, stage: str) -> Envelope:
    return {
        "event_id": event_id(opinion.event_id, stage, 0),
        "request_id": entry.request_id,
        "tenant_id": entry.team,
        # Not the moment of joining: a replay, and feedback that came before its result, give the same bytes.
        "occurred_at": opinion.at,
        "causation_id": opinion.event_id,
    }


def _given(opinion: Opinion, kept: Kept) -> dict[str, tuple[float, str]]:
    """Return the scores that need no evaluator."""
    found: dict[str, tuple[float, str]] = {}
    if opinion.rating is not None:
        found["rating"] = opinion.rating, _GOOD[opinion.rating >= 0.5]
        if kept.cached_by:
            found["rating_cached"] = opinion.rating, kept.cached_by
    if opinion.rating is not None or opinion.corrected:
        found["correction"] = float(opinion.corrected), "corrected" if opinion.corrected else "left as it is"
    if opinion.chosen is not None:
        found["chosen"] = _CHOSEN[opinion.chosen], opinion.chosen
    return found


def _compared(opinion: Opinion, heard: Heard) -> dict[str, tuple[float, str]]:
    """Return the scores of an opinion beside what one evaluation event says."""
    found: dict[str, tuple[float, str]] = {}
    grounded = heard.said.get("answer.groundedness")
    if opinion.rating is not None and grounded is not None:
        found["rating_gap"] = abs(grounded.score - opinion.rating), grounded.label
    looked_for = heard.said.get(f"answer.{passages_found.name}")
    if opinion.rating is not None and looked_for is not None:
        found[f"rating_{'grounded' if looked_for.score else 'empty'}"] = opinion.rating, _GOOD[opinion.rating >= 0.5]
    contradicted = [
        heard.said[name].label != label
        for name, label in opinion.labels.items()
        if name in heard.said and heard.said[name].label
    ]
    if contradicted:
        found["disagreement"] = float(any(contradicted)), "contradicted" if any(contradicted) else "borne out"
    return found


def _evaluation(
    entry: Entry, kept: Kept, opinion: Opinion, found: Mapping[str, tuple[float, str]], stage: str
) -> Iterator[Emit]:
    if not found:
        return
    evaluation = Evaluation(
        **_envelope(entry, opinion, stage),
        context=kept.context,
        model=kept.model,
        status=kept.status,
        scores=[
            Score(name=name, subject="feedback", score=round(score, 6), label=label, version=VERSION)
            for name, (score, label) in found.items()
        ],
    )
    yield Emit("evaluations", request_key(kept.context, entry.request_id), evaluation)


def _labels(
    entry: Entry,
    kept: Kept,
    opinion: Opinion,
    heard: Heard,
    featurisers: Mapping[str, Featuriser],
    features: Callable[[str, str], bytes],
) -> Iterator[Emit]:
    """Yield the labels of texts that a classifier scored in this evaluation event."""
    for full_name, given in opinion.labels.items():
        subject, _, name = full_name.partition(".")
        featuriser, said = featurisers.get(name), heard.said.get(full_name)
        text = kept.prompt if subject == "prompt" else kept.content
        if featuriser is None or said is None or not text:
            continue
        label = Label(
            **_envelope(entry, opinion, f"evaluation.label.{full_name}.{heard.event_id}"),
            model=name,
            subject=subject,
            label=given,
            source=opinion.source,
            author=opinion.user,
            features=features(name, subject),
            features_version=featuriser.version,
            score=said.score,
            version=said.version,
        )
        yield Emit("labels", name, label)
