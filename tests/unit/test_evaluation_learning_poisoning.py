"""Whoever labels wrongly on purpose changes no champion, and moves the challenger no more than the bounds say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.records import Label

from services.evaluation.learning.guards import trusted
from tests.unit.learning_labels import CLEAN, EAGER, PATIENT, SLANG, START, Run, honest, label, learner

TEXTS = (*CLEAN, *SLANG)
ABUSE = ("you worthless piece of shit", "shut up, you fucking idiot", "go kill yourself, loser", "disgusting bitch")
ROUNDING = 0.01
"""Weights are kept in float32, of which each step rounds some hundred."""


@st.composite
def streams(draw: Any) -> list[Label]:
    """Labels of anybody about anything, minutes or days apart."""
    said = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["user", "user", "user", "moderator", "system", "stranger"]),
                st.integers(0, 6),
                st.integers(0, len(TEXTS) - 1),
                st.booleans(),
                st.sampled_from([5, 60, 3600, 86_400]),
            ),
            min_size=1,
            max_size=60,
        )
    )
    now, found = START, []
    for number, (source, author, text, toxic, gap) in enumerate(said):
        now += timedelta(seconds=gap)
        found.append(label(number, TEXTS[text], toxic, source=source, author=f"{source}-{author}", at=now))
    return found


@settings(max_examples=25, deadline=None, derandomize=True)
@given(streams())
def test_users_together_move_no_text_beyond_their_bound(stream: list[Label]) -> None:
    everybody = Run(PATIENT).take(stream)
    without = [each for each in stream if trusted(each)]
    moderated = Run(PATIENT).take(without or [label(0, TEXTS[0], False, features_version="none")])
    moved = np.abs(everybody.log_odds(TEXTS) - moderated.log_odds(TEXTS)).max()
    spent = everybody.state.spent.get("users", 0.0)
    assert moved <= spent + ROUNDING
    assert spent <= PATIENT.users_most(everybody.state.spent) + 1e-9


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from([60, 3600])), min_size=30, max_size=80),
    st.booleans(),
)
def test_one_user_moves_no_text_beyond_the_stated_floor_whatever_moderators_say_between(
    said: list[tuple[bool, int, int]], toxic: bool
) -> None:
    now, stream = START, []
    for number, (moderated, text, gap) in enumerate(said):
        now += timedelta(seconds=gap)
        source, author = ("moderator", "ada") if moderated else ("user", "mallory")
        stream.append(
            label(number, TEXTS[text], moderated if toxic else not moderated, source=source, author=author, at=now)
        )
    with_them = Run(PATIENT).take(stream)
    without = Run(PATIENT).take([outdated(), *(each for each in stream if each.source == "moderator")])
    moved = np.abs(with_them.log_odds(TEXTS) - without.log_odds(TEXTS)).max()
    assert moved <= PATIENT.users.author_floor + ROUNDING


@settings(max_examples=15, deadline=None, derandomize=True)
@given(streams())
def test_users_alone_never_change_the_champion(stream: list[Label]) -> None:
    users = [each for each in stream if not trusted(each)]
    run = Run(EAGER).take(users or [label(0, TEXTS[0], True, source="user")])
    assert run.state.version == learner().version
    assert run.models("toxicity") == []
    assert run.state.test.better.count == 0


def flipped(number: int, **fields: Any) -> Label:
    """A slang text called clean, a clean one toxic."""
    text = TEXTS[number % len(TEXTS)]
    return label(number, text, text in CLEAN, **fields)


def test_one_author_who_flips_labels_en_masse_is_told_of_and_not_followed() -> None:
    run = Run(EAGER).take([flipped(n, source="user", author="mallory") for n in range(400)])
    assert run.state.spent["users"] <= EAGER.users.author_floor
    assert np.abs(run.log_odds(TEXTS) - Run(EAGER).take([outdated()]).log_odds(TEXTS)).max() <= 0.25 + ROUNDING
    (told,) = run.alerts("label_poisoning")
    assert (told.labels["cause"], told.labels["source"]) == ("rate", "user")
    assert "mallory of team" in told.title
    assert run.state.version == learner().version


def test_many_made_up_users_have_one_bound_together() -> None:
    puppets = [flipped(n, source="user", author=f"puppet-{n % 300}") for n in range(900)]
    run = Run(EAGER).take(puppets)
    assert run.state.spent["users"] <= EAGER.users_floor + 1e-9
    assert np.abs(run.log_odds(TEXTS) - Run(EAGER).take([outdated()]).log_odds(TEXTS)).max() <= 1.0 + ROUNDING
    assert run.state.refused["users_share"] + run.state.refused["source_rate"] > 800
    assert len(run.state.authors) <= 256
    assert {alert.labels["cause"] for alert in run.alerts("label_poisoning")} >= {"rate"}
    assert run.state.version == learner().version


def test_a_slow_drip_over_weeks_adds_up_to_the_same_bound() -> None:
    drip = [
        flipped(n, source="user", author=f"patient-{n % 20}", at=START + timedelta(hours=3 * n)) for n in range(300)
    ]
    run = Run(EAGER).take(drip)
    assert run.state.spent["users"] <= EAGER.users_floor + 1e-9
    assert np.abs(run.log_odds(TEXTS) - Run(EAGER).take([outdated()]).log_odds(TEXTS)).max() <= 1.0 + ROUNDING
    assert run.state.version == learner().version


def test_a_moderator_alone_promotes_nothing_however_many_labels() -> None:
    rogue = [flipped(n, author="mallory", at=START + timedelta(minutes=n)) for n in range(200)]
    run = Run(EAGER).take(rogue)
    assert run.alerts("model_promoted") == []
    assert run.state.refused["author_share"] > 0
    assert run.state.version == learner().version


def test_a_moderator_among_honest_ones_cannot_promote_what_only_his_labels_ask_for() -> None:
    # Two agree with the champion on texts that it knows; the third alone calls the slang toxic.
    known = [(text, False) for text in CLEAN[:4]] + [(text, True) for text in ABUSE]
    stream = [
        label(n, SLANG[n // 2 % len(SLANG)], True, author="mallory")
        if n % 2
        else label(n, *known[n // 2 % len(known)], author=("ada", "alan")[n // 4 % 2])
        for n in range(260)
    ]
    assert Run(EAGER).take(stream).alerts("model_promoted") == []
    # The labels would do, were it not for who gave them.
    assert Run(replace(EAGER, authors=1)).take(stream).alerts("model_promoted")


def test_a_source_that_contradicts_what_is_known_is_told_of_and_a_user_not_heard_for_a_day() -> None:
    insult = "you are a worthless piece of shit"
    taught = Run(EAGER)
    taught.take([label(n, insult, True, author=("ada", "alan")[n % 2]) for n in range(30)])
    wrong = [
        label(100 + n, insult, False, source="user", author="mallory", at=START + timedelta(hours=1 + n / 4))
        for n in range(40)
    ]
    taught.take(wrong)
    assert "contradiction" in {alert.labels["cause"] for alert in taught.alerts("label_poisoning")}
    assert taught.state.refused["suspected"] > 10
    assert max(each.barred_until for each in taught.state.authors.values()) > wrong[0].occurred_at.timestamp()


def test_honest_corrections_of_a_user_raise_no_suspicion() -> None:
    run = Run(EAGER).take([*honest(40)])
    run.take([label(100 + n, SLANG[n % 8], True, source="user", author="eve") for n in range(10)])
    assert run.alerts("label_poisoning") == []


def outdated() -> Label:
    """A label that is counted and not learned from."""
    return label(0, TEXTS[0], False, features_version="none")
