"""``penstock prices`` on files: what a person sees, and what it writes and refuses to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from penstock.cli.prices import prices
from penstock.config.files import load_files
from penstock.config.price_files import read_prices

FIXTURE = Path(__file__).parent / "data" / "litellm_prices.json"
CHAT = {"litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
Cli = Callable[..., Result]


@pytest.fixture
def cli() -> Cli:
    return lambda *arguments: CliRunner().invoke(prices, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration of one route, one team and one price of a person."""
    for file, text in {
        "routes/r.yaml": "name: default\ntargets: [{backend: openai, model: owl}]\n",
        "policies/p.yaml": "name: default\n",
        "teams/t.yaml": "name: shop\n",
        "prices/own.yaml": "# mine\nmodel: owl\ninput_cost_per_token: 0.000001\noutput_cost_per_token: 0.000002\n",
    }.items():
        (tmp_path / "config" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "config" / file).write_text(text, "utf-8")
    return tmp_path / "config"


def source(tmp_path: Path, **models: Any) -> Path:
    file = tmp_path / "source.json"
    file.write_text(json.dumps({name: {**CHAT, **fields} for name, fields in models.items()}), "utf-8")
    return file


def test_import_says_what_it_took_and_skipped_and_writes_a_valid_file(cli: Cli, folder: Path) -> None:
    out = folder / "prices" / "litellm.yaml"
    dry = cli("import", FIXTURE, "--out", out, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "11 taken, 14 skipped, of 25 models in the file" in dry.output
    assert "mode that is not run here" in dry.output
    assert "+ heron-large  2.5 in / 10 out USD a million, cache writing 3.125, reasoning 12" in dry.output
    assert "11 new, 0 changed, 0 gone, 0 as configured" in dry.output
    assert "1 of the models taken are past the date their provider named as their end: osprey-legacy" in dry.output
    assert not out.exists()
    done = cli("import", FIXTURE, "--out", out)
    assert f"11 prices written to {out}; publish them with `penstock config apply`" in done.output
    assert len(load_files(folder).kinds["prices"]) == 12
    again = cli("import", FIXTURE, "--out", out)
    assert "0 new, 0 changed, 0 gone, 11 as configured" in again.output
    assert "stays as it is" in again.output
    assert [file.name for file in out.parent.iterdir() if file.name.startswith(".")] == []


def test_verbose_names_every_model_and_reason(cli: Cli, tmp_path: Path) -> None:
    told = cli("import", FIXTURE, "--out", tmp_path / "x.yaml", "--dry-run", "--verbose").output
    assert "skipped wordy: price that is no amount (input_cost_per_token: 'see the web page')" in told
    assert "left out input_cost_per_token_batches: in 2 of the prices taken" in told
    assert "+ noisy-heron" in told
    quiet = cli("import", FIXTURE, "--out", tmp_path / "x.yaml", "--dry-run").output
    assert "+ ... and 1 more new; --verbose lists them" in quiet


def test_change_in_place_is_shown_by_field_and_warned_of(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "prices" / "litellm.yaml"
    cli("import", source(tmp_path, m={}), "--out", out)
    changed = cli("import", source(tmp_path, m={"input_cost_per_token": 3e-06}), "--out", out)
    assert '    input_cost_per_token: "0.000001" -> "0.000003"' in changed.output
    assert "warning: 1 prices change in place" in changed.stderr
    assert "With --effective-from DATE the older price stays" in changed.stderr
    assert len(read_prices(out)) == 1
    dated = cli(
        "import", source(tmp_path, m={"input_cost_per_token": 4e-06}), "--out", out, "--effective-from", "2026-07-01"
    )
    assert "warning" not in dated.stderr
    assert [price.key for price in read_prices(out)] == ["m", "m@2026-07-01"]


def test_model_that_is_gone_is_told_and_stays_until_it_is_pruned(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "prices" / "litellm.yaml"
    cli("import", source(tmp_path, a={}, b={}), "--out", out)
    kept = cli("import", source(tmp_path, a={}), "--out", out)
    assert "- b  1 in / 2 out USD a million" in kept.output
    assert "its price stays; --prune removes it" in kept.output
    assert (
        "1 gone" not in cli("import", source(tmp_path, a={}), "--out", out, "--model", "a").output
    )  # b was not asked for
    assert cli("import", source(tmp_path, a={}), "--out", out, "--prune").exit_code == 0
    assert [price.model for price in read_prices(out)] == ["a"]


def test_file_of_a_person_is_never_written_over(cli: Cli, folder: Path, tmp_path: Path) -> None:
    own = folder / "prices" / "own.yaml"
    before = own.read_text("utf-8")
    refused = cli("import", source(tmp_path, owl={"input_cost_per_token": 9e-06}), "--out", own)
    assert refused.exit_code == 1
    assert "was not made by an import: choose another file with --out, or write over it with --force" in refused.output
    assert own.read_text("utf-8") == before
    beside = cli(
        "import", source(tmp_path, owl={"input_cost_per_token": 9e-06}), "--out", own.with_name("litellm.yaml")
    )
    assert f"not written, since {own} holds this price" in beside.output
    forced = cli("import", source(tmp_path, owl={"input_cost_per_token": 9e-06}), "--out", own, "--force")
    assert forced.exit_code == 0, forced.output
    assert str(read_prices(own)[0].input_cost_per_token) == "0.000009"


def test_models_are_named_as_routes_name_them(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "prices" / "x.yaml"
    cli("import", FIXTURE, "--out", out, "--model", "acme/heron-large", "--as", "my-deployment")
    assert [price.model for price in read_prices(out)] == ["my-deployment"]
    cli("import", FIXTURE, "--out", out, "--provider", "plover", "--strip")
    assert [price.model for price in read_prices(out)] == ["my-deployment", "plover-1m"]
    two = cli("import", FIXTURE, "--out", out, "--model", "*heron-large", "--as", "both")
    assert (two.exit_code, "heron-large and acme/heron-large would both be named both" in two.output) == (1, True)
    assert cli("import", FIXTURE, "--as", "x", "--strip").exit_code == 2


def test_nothing_that_fits_is_an_error_that_says_so(cli: Cli, tmp_path: Path) -> None:
    none = cli("import", FIXTURE, "--out", tmp_path / "x.yaml", "--model", "gpt-*")
    assert none.exit_code == 1
    assert "none of 25 models fits --model gpt-*" in none.output
    assert not (tmp_path / "x.yaml").exists()
    free = cli("import", FIXTURE, "--out", tmp_path / "x.yaml", "--model", "free-heron")
    assert (free.exit_code, "free-heron (input_cost_per_token and output_cost_per_token of 0)" in free.output) == (
        1,
        True,
    )


def test_page_instead_of_the_file_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text("<html>", "utf-8")
    told = cli("import", tmp_path / "page.json", "--out", tmp_path / "x.yaml")
    assert (told.exit_code, "is no JSON" in told.output, "Traceback" in told.output) == (1, True, False)


def test_names_of_others_do_not_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    told = cli("import", source(tmp_path, **{"m\x1b[2Jx": {}, "[bold]": {"mode": "chat"}}), "--out", tmp_path / "x.yaml",
               "--dry-run")  # fmt: skip
    assert "\x1b" not in told.output
    assert "+ m\\x1b[2Jx" in told.output


def test_show_lists_prices_in_force_and_the_history_of_one(cli: Cli, folder: Path, tmp_path: Path) -> None:
    later = source(tmp_path, owl={"input_cost_per_token": 5e-06}, new={})
    cli("import", later, "--out", folder / "prices" / "litellm.yaml", "--effective-from", "2026-07-01")
    before = cli("show", "--files", folder, "--at", "2026-06-30").output
    assert "owl" in before
    assert "1 models with a price, USD for a million tokens" in before
    assert "2 models with a price" in cli("show", "--files", folder, "--at", "2026-07-01").output
    history = json.loads(cli("show", "owl", "--files", folder, "--at", "2026-07-01", "--json").output)
    assert [(one["state"], one["price"]["input_cost_per_token"], one["effective_until"]) for one in history] == [
        ("ended", "0.000001", "2026-07-01T00:00:00Z"), ("in force", "0.000005", None),
    ]  # fmt: skip
    assert [one["version"] for one in history] == [
        price.version for price in read_prices(folder / "prices" / "own.yaml")
    ] + [price.version for price in read_prices(folder / "prices" / "litellm.yaml") if price.model == "owl"]
    table = cli("show", "owl", "--files", folder, "--at", "2026-07-01").output
    assert all(word in table for word in ("ended", "in force", "further notice", history[0]["version"]))
    unknown = cli("show", "owls", "--files", folder)
    assert (unknown.exit_code, "owls has no price; did you mean owl?" in unknown.output) == (1, True)


def test_check_names_models_of_routes_without_a_price(cli: Cli, folder: Path) -> None:
    assert cli("check", "--files", folder).output == "every model of 1 routes has a price\n"
    (folder / "routes" / "r.yaml").write_text(
        "name: default\ntargets:\n- {backend: openai, model: owl}\n- {backend: openai, model: wren}\n", "utf-8"
    )
    found = cli("check", "--files", folder)
    assert found.exit_code == 1
    assert "wren of the route default has no price" in found.output
    assert "1 targets without a price" in found.output
    (folder / "prices" / "wren.yaml").write_text(
        "{model: wren, input_cost_per_token: 1, output_cost_per_token: 1, effective_from: 2027-01-01}", "utf-8"
    )
    (folder / "teams" / "t.yaml").write_text("name: shop\nbudgets: [{name: daily, limit: 1}]\n", "utf-8")
    before = cli("check", "--files", folder, "--at", "2026-12-31")
    assert "(one begins at 2027-01-01 00:00 UTC); refused for shop, with a hard budget" in before.output
    assert cli("check", "--files", folder, "--at", "2027-01-01").exit_code == 0


def test_invalid_files_are_told_with_their_line(cli: Cli, folder: Path, tmp_path: Path) -> None:
    (folder / "prices" / "bad.yaml").write_text("model: x\n", "utf-8")
    for command in (["show", "--files", folder], ["check", "--files", folder],
                    ["import", source(tmp_path, m={}), "--out", folder / "prices" / "litellm.yaml"]):  # fmt: skip
        told = cli(*command)
        assert told.exit_code == 1
        assert "bad.yaml:1: input_cost_per_token: is missing" in told.output
