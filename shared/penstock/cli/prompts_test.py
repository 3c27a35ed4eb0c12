"""``penstock prompts test``: what lies beside the prompts, on their rendered text and on answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from penstock.cli import change_options
from penstock.cli.cluster import cluster_settings
from penstock.cli.connection import connect, run_command
from penstock.cli.printable import printable
from penstock.cli.prompts_reading import expected_errors, of_file, read_histories
from penstock.client import Client
from penstock.config.prompt_history import PromptHistory, PromptUnknown
from penstock.config.prompt_tests import (
    TESTS_SUFFIX,
    PromptTest,
    PromptTestsInvalid,
    answer_failures,
    read_tests,
    rendered_failures,
    tests_beside,
)
from penstock.config.prompts import Prompt
from penstock.contracts.catalogue import project_file
from penstock.contracts.records import LlmResult

__all__ = ["test"]

_AT_ONCE = 8


@dataclass(slots=True)
class Run:
    """One test of one version, and what failed."""

    prompt: Prompt
    test: PromptTest
    failures: list[str] = field(default_factory=list)
    answered: bool = False

    @property
    def outcome(self) -> str:
        """failed, passed, or unasked: it expects an answer and nothing else, and none was asked for."""
        if self.failures:
            return "failed"
        looked_at = self.answered or self.test.rendered or self.test.refused is not None
        return "passed" if looked_at else "unasked"


@dataclass(frozen=True, slots=True)
class Asking:
    """How answers are asked for."""

    team: str
    route: str
    key_id: str | None
    timeout_s: float


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--answers", is_flag=True, help="Ask the running stack as well, and look at the answers.")
@click.option("--team", help="Team that asks and pays; for --answers.")
@click.option("--route", default="default", show_default=True, help="Route that answers; for --answers.")
@click.option("--key", "key_id", help="Identity of the team's key, never the key; for --answers.")
@click.option("--timeout", "timeout_s", default=60.0, show_default=True, help="Seconds to wait for each answer.")
@change_options.as_json
def test(
    path: Path | None, answers: bool, team: str | None, route: str, key_id: str | None, timeout_s: float, as_json: bool
) -> None:
    """Run the tests beside the prompts in PATH, a file or a folder (default: infra/config/prompts).

    Those of rendered text need no cluster. With --answers, what has an answer to expect is asked of the running stack, by
    the version that the file has, which must be published. Exits 1 where a test fails, 2 where a file is invalid.
    """
    if answers and team is None:
        raise click.UsageError("--answers are asked and paid for by a team: give --team")
    with expected_errors():
        runs, untested = _collected(path or project_file("infra/config/prompts"))
        for run in runs:
            run.failures += rendered_failures(run.prompt, run.test)
        if answers and team is not None:
            asked = [run for run in runs if run.test.answer is not None and not run.failures]
            run_command(_ask(asked, Asking(team, route, key_id, timeout_s)))
    if as_json:
        click.echo(json.dumps([_data(run) for run in runs], indent=2, ensure_ascii=False))
    else:
        _show(runs, untested, answers=answers)
    if any(run.failures for run in runs):
        sys.exit(1)


def _collected(path: Path) -> tuple[list[Run], list[str]]:
    """Return the tests at ``path``, each with the version it is for, and the prompts without any.

    Raises:
        ConfigInvalid: a file of prompts is invalid.
        PromptTestsInvalid: a file of tests is, has no prompts beside it, or is for none of those.
    """
    runs: list[Run] = []
    untested: list[str] = []
    for file in _files(path):
        found, beside = of_file(file), tests_beside(file)
        tests = read_tests(beside) if beside.exists() else None
        concerned = [prompt for prompt in found if tests is not None and tests.concern(prompt)]
        if tests is not None and not concerned:
            held = ", ".join(f"{prompt.name} ({', '.join(prompt.labels)})" for prompt in found) or "none"
            raise PromptTestsInvalid(f"{beside}: is for none of the prompts in {file.name}, which are {held}")
        untested += [prompt.key for prompt in found if prompt not in concerned]
        runs += [Run(prompt, test) for prompt in concerned for test in (tests.tests if tests else ())]
    return runs, untested


def _files(path: Path) -> list[Path]:
    folder = sorted(file for file in path.rglob("*") if file.suffix in (".yaml", ".yml"))
    paths = folder if path.is_dir() else [path]
    prompts: dict[Path, None] = {}
    for file in paths:
        if file.name.endswith(TESTS_SUFFIX):
            stem = file.name.removesuffix(TESTS_SUFFIX)
            beside = [file.with_name(stem + suffix) for suffix in (".yaml", ".yml")]
            if not (there := [each for each in beside if each.exists()]):
                raise PromptTestsInvalid(f"{file}: there are no prompts beside it: it is for those in {beside[0].name}")
            prompts[there[0]] = None
        else:
            prompts[file] = None
    return list(prompts)


async def _ask(runs: Sequence[Run], asking: Asking) -> None:
    """Ask what ``runs`` expect answers to, a few at a time, and add what the answers lack."""
    async with connect() as connection:
        _refuse_unpublished(runs, await read_histories(connection))
    at_once = asyncio.Semaphore(_AT_ONCE)
    async with Client(cluster_settings(), tenant=asking.team) as client:

        async def one(run: Run) -> None:
            async with at_once:
                try:
                    result = await client.ask(
                        run.test.question or (),
                        timeout_s=asking.timeout_s,
                        route=asking.route,
                        key_id=asking.key_id,
                        prompt=run.prompt.name,
                        prompt_label=run.prompt.version,
                        variables=run.test.variables,
                        purpose="evaluation",
                    )
                except TimeoutError as error:
                    run.failures.append(str(error))
                else:
                    run.failures += _of_result(run, result)
                run.answered = True

        await asyncio.gather(*(one(run) for run in runs))


def _of_result(run: Run, result: LlmResult) -> list[str]:
    assert run.test.answer is not None
    return answer_failures(run.test.answer, result.status, result.code, result.reason or "", result.content)


def _refuse_unpublished(runs: Sequence[Run], found: Mapping[str, PromptHistory]) -> None:
    for run in runs:
        history = found.get(run.prompt.name)
        if history is None or run.prompt.version not in history.versions:
            raise PromptUnknown(
                f"{run.prompt.key} is not published, so nothing can answer with it: run `penstock prompts publish` on its "
                "file; nobody else gets a version that no label points at"
            )


def _show(runs: Sequence[Run], untested: Sequence[str], *, answers: bool) -> None:
    shown = None
    for run in runs:
        if run.prompt.key != shown:
            shown = run.prompt.key
            click.echo(shown)
        click.echo(f"  {run.outcome:<7}  {printable(run.test.name)}")
        for failure in run.failures:
            click.echo(f"           {printable(failure)}")
    outcomes = Counter(run.outcome for run in runs)
    click.echo(", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("passed", "failed", "unasked")))
    if not answers and any(run.test.answer is not None for run in runs):
        click.echo("answers were not asked for: add --answers")
    if untested:
        click.echo(f"without tests: {', '.join(untested)}")


def _data(run: Run) -> dict[str, Any]:
    return {
        "prompt": run.prompt.name,
        "version": run.prompt.version,
        "test": run.test.name,
        "outcome": run.outcome,
        "answered": run.answered,
        "failures": run.failures,
    }
