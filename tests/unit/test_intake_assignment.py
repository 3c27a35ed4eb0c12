"""Who gets which arm: by hash, evenly, for good; and never at the price of a request."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.kinds import (
    Arm,
    Budget,
    Experiment,
    Metric,
    Policy,
    Price,
    Prompt,
    PromptMessage,
    PromptVariable,
    Route,
    Target,
    Team,
)
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import AdmittedRequest, LlmRequest, LogRange, Message
from scipy import stats

from services.intake.assignment import NOT_ASSIGNED, Assigned, assign
from services.intake.core import Claim, Decision, Judgement, Limits, judge, step

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
GOAL = Metric(name="feedback.rating")


def a_target(model: str) -> Target:
    return Target(backend="openai", model=model, base_url="http://127.0.0.1:1/v1")


def an_experiment(name: str = "models", **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": name, "team": "support", "arms": (Arm(name="control"), Arm(name="large", route="large")), "metrics": (GOAL,),
    }  # fmt: skip
    return Experiment(**fields | changes)


def a_prompt(text: str, *labels: str, **variables: PromptVariable) -> Prompt:
    return Prompt(
        name="greet", template=(PromptMessage(role="system", content=text),), labels=labels, variables=variables
    )


def a_plane(*experiments: Experiment, **team: Any) -> ConfigPlane:
    return ConfigPlane.of([
        Team(
            name="support", allowed_routes=("default", "large", "terse"), budgets=(Budget(name="d", limit=Decimal(9)),),
            **team,
        ),
        Route(name="default", targets=(a_target("small"),), prompt="greet"),
        Route(name="large", targets=(a_target("big"),), prompt="greet"),
        Route(name="terse", targets=(a_target("small"),), policy="strict"),
        Route(name="closed", targets=(a_target("big"),)),
        Policy(name="default"), Policy(name="strict"),
        a_prompt("Be kind.", "production"), a_prompt("Be brief.", "brief"),
        a_prompt("Be kind to {{who}}.", "named", who=PromptVariable(description="whom")),
        Price(model="small", input_cost_per_token=Decimal("1e-7"), output_cost_per_token=Decimal("2e-7")),
        Price(model="big", input_cost_per_token=Decimal("1e-6"), output_cost_per_token=Decimal("2e-6")),
        *experiments,
    ])  # fmt: skip


def a_request(number: int = 0, **changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": f"e{number}", "request_id": f"r{number}", "tenant_id": "support", "occurred_at": NOW, "causation_id": "",
        "user_id": f"user-{number}", "messages": [Message(role="user", content="hello")],
    }  # fmt: skip
    return LlmRequest(**fields | changes)


def judged(request: LlmRequest, plane: ConfigPlane, **options: Any) -> Judgement:
    return judge(request, plane, Limits(), NOW, **options)


def in_arm(arm: str, plane: ConfigPlane, **changes: Any) -> LlmRequest:
    """A request that ``plane`` assigns to ``arm`` of its experiment."""
    requests = (a_request(number, **changes) for number in range(100))
    return next(r for r in requests if arm in assign(r, plane, NOW).assigned.arms.values())


# -- the draw --------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=5), salt=st.text("ab", max_size=3))
def test_arms_are_drawn_by_weight(weights: list[int], salt: str) -> None:
    arms = tuple(Arm(name=f"a{n}", weight=w, route=f"r{n}") for n, w in enumerate(weights))
    experiment = an_experiment(arms=arms, salt=salt)
    drawn = Counter(arm.name for n in range(3000) if (arm := experiment.arm_of(experiment.unit_of(f"u{n}", None, ""))))
    observed = [drawn[arm.name] for arm in arms]
    expected = [3000 * weight / sum(weights) for weight in weights]
    # One example in a million fails where the draw is fair.
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_experiments_are_independent_of_each_other_and_of_an_earlier_run() -> None:
    one, other, again = an_experiment("one"), an_experiment("other"), an_experiment("one", salt="2")
    for second in (other, again):
        table = Counter(
            (one.arm_of(one.unit_of(u, None, "")).name, second.arm_of(second.unit_of(u, None, "")).name)  # type: ignore[union-attr]
            for u in (f"user-{n}" for n in range(4000))
        )
        cells = [[table[a, b] for b in ("control", "large")] for a in ("control", "large")]
        assert stats.chi2_contingency(cells).pvalue > 1e-4


@given(user=st.text(min_size=1), share=st.floats(0.01, 0.99))
def test_a_larger_share_moves_nobody(user: str, share: float) -> None:
    small, whole = an_experiment(share=share), an_experiment()
    unit = small.unit_of(user, None, "r")
    assert unit == whole.unit_of(user, None, "r")
    assert small.arm_of(unit) in (None, whole.arm_of(unit))


def test_the_share_is_what_takes_part() -> None:
    experiment = an_experiment(share=0.25)
    inside = sum(experiment.arm_of(experiment.unit_of(f"u{n}", None, "")) is not None for n in range(4000))
    assert stats.binomtest(inside, 4000, 0.25).pvalue > 1e-4


def test_the_unit_is_the_user_else_the_conversation_else_the_request() -> None:
    by_user = an_experiment()
    assert by_user.unit_of("ada", "c1", "r1") == by_user.unit_of("ada", "c2", "r2")
    assert by_user.unit_of(None, "c1", "r1") == by_user.unit_of(None, "c1", "r2")
    assert by_user.unit_of(None, None, "r1") != by_user.unit_of(None, None, "r2")
    assert by_user.unit_of("x", None, "") != by_user.unit_of(None, "x", ""), "a user is no conversation of that name"
    by_request = an_experiment(unit="request")
    assert by_request.unit_of("ada", "c", "r1") != by_request.unit_of("ada", "c", "r2")


def test_a_design_is_what_an_observation_depends_on() -> None:
    base = an_experiment()
    assert base.design == an_experiment(share=0.5, paused=True, ends_at=NOW).design
    others = [
        an_experiment(salt="2"),
        an_experiment(metrics=(GOAL, Metric(name="completed", role="guard"))),
        an_experiment(arms=(Arm(name="control", weight=2), Arm(name="large", route="large"))),
    ]
    assert base.design not in {other.design for other in others}


# -- who takes part --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "request_changes"),
    [
        ({"paused": True}, {}),
        ({"starts_at": NOW + timedelta(seconds=1)}, {}),
        ({"ends_at": NOW}, {}),
        ({"team": "research"}, {}),
        ({"routes": ("terse",)}, {}),
        ({"prompt": "farewell"}, {}),
        ({}, {"prompt_label": "brief"}),
        ({}, {"purpose": "evaluation"}),
        ({}, {"purpose": "judge"}),
        ({"arms": (Arm(name="control"), Arm(name="strict", policy="strict"))}, {"policy_name": "default"}),
    ],
)
def test_who_takes_no_part(experiment: dict[str, Any], request_changes: dict[str, Any]) -> None:
    plane = a_plane(an_experiment(**experiment), allowed_policies=("default",))
    for number in range(10):
        assert assign(a_request(number, **request_changes), plane, NOW).assigned == NOT_ASSIGNED


def test_an_arm_sets_route_prompt_and_policy_and_the_budget_holds_for_its_route() -> None:
    arm = Arm(name="all", route="large", prompt_label="brief", policy="strict")
    plane = a_plane(an_experiment(arms=(Arm(name="control"), arm)))
    treated, control = judged(in_arm("all", plane), plane), judged(in_arm("control", plane), plane)
    context = treated.context
    assert (context.route, context.policy_name, context.experiments) == ("large", "strict", {"models": "all"})
    assert context.experiment_versions == {"models": an_experiment(arms=(Arm(name="control"), arm)).design}
    assert treated.messages[0].content == "Be brief."
    assert (control.context.route, control.context.experiments) == ("default", {"models": "control"})
    assert control.messages[0].content == "Be kind."
    assert treated.reserve is not None
    assert control.reserve is not None
    assert treated.reserve > control.reserve
    assert sum(hold.needed for hold in treated.holds) == treated.reserve.scaleb(12)


def test_experiments_that_change_other_things_are_joined() -> None:
    prompts = an_experiment("prompts", arms=(Arm(name="kind"), Arm(name="brief", prompt_label="brief")))
    policies = an_experiment("policies", arms=(Arm(name="usual"), Arm(name="strict", policy="strict")))
    plane = a_plane(prompts, policies)
    pairs = Counter(tuple(judged(a_request(n), plane).context.experiments.values()) for n in range(200))
    assert set(pairs) == {(p, q) for p in ("usual", "strict") for q in ("kind", "brief")}


def test_of_two_that_change_the_same_the_first_by_name_gets_the_request() -> None:
    first = an_experiment("a-models", share=0.5)
    second = an_experiment("b-models", arms=(Arm(name="old"), Arm(name="terse", route="terse")))
    # terse brings a policy of its own, so this one changes what the second does, too
    third = an_experiment("c-policies", arms=(Arm(name="usual"), Arm(name="strict", policy="strict")))
    plane = a_plane(third, second, first)
    taken = Counter(tuple(judged(a_request(n), plane).context.experiments) for n in range(400))
    assert set(taken) == {("a-models", "c-policies"), ("b-models",)}
    assert min(taken.values()) > 150
    arms = Counter(judged(a_request(n), plane).context.experiments.get("b-models") for n in range(400))
    assert stats.binomtest(arms["old"], arms["old"] + arms["terse"]).pvalue > 1e-4


# -- never at the price of a request ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "code"),
    [
        (Arm(name="x", route="closed"), "route_not_allowed"),
        (Arm(name="x", route="gone"), "unknown_route"),
        (Arm(name="x", policy="gone"), "unknown_policy"),
        (Arm(name="x", prompt_label="gone"), "unknown_prompt"),
    ],
)
def test_an_experiment_with_an_arm_that_cannot_answer_assigns_nobody(arm: Arm, code: str) -> None:
    plane = a_plane(an_experiment(arms=(Arm(name="control"), arm)))
    for number in range(10):  # whichever arm they would have got
        judgement = judged(a_request(number), plane)
        assert judgement.refused is None
        assert judgement.context.experiments == {}
        assert [skipped.code for skipped in judgement.skipped] == [code]


def test_a_request_that_an_arm_would_refuse_is_admitted_without() -> None:
    arms = (Arm(name="control"), Arm(name="named", prompt_label="named"))
    plane = a_plane(an_experiment(arms=arms))
    judgement = judged(in_arm("named", plane), plane)
    assert judgement.refused is None
    assert judgement.assigned == NOT_ASSIGNED
    assert [(skipped.code, skipped.experiment) for skipped in judgement.skipped] == [("refused", "models")]
    fine = judged(in_arm("named", plane, prompt_variables={"who": "Ada"}), plane)
    assert fine.context.experiments == {"models": "named"}


def test_a_request_that_is_refused_anyway_is_refused_for_its_own_reason() -> None:
    plane = a_plane(an_experiment())
    assert judged(a_request(messages=[], prompt_name="nothing"), plane).refused.code == "unknown_prompt"  # type: ignore[union-attr]


# -- read again ------------------------------------------------------------------------------------------------------


def test_a_request_that_is_read_again_keeps_its_arm_whatever_was_changed_since() -> None:
    arms = (Arm(name="control"), Arm(name="all", route="large", prompt_label="brief", policy="strict"))
    plane = a_plane(an_experiment(arms=arms))
    request = in_arm("all", plane)
    first = judged(request, plane)
    later = a_plane(an_experiment(arms=arms[::-1]))
    origin = LogRange(topic="llm-requests", partition=0, first_offset=0, last_offset=0)
    claim = Claim(Decision.ADMITTED, NOW, assigned=first.assigned)
    replayed = judged(request, later, assigned=claim.assigned)
    (sent,), (again,) = step(first, claim, origin, NOW), step(replayed, claim, origin, NOW)
    assert sent == again
    assert isinstance(sent.record, AdmittedRequest)
    without = judged(request, plane, assigned=NOT_ASSIGNED)
    assert without.context.experiments == {}, "an experiment that began since does not get what was admitted before"


@given(
    st.builds(
        Assigned,
        arms=st.dictionaries(st.text("ab-", min_size=1), st.text("cd")),
        route=st.none() | st.just("large"),
        policy=st.none() | st.just("strict"),
    )
)
def test_what_a_claim_remembers_of_arms_is_read_as_it_was_written(assigned: Assigned) -> None:
    assert msgspec.json.decode(msgspec.json.encode(assigned), type=Assigned) == assigned


def test_the_context_names_the_version_of_the_prompt_and_the_label_that_led_to_it() -> None:
    arms = (Arm(name="control"), Arm(name="brief", prompt_label="brief"))
    plane = a_plane(an_experiment(arms=arms))

    def named(request: LlmRequest) -> tuple[str | None, str | None, str | None]:
        context = judged(request, plane).context
        return context.prompt_name, context.prompt_label, context.prompt_version

    for arm, label in (("control", "production"), ("brief", "brief")):
        assert named(in_arm(arm, plane)) == ("greet", label, plane.version("prompts", f"greet@{label}"))
    version = plane.version("prompts", "greet@brief")
    assert version is not None
    assert named(a_request(prompt_label=version)) == ("greet", version, version)
    assert named(a_request(route="terse")) == (None, None, None)
