"""What people are told of an experiment: figures, plain words, a page; and what its configuration may say."""

from __future__ import annotations

import re
import textwrap
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from penstock.bus import MemoryBus, Producer
from penstock.clock import ManualClock
from penstock.config.files import load_files
from penstock.config.kinds import Arm, Experiment, Metric, Policy, Prompt, PromptMessage, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.config.references import check_references
from penstock.contracts.catalogue import Catalogue
from pydantic import ValidationError

from services.evaluation.experiments.advice import advice, phase
from services.evaluation.experiments.command_report import page
from services.evaluation.experiments.command_show import described
from services.evaluation.experiments.reading import Found, read_experiments
from tests.unit.experiment_cases import NOW, Log, an_experiment, an_observation, requests

LATER = NOW + timedelta(days=1)
GOAL = Metric(name="answer.groundedness", margin=0.01)
GUARD = Metric(name="latency_ms", better="lower", role="guard", margin=300, upper_bound=30_000)
RUNNING = an_experiment(metrics=(GOAL, GUARD))


def says(experiment: Experiment, count: int = 1_200, **truth: Any) -> str:
    return " ".join(advice(experiment, Log(experiment).take(requests(experiment, count, **truth)).state, LATER))


def test_advice_follows_from_what_was_decided() -> None:
    assert "Nothing is decided yet" in says(RUNNING, 40)
    assert (
        "large is better by answer.groundedness, and no guard is harmed: make large the team's default_route"
        in says(RUNNING, 1_500, better=0.15)
    )
    assert "large harms latency_ms" in says(RUNNING, better=0.15, slower=1_200)
    assert "large is worse by answer.groundedness: keep control" in says(RUNNING, better=-0.15)
    tight = an_experiment(metrics=(GOAL, GUARD.model_copy(update={"margin": 20.0})))
    assert "not yet certain" in says(tight, better=0.15)
    alike = an_experiment(metrics=(Metric(name="answer.groundedness", margin=0.2),))
    assert "take the cheaper one" in says(alike, 1_500)


def test_advice_where_there_is_nothing_to_say() -> None:
    assert "Does the team send requests" in advice(RUNNING, None, NOW)[0]
    over = an_experiment(ends_at=NOW)
    assert "is ended, and nothing was observed" in advice(over, None, NOW)[0]
    state = Log(over).take(requests(over, 40)).state
    assert "Nothing was decided" in advice(over, state, LATER)[0]


def test_phases() -> None:
    hour = timedelta(hours=1)
    assert phase(an_experiment(paused=True), NOW) == "paused"
    assert phase(an_experiment(starts_at=NOW + hour), NOW) == "waiting"
    assert phase(an_experiment(ends_at=NOW), NOW) == "ended"
    assert phase(an_experiment(starts_at=NOW, ends_at=NOW + hour), NOW) == "running"


class Wellformed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br", "html"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("count", [0, 40, 1_200])
def test_the_page_is_whole_and_says_what_show_says(count: int) -> None:
    log = Log(RUNNING).take(requests(RUNNING, count, better=0.15))
    data = described(Found(RUNNING, log.state), LATER)
    parser = Wellformed()
    parser.feed(page(data, LATER))
    assert parser.open == []
    text = " ".join(parser.text)
    assert all(sentence in text for sentence in data["advice"])
    assert ("large is better" in text) == (count == 1_200)
    assert ("not harmed" in text) == any(one["held"] for one in data["comparisons"]) == (count == 1_200)
    for one in data["comparisons"]:
        if one["difference"] is not None:
            assert f"{one['difference']:.4g}" in text


def test_what_others_named_is_no_markup_on_the_page() -> None:
    data = described(Found(RUNNING, None), LATER) | {"experiment": "<script>alert(1)</script>"}
    assert "<script>" not in page(data, LATER)


