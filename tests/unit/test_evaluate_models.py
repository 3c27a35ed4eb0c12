"""``penstock evaluate models``: what it shows of champions and challengers, and which refusal is its own."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from penstock.contracts.records import DeadLetter, ModelWeights
from rich.console import Console

from services.evaluation.command.models import listing, models, refusal, standing
from services.evaluation.learning.champions import Champions
from tests.unit.learning_labels import EAGER, START, Run, command, honest, learner

LATER = START + timedelta(days=1)


@pytest.fixture(scope="module")
def champions() -> Champions:
    found = Champions([learner()])
    run = Run(EAGER).take([*honest(90), command(95, "freeze"), *honest(20, first=96)])
    for emit in run.emits:
        if emit.topic == "config-models":
            assert isinstance(emit.record, ModelWeights)
            found.apply(emit.record)
    return found


def shown(champions: Champions) -> str:
    out = io.StringIO()
    Console(file=out, width=220).print(listing([standing(champions, "toxicity", LATER)]))
    return out.getvalue()


def test_a_line_says_what_is_in_force_and_what_the_challenger_lacks(champions: Champions) -> None:
    line = shown(champions).splitlines()[1]
    version, _ = champions.at("toxicity", LATER)
    assert version in line
    assert "yes" in line.split()
    assert (champions.challenger("toxicity") or {})["lacking"][0] in line


def test_nothing_published_shows_the_shipped_model() -> None:
    line = shown(Champions([learner()])).splitlines()[1]
    assert line.split() == ["toxicity", learner().version, "always", "no", "0", "0", "labels"]


def test_the_standing_is_json_with_every_change(champions: Champions) -> None:
    found = json.loads(json.dumps(standing(champions, "toxicity", LATER)))
    assert [change["cause"] for change in found["schedule"]] == ["shipped", "promoted"]
    assert found["versions"] == [change["version"] for change in found["schedule"]]
    assert found["effective_from"] == found["schedule"][-1]["effective_from"]
    assert found["challenger"]["champion"] == found["champion"]
    assert standing(champions, "toxicity", START)["champion"] == learner().version


@pytest.mark.parametrize(
    ("topic", "offset", "says"), [("model-commands", 7, True), ("model-commands", 8, False), ("labels", 7, False)]
)
def test_only_the_refusal_of_the_own_command_is_told(topic: str, offset: int, says: bool) -> None:
    letter = DeadLetter(
        event_id="d", request_id="", tenant_id="", occurred_at=START, causation_id="", service="evaluation",
        group="evaluation", origin_topic=topic, origin_partition=0, origin_offset=offset, code="invalid_event",
        reason="toxicity is frozen: unfreeze it first",
    )  # fmt: skip
    assert refusal(letter, (0, 7)) == ("toxicity is frozen: unfreeze it first" if says else "")


def test_the_help_names_every_decision() -> None:
    run = CliRunner().invoke(models, ["--help"])
    assert run.exit_code == 0
    assert all(each in run.output for each in ("list", "show", "promote", "rollback", "freeze", "unfreeze", "reset"))
