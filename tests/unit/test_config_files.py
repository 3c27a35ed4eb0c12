"""Configuration files: exact values in, and every problem with file, line, field, cause and remedy out."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.files import ConfigInvalid, Problem, load_files
from penstock.config.kinds import KINDS, Policy, Price, Route, Target, Team
from penstock.config.references import unpriced_targets
from penstock.config.yaml_lines import YamlError, read_yaml
from penstock.contracts.catalogue import project_file


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        kind, _, stem = name.partition("__")
        (root / kind).mkdir(parents=True, exist_ok=True)
        (root / kind / f"{stem}.yaml").write_text(text, "utf-8")
    return root


def problems(root: Path, **known: Any) -> list[Problem]:
    with pytest.raises(ConfigInvalid) as caught:
        load_files(root, **known)
    return list(caught.value.problems)


def only(root: Path) -> Problem:
    found = problems(root)
    assert len(found) == 1, [str(p) for p in found]
    return found[0]


def test_shipped_configuration_is_valid_and_priced() -> None:
    files = load_files(project_file("infra/config"))
    # Where alerts go is each operator's own (without an entry they are printed), so is what is compared; keys have no files.
    assert set(KINDS) - {"adapters", "alerting", "evaluators", "experiments", "keys", "rubrics"} <= set(files.kinds)
    assert files.warnings == ()
    for route in (r.entry for r in files.kinds["routes"].values()):
        assert isinstance(route, Route)
        assert route.prompt is None or f"{route.prompt}@production" in files.kinds["prompts"]
    default = files.kinds["policies"]["default"].entry
    assert isinstance(default, Policy)
    assert (default.input["pii"].action, default.input["injection"].action) == ("mask", "block")
    assert default.input["injection"].threshold is None


def test_examples_of_the_documentation_are_valid_beside_the_shipped_configuration(tmp_path: Path) -> None:
    shipped = project_file("infra/config")
    shutil.copytree(shipped, tmp_path / "config")
    shown = re.findall(
        r"\(`([a-z]+/[a-z-]+\.yaml)`\)[^\n]*\n```yaml\n(.*?)```", (shipped / "README.md").read_text("utf-8"), re.S
    )
    assert len(shown) >= 3
    for name, text in shown:
        (tmp_path / "config" / name).write_text(text, "utf-8")
    assert load_files(tmp_path / "config").warnings == ()


def test_prices_are_exact_to_the_last_digit(tmp_path: Path) -> None:
    text = "model: m\ninput_cost_per_token: 1.5e-07\noutput_cost_per_token: 0.000000000003\n"
    price = load_files(write(tmp_path, prices__m=text)).kinds["prices"]["m"].entry
    assert isinstance(price, Price)
    assert price.input_cost_per_token == Decimal("0.00000015")
    assert price.output_cost_per_token == Decimal("0.000000000003")


@given(st.decimals(min_value=0, max_value=10**6, places=12))
def test_numbers_never_pass_through_a_binary_float(amount: Decimal) -> None:
    assert read_yaml(f"a: {amount:f}\n").data == {"a": amount}


def test_file_holds_one_entry_or_a_list(tmp_path: Path) -> None:
    files = load_files(write(tmp_path, teams__one="name: a\n", teams__two="- name: b\n- name: c\n"))
    assert {key: located.line for key, located in files.kinds["teams"].items()} == {"a": 1, "b": 1, "c": 2}


@pytest.mark.parametrize(
    ("files", "line", "field", "cause", "remedy"),
    [
        pytest.param({"teams__a": "name: a\npolcy: x\n"}, 2, "polcy", "is no field here", "did you mean policy?",
                     id="misspelt field"),
        pytest.param({"teams__a": "- name: a\n- name: b\n  budgets:\n  - {name: d, limit: -3}\n"}, 4,
                     "1.budgets.0.limit", "greater than 0 (is -3)", "Most USD in a window", id="negative money in a list"),
        pytest.param({"teams__a": "name: a\nbudgets:\n- {name: d, limit: 1}\n- name: e\n  limit: 1\n  hours: 24\n"}, 6,
                     "budgets.1.hours", "belongs to a rolling window", "Length of a rolling window", id="rule of a budget"),
        pytest.param({"teams__a": "name: a\nbudgets:\n- {name: d, limit: 1}\n- name: d\n  limit: 2\n"}, 4,
                     "budgets.1.name", "taken by another budget", "unique within the team", id="two budgets, one name"),
        pytest.param({"prices__a": "# price\nmodel: m\ninput_cost_per_token: 1e-7\n"}, 2, "output_cost_per_token",
                     "is missing: a model of mode chat", "USD for one generated token.", id="missing field"),
        pytest.param({"routes__r": "name: r\ntargets:\n  - backend: openai\n    model: x\n    base_url: host\n"}, 5,
                     "targets.0.base_url", "'host' is no address", "", id="nested field"),
        pytest.param({"routes__r": "name: r\ntargets:\n  - backend: openai\n    model: ''\n"}, 4, "targets.0.model",
                     "must be a model's name", "", id="empty model"),
        pytest.param({"policies__p": "name: p\ninput:\n  pii: {action: mask}\n  injektion:\n    action: block\n"}, 4,
                     "input.injektion", "no such scanner", "", id="unknown scanner"),
        pytest.param(
            {"policies__p": "name: p\ninput:\n  regex:\n    action: block\n    patterns:\n      - ok\n      - '(?<=x)y'\n"},
            7, "input.regex.patterns.1", "is no RE2 expression", "RE2 expressions", id="pattern that RE2 refuses"),
        pytest.param({"prompts__q": "name: q\ntemplate:\n  - role: user\n    content: '{{x}}'\n"}, 2, "template",
                     "uses x, which variables does not declare", "", id="undeclared variable"),
        pytest.param({"prompts__q": "name: q\ntemplate:\n- {role: user, content: hi}\nvariables:\n  y: {description: d}\n"},
                     5, "variables.y", "is declared and not used", "", id="unused variable"),
        pytest.param({"teams__a": "name: a\nname: b\n"}, 2, "", "the key 'name' stands here a second time", "remove one",
                     id="repeated key"),
        pytest.param({"teams__a": "name: [a\n"}, 2, "", "not YAML", "mend the syntax", id="syntax"),
        pytest.param({"teams__a": "a: 1\n---\nb: 2\n"}, 2, "", "not YAML", "", id="two documents"),
        pytest.param({"teams__a": "name: &x [*x]\n"}, 1, "", "contains itself", "write it out", id="loop"),
        pytest.param({"teams__a": "- name: a\n- just text\n"}, 2, "1", "holds 'just text' where an entry of teams",
                     "write a mapping", id="no mapping"),
        pytest.param({"teams__a": ""}, 1, "", "holds nothing where an entry of teams belongs", "", id="empty file"),
        pytest.param({"teams__a": "name: a\n", "teams__b": "\nname: a\n"}, 2, "teams", "a is defined a second time",
                     "a.yaml:1", id="two files, one name"),
        pytest.param({"teams__a": "name: a\nbudgets:\n- name: m\n  limit: .inf\n"}, 4, "budgets.0.limit",
                     "valid decimal", "", id="infinite money"),
        pytest.param({"teams__a": "name: 2024-01-01\n"}, 1, "name", "valid string", "", id="date for a name"),
        pytest.param({"team__a": "name: a\n"}, 1, "", "team is no kind of configuration", "rename it to teams",
                     id="misspelt folder"),
    ],
)  # fmt: skip
def test_problem_names_file_line_field_cause_and_remedy(
    tmp_path: Path, files: dict[str, str], line: int, field: str, cause: str, remedy: str
) -> None:
    problem = only(write(tmp_path, **files))
    assert problem.line == line
    assert problem.field == field
    assert cause in problem.cause
    assert remedy in problem.remedy
    kind, _, stem = list(files)[-1].partition("__")
    assert str(problem).startswith(str(tmp_path / kind))
    assert field == "" or f":{line}: {field}: " in str(problem)
    assert stem in str(problem) or problem.file.is_dir()


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        teams__a="name: a b\nrequests_per_minute: none\n",
        routes__r="name: r\ntargets:\n  - backend: magic\n    model: m\n",
        prices__p="model: m\n",
    )
    assert [(p.file.name, p.line) for p in problems(root)] == [
        ("p.yaml", 1), ("r.yaml", 3), ("a.yaml", 1), ("a.yaml", 2),
    ]  # fmt: skip


ROUTE = "name: default\ntargets: [{backend: openai, model: m}]\n"
POLICY = "name: default\n"


@pytest.mark.parametrize(
    ("files", "line", "field", "cause", "remedy"),
    [
        ({"teams__t": "name: t\npolicy: defualt\n"}, 2, "policy", "'defualt', which policies", "did you mean default?"),
        ({"teams__t": "name: t\ndefault_route: other\n"}, 2, "default_route", "'other', which routes", "there are default"),
        ({"teams__t": "name: t\nallowed_routes:\n - default\n - x\n"}, 4, "allowed_routes.1", "'x'", "add it"),
        ({"routes__r": "name: r\npolicy: strict\ntargets: [{backend: openai, model: m}]\n"}, 2, "policy", "'strict'", ""),
        ({"routes__r": "name: r\nprompt: qa\ntargets: [{backend: openai, model: m}]\n", "prompts__q": "name: other\n"
          "template: [{role: user, content: hi}]\n"}, 2, "prompt", "'qa@production'", "other@production"),
    ],
)  # fmt: skip
def test_reference_to_what_does_not_exist_is_refused(
    tmp_path: Path, files: dict[str, str], line: int, field: str, cause: str, remedy: str
) -> None:
    problem = only(write(tmp_path, **{"routes__default": ROUTE, "policies__default": POLICY, **files}))
    assert (problem.line, problem.field) == (line, field)
    assert cause in problem.cause
    assert remedy in problem.remedy


def test_default_route_must_be_allowed(tmp_path: Path) -> None:
    text = "name: t\nallowed_routes: [r]\n"
    root = write(
        tmp_path,
        teams__t=text,
        policies__default=POLICY,
        routes__all="- {name: default, targets: [{backend: openai, model: m}]}\n"
        "- {name: r, targets: [{backend: openai, model: m}]}\n",
    )
    assert "not among the routes that the team may ask for" in only(root).cause


def test_kind_without_files_is_looked_up_among_what_is_published(tmp_path: Path) -> None:
    root = write(tmp_path, teams__t="name: t\n")
    assert load_files(root).kinds.keys() == {"teams"}  # nothing to check against
    default = Route(name="default", targets=(Target(backend="openai", model="m"),))
    load_files(root, published={"routes": {"default": default}, "policies": {"default": Policy(name="default")}})
    found = problems(root, published={"routes": {}, "policies": {"default": Policy(name="default")}})
    assert [p.field for p in found] == ["default_route"]


def test_model_without_price_is_a_warning(tmp_path: Path) -> None:
    root = write(tmp_path, routes__r=ROUTE, prices__p="model: x\ninput_cost_per_token: 0\noutput_cost_per_token: 0\n")
    files = load_files(root)
    assert ["has no price" in str(w) and w.line == 2 for w in files.warnings] == [True]


def test_the_models_of_a_canary_and_of_shadows_need_prices_too(tmp_path: Path) -> None:
    route = (
        "name: default\ntargets:\n- {backend: openai, model: m}\ncanary:\n  share: 0.1\n  target:\n    backend: openai\n"
        "    model: lark\nshadows:\n- share: 1\n  target: {backend: openai, model: m, name: same}\n- share: 1\n"
        "  target:\n    backend: openai\n    model: wren\n"
    )
    files = load_files(write(tmp_path, routes__r=route, prices__p=PRICES))
    assert [(warning.line, warning.field) for warning in files.warnings] == [
        (8, "canary.target.model"), (15, "shadows.1.target.model"),
    ]  # fmt: skip
    assert [warning.cause.partition(" ")[0] for warning in files.warnings] == ["'lark'", "'wren'"]
    known = {kind: {key: item.entry for key, item in entries.items()} for kind, entries in files.kinds.items()}
    at = datetime(2026, 1, 5, tzinfo=UTC)
    assert [found.model for found in unpriced_targets(known, at)] == ["lark", "wren"]


HARD = (
    "name: t\nallowed_routes: [{routes}]\nbudgets:\n- {{name: soft, limit: 1, mode: soft}}\n- {{name: day, limit: 1}}\n"
)
PRICES = "- {model: m, input_cost_per_token: 0, output_cost_per_token: 0}\n"
TARGETS = "targets: [{{backend: openai, model: {}}}]"
TWO_ROUTES = f"- {{name: default, {TARGETS.format('m')}}}\n- {{name: r, {TARGETS.format('wren')}}}\n"


def test_team_with_a_hard_budget_cannot_name_a_route_without_a_price(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        teams__t=HARD.format(routes="default, r"),
        policies__p=POLICY,
        routes__all=TWO_ROUTES,
        prices__p=PRICES,
    )
    problem = only(root)
    assert (problem.file.name, problem.line, problem.field) == ("t.yaml", 5, "budgets.1")
    assert "'day' is hard, and 'wren' of the route r has no price" in problem.cause
    assert "unpriced_model" in problem.cause
    assert "penstock prices import" in problem.remedy
    write(
        tmp_path,
        teams__t=HARD.format(routes="default, r").replace("{name: day, limit: 1}", "{name: d, limit: 1, mode: soft}"),
    )
    assert len(load_files(root).warnings) == 1  # a soft one refuses nobody
    write(tmp_path, teams__t=HARD.format(routes="default, r"), prices__q=PRICES.replace("m,", "wren,"))
    assert load_files(root).warnings == ()


def test_route_without_a_price_that_any_route_includes_is_a_warning_that_names_who_is_refused(tmp_path: Path) -> None:
    every, one = HARD.format(routes='"*"'), HARD.format(routes="default").replace("name: t", "name: u")
    root = write(tmp_path, teams__t=every, teams__u=one, policies__p=POLICY, routes__all=TWO_ROUTES, prices__p=PRICES)
    [warning] = load_files(root).warnings
    assert (warning.file.name, warning.line) == ("all.yaml", 2)
    assert "requests of t are refused as unpriced_model: hard budgets need one" in warning.cause


def test_hard_budget_is_checked_against_published_routes_too(tmp_path: Path) -> None:
    root = write(tmp_path, teams__t=HARD.format(routes="default"))
    route = Route(name="default", targets=(Target(backend="openai", model="m"),))
    published: dict[str, Any] = {
        "routes": {"default": route},
        "policies": {"default": Policy(name="default")},
        "prices": {},
    }
    assert [problem.field for problem in problems(root, published=published)] == ["budgets.1"]
    assert load_files(root, published={**published, "prices": price_of("m")}).warnings == ()


def price_of(model: str) -> dict[str, Price]:
    return {model: Price.model_validate({"model": model, "input_cost_per_token": 0, "output_cost_per_token": 0})}


def test_budget_of_a_model_that_no_route_has_is_a_warning(tmp_path: Path) -> None:
    team = "name: t\nbudgets:\n- name: d\n  per: model\n  limit: 1\n  mode: soft\n  match: [m, wern]\n"
    root = write(tmp_path, teams__t=team, policies__p=POLICY, routes__all=TWO_ROUTES)
    [warning] = load_files(root).warnings
    assert (warning.line, warning.field) == (7, "budgets.0.match.1")
    assert "'wern' is the model of no route" in warning.cause
    assert warning.remedy == "did you mean wren?"


def test_models_that_no_route_has_or_a_route_of_the_team_has_beside_them_are_warnings(tmp_path: Path) -> None:
    team = "name: t\nallowed_routes: [default, r]\nallowed_models: [m, wern]\n"
    root = write(tmp_path, teams__t=team, policies__p=POLICY, routes__all=TWO_ROUTES, prices__p=PRICES)
    unknown, refused = (warning for warning in load_files(root).warnings if warning.file.name == "t.yaml")
    assert (unknown.line, unknown.field, unknown.remedy) == (3, "allowed_models.1", "did you mean wren?")
    assert (refused.line, refused.field) == (3, "allowed_models")
    assert "the route r may be answered by wren" in refused.cause
    write(tmp_path, teams__t=team.replace("wern", "wren"))
    assert [warning.field for warning in load_files(root).warnings if warning.file.name == "t.yaml"] == []
    write(tmp_path, teams__t=team.replace("[m, wern]", "[]"))
    assert "the team could ask for nothing; name models" in only(root).cause


def test_price_by_the_million_tokens_is_a_warning(tmp_path: Path) -> None:
    root = write(tmp_path, prices__p="model: m\ninput_cost_per_token: 2.5\noutput_cost_per_token: 0.000002\n")
    [warning] = load_files(root).warnings
    assert (warning.line, warning.field) == (2, "input_cost_per_token")
    assert "prices are by the token, not by the million" in warning.cause


@pytest.mark.parametrize("written", ["2026-01-01", '"2026-01-01T01:00:00+01:00"'])
def test_two_prices_of_a_model_from_one_instant_are_refused(tmp_path: Path, written: str) -> None:
    text = "model: m\ninput_cost_per_token: {}\noutput_cost_per_token: 0\neffective_from: {}\n"
    root = write(tmp_path, prices__a=text.format(1, "2026-01-01"), prices__b="\n" + text.format(2, written))
    problem = only(root)
    assert (problem.file.name, problem.line) == ("b.yaml", 2)
    assert "m@2026-01-01 is defined a second time" in problem.cause
    assert "a.yaml:1" in problem.remedy
    write(tmp_path, prices__b=text.format(2, "2026-01-02"))
    assert len(load_files(root).kinds["prices"]) == 2


@pytest.mark.parametrize("name", ["missing", "file"])
def test_folder_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    assert "is no folder" in only(tmp_path / name).cause


def test_yaml_at_the_top_belongs_to_no_kind(tmp_path: Path) -> None:
    (tmp_path / "teams.yaml").write_text("name: a\n")
    assert "lies in no kind's folder" in only(tmp_path).cause


def test_prompt_labels_point_at_versions(tmp_path: Path) -> None:
    one = "name: q\nlabels: [production, stable]\ntemplate: [{role: user, content: one}]\n"
    two = "name: q\nlabels: [canary]\ntemplate: [{role: user, content: two}]\n"
    files = load_files(write(tmp_path, prompts__one=one, prompts__two=two))
    keys = files.kinds["prompts"]
    assert keys["q@production"].entry is keys["q@stable"].entry
    assert keys["q@canary"].entry is not keys["q@stable"].entry
    assert len(keys) == 5  # two versions, three labels
    assert len(list(files)) == 2
    clash = problems(write(tmp_path, prompts__two=two.replace("canary", "stable")))
    assert "q@stable is defined a second time" in clash[0].cause


def test_merge_keys_and_anchors_work(tmp_path: Path) -> None:
    text = "- &base\n  name: a\n  requests_per_minute: 5\n- <<: *base\n  name: b\n"
    entries = load_files(write(tmp_path, teams__all=text)).kinds["teams"]
    b = entries["b"].entry
    assert isinstance(b, Team)
    assert b.requests_per_minute == 5
    assert entries["b"].line == 4


def test_yaml_names_the_line_of_a_date_that_is_none() -> None:
    with pytest.raises(YamlError, match="line 2: '2024-13-45' is not what it looks like"):
        read_yaml("a: 1\nb: 2024-13-45\n")


RUBRIC = (
    "name: nice\nprompt: p\nroute: default\nchoices:\n"
    "- {name: is, score: 1, meaning: m}\n- {name: not, score: 0, meaning: m}\n"
)
SHOWN = "name: p\ntemplate: [{{role: user, content: '{}'}}]\nvariables:\n{}"


def a_prompt(*variables: str) -> str:
    return SHOWN.format(
        " ".join(f"{{{{{v}}}}}" for v in variables), "".join(f"  {v}: {{description: d}}\n" for v in variables)
    )


@pytest.mark.parametrize(
    ("files", "field", "cause"),
    [
        ({"routes__r": ROUTE.replace("default", "other")}, "route", "names 'default', which routes does not hold"),
        ({"prompts__p": a_prompt("answer").replace("name: p", "name: q")}, "prompt", "names 'p@production'"),
        ({"prompts__p": a_prompt("question")}, "prompt", "has no variable answer, so its judge would not see"),
        ({"prompts__p": a_prompt("answer", "mood")}, "prompt", "requires mood, which no task has"),
        (
            {"routes__r": "name: default\ntargets: [{backend: extractive, model: x}]\n"},
            "route",
            "cannot follow the JSON schema",
        ),
        (
            {"rubrics__n": RUBRIC.partition("choices")[0] + "mode: pairwise\n"},
            "prompt",
            "no variable answer_a, answer_b",
        ),
        ({"rubrics__n": RUBRIC.replace("name: not", "name: is")}, "choices.1.name", "is there twice"),
        ({"rubrics__n": RUBRIC.partition("choices")[0]}, "choices", "needs two verdicts at least"),
        ({"rubrics__n": RUBRIC + "mode: pairwise\n"}, "choices", "belong to a pointwise rubric"),
    ],
)
def test_rubric_that_no_judge_can_use_is_refused(tmp_path: Path, files: dict[str, str], field: str, cause: str) -> None:
    valid = {"rubrics__n": RUBRIC, "prompts__p": a_prompt("answer", "verdicts", "marker"), "routes__r": ROUTE}
    write(tmp_path, **valid)
    assert {key for kind in load_files(tmp_path).kinds.values() for key in kind} >= {"nice", "p@production", "default"}
    write(tmp_path, **files)
    found = [problem for problem in problems(tmp_path) if problem.field == field]
    assert any(cause in problem.cause for problem in found)


@pytest.mark.parametrize(("written", "read"), [("on", "on"), ("off", "off"), ("'on'", "on"), ("shadow", "shadow")])
def test_a_semantic_cache_is_turned_on_without_quotes(tmp_path: Path, written: str, read: str) -> None:
    """To YAML 1.1, on is true."""
    route = f"name: r\ntargets: [{{backend: extractive, model: m}}]\ncache: {{semantic: {written}}}\n"
    entry = load_files(write(tmp_path, routes__r=route)).kinds["routes"]["r"].entry
    assert isinstance(entry, Route)
    assert entry.cache.semantic == read
