"""Agreement beyond chance: against published figures, another library, and what must hold of any coefficient."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from penstock.contracts.records import AnnotationTask, Context
from sklearn.metrics import cohen_kappa_score

from services.evaluation.feedback.agreement import agreement, cohen_kappa, krippendorff_alpha
from services.evaluation.feedback.command_agreement import agreements
from tests.unit.feedback_partition import NOW, feedback

# Four observers, twelve units, values missing: the worked example of Krippendorff (2011), "Computing Krippendorff's
# Alpha-Reliability", section C and D, which gives 0.743 for nominal and 0.849 for interval data.
_N = None
PUBLISHED = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, _N, _N, _N],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _N, 3],
    "C": [_N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _N],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _N],
}


def by_unit(raters: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
    units: dict[str, dict[str, Any]] = {}
    for rater, values in raters.items():
        for number, value in enumerate(values):
            if value is not None:
                units.setdefault(f"u{number}", {})[rater] = value
    return units


def test_alpha_is_that_of_the_published_example() -> None:
    nominal = krippendorff_alpha(by_unit(PUBLISHED))
    assert nominal.value == pytest.approx(0.743, abs=5e-4)
    assert nominal.units == 11
    assert krippendorff_alpha(by_unit(PUBLISHED), "interval").value == pytest.approx(0.849, abs=5e-4)


def test_kappa_is_that_of_scikit_learn() -> None:
    dice = random.Random(1)
    one = [dice.choice(["toxic", "clean", "clean"]) for _ in range(200)]
    other = [value if dice.random() < 0.8 else dice.choice(["toxic", "clean"]) for value in one]
    found = cohen_kappa(by_unit({"ada": one, "bob": other}), "ada", ["bob"])
    assert found.value == pytest.approx(cohen_kappa_score(one, other), abs=1e-6)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Two raters with the same 20 % of random labels: alpha of the population is known from many units.
    generator = np.random.default_rng(2)

    def drawn(units: int) -> dict[str, dict[str, Any]]:
        truth = generator.random(units) < 0.3

        def labels() -> list[bool]:
            guesses, careful = generator.random(units) < 0.3, generator.random(units) > 0.2
            return [bool(each) for each in np.where(careful, truth, guesses)]

        return by_unit({"ada": labels(), "bob": labels()})

    truth = krippendorff_alpha(drawn(60_000)).value
    assert truth is not None
    covered = 0
    for _ in range(100):
        found = krippendorff_alpha(drawn(150))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 88 <= covered <= 100


def test_chance_is_zero_perfection_one_and_one_label_alone_is_neither() -> None:
    generator = np.random.default_rng(3)
    guessed = {name: list(generator.choice(["toxic", "clean"], 4_000)) for name in ("ada", "bob", "eve")}
    found = agreement(by_unit(guessed))
    assert found.alpha.value == pytest.approx(0.0, abs=0.05)
    same = {"ada": ["toxic", "clean"] * 20, "bob": ["toxic", "clean"] * 20}
    assert agreement(by_unit(same)).alpha.value == 1.0
    assert agreement(by_unit({"ada": ["clean"] * 9, "bob": ["clean"] * 9})).alpha.value is None
    alone = agreement(by_unit({"ada": ["clean", "toxic"]}))
    assert (alone.alpha.units, alone.alpha.value, alone.pairs, alone.given) == (0, None, {}, {"ada": 2})


def test_a_careless_rater_stands_out() -> None:
    generator = np.random.default_rng(4)
    truth = list(generator.choice(["toxic", "clean"], 300))
    guesses = list(generator.choice(["toxic", "clean"], 300))
    found = agreement(by_unit({"ada": truth, "bob": truth, "eve": guesses}))
    values = {name: one.value for name, one in found.raters.items()}
    assert values["eve"] == pytest.approx(0.0, abs=0.15)
    assert all((values[name] or 0) > 0.4 for name in ("ada", "bob"))
    assert found.pairs["ada", "bob"].value == 1.0


def test_what_moderators_said_last_counts_by_label_and_only_the_sample_where_asked() -> None:
    label: dict[str, Any] = {"labels": {"answer.toxicity": "toxic"}, "source": "moderator", "queue": "sample"}
    other: dict[str, Any] = {"labels": {"answer.toxicity": "clean"}, "source": "moderator", "queue": "sample"}
    given = {
        ("team", f"r{number}"): [
            feedback(number, "ada", **(other if number else label)),
            feedback(number, "ada", repeat=1, rating=1.0, **label),  # replaces what ada said before
            feedback(number, "bob", rating=0.5, **(label if number else other)),
            feedback(number, "someone", labels={"answer.toxicity": "clean"}),  # a user
            feedback(number, None, **other),  # nobody knows who
        ]
        for number in range(4)
    }
    found = agreements(given)
    assert set(found) == {"answer.toxicity", "rating"}
    assert found["answer.toxicity"].given == {"ada": 4, "bob": 4}
    assert found["answer.toxicity"].alpha.units == 4
    assert found["answer.toxicity"].pairs["ada", "bob"].value == pytest.approx(0.0)  # three of four, one rater constant
    task = AnnotationTask(
        event_id="t", request_id="r0", tenant_id="team", occurred_at=NOW, causation_id="", context=Context(requested_at=NOW),
        queue="sample", reason="sample", priority=0.2,
    )  # fmt: skip
    assert agreements(given, sampled=[task])["answer.toxicity"].alpha.units == 1
    assert agreements(given, queue="toxicity") == {}