async def test_standings_are_read_from_the_agents_table_and_its_events(catalogue: Catalogue) -> None:
    """Without the topic of the table (evaluation never ran) there is nothing yet; other designs' decisions are counted."""
    bus = MemoryBus(catalogue, ManualClock())
    await publish_changes(
        [Change("experiments", RUNNING.key, "new", None, RUNNING)], Producer(bus.producer(), bus.codec, "test"), NOW
    )
    log = Log(RUNNING).take(requests(RUNNING, 1_200, better=0.15))
    (told,) = log.told()
    await bus.publish("experiment-events", told.experiment, told)
    await bus.publish("experiment-events", told.experiment, told)
    await bus.publish(
        "experiment-events", told.experiment, msgspec.structs.replace(told, event_id="x", version="other")
    )
    (found,) = await read_experiments(bus, bus.codec)
    assert (found.standing, found.told, found.former) == (None, (told,), 1)
    assert await read_experiments(bus, bus.codec, team="research") == []


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": (Metric(name="answer.toxicity", role="guard"),)}, "role: goal"),
        ({"arms": (Arm(name="a"), Arm(name="b"))}, "do not differ"),
        ({"arms": (Arm(name="a", route="x"), Arm(name="a", route="y"))}, "there twice"),
        ({"metrics": (GOAL, GOAL)}, "there twice"),
        ({"starts_at": NOW, "ends_at": NOW}, "after starts_at"),
    ],
)
def test_an_experiment_that_can_decide_nothing_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        an_experiment(**changes)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "latency"}, "is no metric"),
        ({"name": "latency_ms", "better": "lower"}, "upper_bound: is needed"),
        ({"name": "cost", "upper_bound": 1, "lower_bound": 0.1}, "must be 0 for cost"),
        ({"name": "a.b", "lower_bound": 1}, "must be above lower_bound"),
        ({"name": "a.b", "margin": 1}, "no difference could ever matter"),
    ],
)
def test_a_metric_that_measures_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        Metric(**fields)


def test_what_an_experiment_names_must_exist() -> None:
    route = Route(name="default", targets=(Target(backend="extractive", model="m"),), prompt="greet")
    prompt = Prompt(name="greet", template=(PromptMessage(role="user", content="x"),), labels=("production",))
    known: dict[str, Any] = {
        "teams": {"support": Team(name="support", allowed_routes=("default",))},
        "routes": {"default": route, "large": route.model_copy(update={"name": "large"})},
        "policies": {"default": Policy(name="default")},
        "prompts": {"greet@production": prompt},
    }

    def broken(**changes: Any) -> list[tuple[str, str]]:
        found = check_references(an_experiment(**changes), known)
        return [(".".join(map(str, one.path)), one.cause) for one in found]

    def arms(**changes: Any) -> tuple[Arm, ...]:
        return (Arm(name="control"), Arm(name="other", **changes))

    assert broken(arms=arms(route="default"), prompt="greet", routes=("default",)) == []
    assert [path for path, _ in broken(team="nobody", arms=arms(route="default"))] == ["team"]
    assert [path for path, _ in broken(routes=("gone",), arms=arms(policy="default"))] == ["routes.0"]
    assert [path for path, _ in broken(arms=arms(policy="gone"))] == ["arms.1.policy"]
    ((path, cause),) = broken(arms=arms(route="large"))
    assert (path, "may not ask for 'large'" in cause) == ("arms.1.route", True)
    for where in ({"prompt": "greet"}, {"routes": ("default",)}):
        assert [path for path, _ in broken(arms=arms(prompt_label="next"), **where)] == ["arms.1.prompt_label"]
    assert [path for path, _ in broken(arms=arms(policy="default"), prompt="gone")] == ["prompt"]


def test_the_example_of_the_page_is_an_experiment_that_lacks_its_candidate_only(project: Path) -> None:
    page = (project / "services" / "evaluation" / "experiments" / "README.md").read_text("utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    experiment = Experiment.model_validate(yaml.safe_load(textwrap.dedent(block)))
    shipped = ConfigPlane.of(load_files(project / "infra" / "config"))
    known = {kind: shipped.entries(kind) for kind in ("teams", "routes", "policies", "prompts")}
    assert [one.path for one in check_references(experiment, known)] == [("arms", 1, "prompt_label")]


def test_an_observation_of_the_newest_version_names_its_unit_by_hash() -> None:
    assert re.fullmatch("[0-9a-f]{16}", an_observation(RUNNING, 1, "ada", {}).unit)
