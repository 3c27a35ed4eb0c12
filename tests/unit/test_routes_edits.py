"""Routes as operators change them: versions, weights, what would be broken, and how it is shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from click.testing import CliRunner
from penstock.cli.route_tables import change_of, route_data, show_list, show_route
from penstock.cli.routes import routes
from penstock.config.kinds import Budget, Canary, Policy, Price, Route, Shadow, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.references import new_problems
from penstock.config.route_edits import EditInvalid, edited, without_canary
from penstock.config.route_history import RouteVersion, VersionUnknown, called, histories, version_before
from penstock.contracts.records import ConfigEntry, ExperimentEvent

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
LARK = Target(backend="openai", model="lark", base_url="http://127.0.0.1:1/v1", weight=3)
WREN = Target(backend="openai", model="wren", base_url="http://127.0.0.1:1/v1", name="small")
SPARE = Target(backend="extractive", model="penstock-extractive-1", weight=0)
PLAIN = Route(name="chat", targets=(LARK, WREN, SPARE))
TRYING = PLAIN.model_copy(update={"canary": Canary(target=Target(backend="vllm", model="new"), share=0.2)})
TRYING = Route.model_validate(TRYING.model_dump())


def a_record(route: Route, minute: int, *, deleted: bool = False, **changes: object) -> ConfigEntry:
    fields = {
        "event_id": f"e{minute}", "request_id": "", "tenant_id": "operations", "causation_id": "", "kind": "routes",
        "occurred_at": NOW + timedelta(minutes=minute), "name": route.name, "version": route.version,
        "content": "" if deleted else route.canonical, "deleted": deleted, "author": "ann", "reason": f"r{minute}",
    }  # fmt: skip
    return ConfigEntry(**(fields | changes))  # type: ignore[arg-type]


def test_the_history_has_each_version_with_when_it_was_in_force() -> None:
    other = Route(name="other", targets=(LARK,))
    found = histories(
        [
            a_record(PLAIN, 0),
            a_record(other, 1),
            a_record(PLAIN, 2),
            a_record(TRYING, 3),
            a_record(TRYING, 4, version="0" * 16),
            a_record(PLAIN, 5, deleted=True),
            a_record(PLAIN, 6),
        ]
    )
    chat = found["chat"]
    assert [(each.version, each.published_at.minute, each.reason) for each in chat] == [
        (PLAIN.version, 0, "r0"), (TRYING.version, 3, "r3"), ("", 5, "r5"), (PLAIN.version, 6, "r6"),
    ]  # fmt: skip
    assert [each.closed_at and each.closed_at.minute for each in chat] == [3, 5, 6, None]
    assert [each.version for each in found["other"]] == [other.version]


def test_the_version_before_is_what_the_last_publication_replaced() -> None:
    versions = histories([a_record(PLAIN, 0), a_record(TRYING, 1)])["chat"]
    assert version_before(versions) == PLAIN
    back = histories([a_record(PLAIN, 0), a_record(TRYING, 1), a_record(PLAIN, 2)])["chat"]
    assert version_before(back) == TRYING
    gone = histories([a_record(PLAIN, 0), a_record(PLAIN, 1, deleted=True)])["chat"]
    assert version_before(gone) == PLAIN
    with pytest.raises(VersionUnknown, match="published once"):
        version_before(versions[:1])


def test_a_version_is_called_by_how_its_hash_begins() -> None:
    versions = histories([a_record(PLAIN, 0), a_record(TRYING, 1), a_record(PLAIN, 2)])["chat"]
    assert called(versions, PLAIN.version[:6]) == PLAIN
    assert called(versions, TRYING.version) == TRYING
    for prefix in ("", "zzz"):
        with pytest.raises(VersionUnknown, match=f"has had {PLAIN.version}, {TRYING.version}"):
            called(versions, prefix)


def test_weights_and_choice_change_and_nothing_else() -> None:
    changed = edited(TRYING, weights={"small": 7}, choice="fastest")
    change = change_of(TRYING, changed)
    assert change is not None
    assert change.differences() == [("choice", None, '"fastest"'), ("targets.1.weight", None, "7")]
    assert change_of(TRYING, edited(TRYING, weights={"lark": 3})) is None
    assert without_canary(TRYING).version == PLAIN.version


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"smal": 1}, "smal is no target of it; did you mean small"),
        ({"zzz": 1}, "its targets are lark, small, penstock-extractive-1"),
        ({"new": 1}, "new has a share, not a weight"),
        ({"lark": 0, "small": 0}, "none would ever be asked first"),
    ],
)
def test_weights_that_make_no_route_are_refused(weights: dict[str, int], said: str) -> None:
    with pytest.raises(EditInvalid, match=said):
        edited(TRYING, weights=weights)


def test_what_a_change_would_break_elsewhere_is_found() -> None:
    hard = Team(
        name="shop", allowed_routes=("chat",), default_route="chat", budgets=(Budget(name="day", limit=Decimal(1)),)
    )
    free = {"input_cost_per_token": Decimal(0), "output_cost_per_token": Decimal(0)}
    prices = [Price(model=model, **free) for model in ("lark", "wren", "penstock-extractive-1")]  # type: ignore[arg-type]
    plane = ConfigPlane.of([hard, PLAIN, Policy(name="default"), *prices])
    known = {kind: plane.entries(kind) for kind in ("teams", "routes", "policies", "prices")}
    assert new_problems(known, edited(PLAIN, weights={"small": 2})) == []
    found = new_problems(known, TRYING)
    assert {(entry, broken.warning) for entry, broken in found} == {("teams/shop", False), ("routes/chat", True)}
    (warning,) = [broken for _, broken in found if broken.warning]
    assert warning.path == ("canary", "target", "model")
    lost = new_problems(known, Route(name="chat", targets=(LARK,), policy="strict"))
    assert [(entry, broken.path) for entry, broken in lost] == [("routes/chat", ("policy",))]
    # What was wrong before with others is no reason to refuse.
    broken_before = ConfigPlane.of([hard, PLAIN, Policy(name="default")])
    known = {kind: broken_before.entries(kind) for kind in ("teams", "routes", "policies", "prices")}
    assert {entry for entry, _ in new_problems(known, edited(PLAIN, weights={"small": 2}))} == {"routes/chat"}


def versions_of(*published: Route) -> list[RouteVersion]:
    return histories([a_record(route, minute) for minute, route in enumerate(published)])["chat"]


def test_a_route_is_shown_with_shares_canary_and_history(capsys: pytest.CaptureFixture[str]) -> None:
    shadowed = Route.model_validate(
        TRYING.model_dump() | {"shadows": [Shadow(target=Target(backend="vllm", model="echo"), share=0.5).model_dump()]}
    )
    price = Price(model="lark", input_cost_per_token=Decimal("1.5e-7"), output_cost_per_token=Decimal("6e-7"))
    show_route(versions_of(PLAIN, TRYING, shadowed), {"lark": price}, None)
    text = capsys.readouterr().out
    assert f"chat  version {shadowed.version}, in force since 2026-01-05 09:02:00 UTC, by ann: r2" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["lark"][4:8] == ["60%", "0.15", "/", "0.6"]
    assert rows["small"][4:7] == ["20%", "no", "price"]
    assert rows["new"][1:5] == ["canary", "vllm", "new", "20%"]
    assert rows["echo"][1:5] == ["shadow", "vllm", "echo", "50%"]
    assert "canary new: on trial with 20% of the traffic, sticky by user" in text
    history = text.partition("history")[2]
    assert [line.split()[0] for line in history.splitlines()[2:]] == [shadowed.version, TRYING.version, PLAIN.version]
    assert "canary.share" in history


def test_a_canary_that_was_taken_back_is_told_with_why(capsys: pytest.CaptureFixture[str]) -> None:
    decision = ExperimentEvent(
        event_id="d", request_id="", tenant_id="platform", occurred_at=NOW, causation_id="", experiment="canary:chat",
        version="v", decision="worse", arm="canary", metric="failed", difference=0.25, interval=[0.1, 0.4],
    )  # fmt: skip
    versions = versions_of(PLAIN, TRYING)
    show_route(versions, {}, decision)
    assert "canary new: taken back at 2026-01-05 09:00:00 UTC, failed is worse: by +0.25, from 0.1 to 0.4" in (
        capsys.readouterr().out
    )
    data = route_data(versions, decision)
    assert data["canary"] == {
        "name": "new", "share": 0.2,
        "taken_back": {"at": NOW.isoformat(), "metric": "failed", "difference": 0.25, "interval": [0.1, 0.4]},
    }  # fmt: skip
    assert [target["share"] for target in data["targets"]] == pytest.approx([0.75, 0.25, 0.0])
    assert [each["version"] for each in json.loads(json.dumps(data))["history"]] == [PLAIN.version, TRYING.version]
    show_list(versions[-1:], {})
    assert "new 20%" in capsys.readouterr().out
    show_list(versions[-1:], {"chat": decision})
    assert "lark 75%, small 25%" in (listed := capsys.readouterr().out)
    assert "new taken back" in listed


def test_a_route_that_was_withdrawn_is_still_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    versions = histories([a_record(PLAIN, 0), a_record(PLAIN, 1, deleted=True)])["chat"]
    show_route(versions, {}, None)
    assert "chat  withdrawn 2026-01-05 09:01:00 UTC" in capsys.readouterr().out
    assert route_data(versions, None)["version"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "chat"], "nothing to change: give --weight, --choice or --file"),
        (["set", "chat", "--weight", "lark"], "write TARGET=N"),
        (["set", "chat", "--weight", "lark=-1"], "write TARGET=N"),
        (["set", "chat", "--weight", "lark=1", "--weight", "lark=2"], "lark is given twice"),
        (["set", "chat", "--choice", "best"], "'best' is not one of"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(routes, arguments)
    assert result.exit_code == 2
    assert said in result.output
