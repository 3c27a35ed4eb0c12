"""The golden set's side: `penstock evaluate` says what is asked, what answers are worth, and what is a regression.

It is asked as a program, in the main environment: evaluation is a service of its own, and what it measures with is not
installed where engines are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from penstock.contracts.catalogue import project_file

from services.inference.finetune.record import Evaluated

__all__ = [
    "Answer", "Asked", "GoldenError", "Question", "ask", "asked_of", "compare", "figures_of", "keep_answers",
    "platform_command", "said",
]  # fmt: skip

_COMPARED_AS = ("base", "adapter")
_NO_FIGURES = {"cost", "latency_ms", "input_tokens", "output_tokens", "status"}
_REGRESSION = 1


class GoldenError(Exception):
    """A golden set cannot be asked or judged; the message is that of `penstock evaluate`, or names the remedy."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A case of a golden set, as `penstock evaluate cases` prints it."""

    case: str
    version: str
    messages: list[dict[str, str]]
    sampling: dict[str, Any] = {}

    @property
    def max_tokens(self) -> int | None:
        """Most tokens of its answer, where the case says."""
        return self.sampling.get("max_completion_tokens")

    @property
    def stop(self) -> Sequence[str]:
        """Texts that end its answer."""
        return list(self.sampling.get("stop", ()))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, as `penstock evaluate compare` reads it; ``model`` is the digest of the weights that gave it."""

    case: str
    version: str
    answer: str
    model: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A golden set as it is asked."""

    name: str
    version: str
    questions: list[Question]
    left_out: dict[str, int] = {}
    """Cases that a bare model cannot be asked, by the reason."""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    dataset: str
    version: str
    left_out: dict[str, int] = {}


def platform_command(python: Path | None) -> list[str]:
    """Return the words that begin a `penstock` command of the main environment.

    Args:
        python: its interpreter; None finds it: this one where evaluation can run in it, else the checkout's own.

    Raises:
        GoldenError: there is none.
    """
    if python is None:
        own = project_file("schemas").parent / ".venv" / "bin" / "python"
        # What evaluation measures with: present in the main environment alone.
        python = Path(sys.executable) if find_spec("scipy") and find_spec("rouge_score") else own
    if not python.exists():
        raise GoldenError(
            f"there is no {python}: golden sets are judged in the main environment; make it with `make test`, or name its "
            "interpreter with --main-python"
        )
    return [str(python), "-c", "from penstock.cli.main import main; main(prog_name='penstock')"]


def ask(command: Sequence[str], golden: Path) -> Asked:
    """Return what a golden set asks.

    Raises:
        GoldenError: it cannot be read, or asks nothing of a bare model.
    """
    return asked_of(said(command, ["evaluate", "cases", "--dataset", str(golden)]), str(golden))


def asked_of(printed: str, place: str) -> Asked:
    """Return what `penstock evaluate cases` printed; ``place`` is what errors call it.

    Raises:
        GoldenError: it is something else, or asks nothing of a bare model.
    """
    # Not splitlines(): texts in JSON may hold U+2028 and its like as they are.
    lines = [line for line in printed.split("\n") if line.strip()]
    try:
        head = msgspec.json.decode(lines[0] if lines else "", type=_Head)
        questions = [msgspec.json.decode(line, type=Question) for line in lines[1:]]
    except msgspec.MsgspecError as error:
        raise GoldenError(f"{place} is not what `penstock evaluate cases` prints: {error}") from error
    if not questions:
        raise GoldenError(f"{place} asks nothing that a model can answer without the stream: no case expects an answer")
    return Asked(name=head.dataset, version=head.version, questions=questions, left_out=head.left_out)


def keep_answers(folder: Path, base: Sequence[Answer], adapter: Sequence[Answer]) -> None:
    """Write the answers of both into a folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, answers in zip(_COMPARED_AS, (base, adapter), strict=True):
        (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in answers))


def compare(
    command: Sequence[str], golden: Path, folder: Path, adapter_sha256: str, options: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Have the answers that are kept in a folder compared, and return the report, which is written beside them.

    Args:
        command: begins a `penstock` command.
        golden: the set.
        folder: as :func:`keep_answers` left it.
        adapter_sha256: digest of the weights that must have given the adapter's answers.
        options: more options of `penstock evaluate compare`: evaluators, rules.

    Raises:
        GoldenError: there are no such answers, or they cannot be compared.
    """
    arguments = ["evaluate", "compare", "--dataset", str(golden), "--out", str(folder), *options]
    for name in _COMPARED_AS:
        arguments += ["--answers", f"{name}={folder / name}.jsonl"]
    try:
        with (folder / f"{_COMPARED_AS[1]}.jsonl").open("rb") as file:
            given = {msgspec.json.decode(line, type=Answer).model for line in file}
    except (OSError, msgspec.MsgspecError) as error:
        raise GoldenError(
            f"{folder} holds no answers: run `penstock finetune evaluate` with --base ({error})"
        ) from error
    if given != {adapter_sha256}:
        raise GoldenError(
            f"the answers in {folder} are of other weights: run `penstock finetune evaluate` with --base again"
        )
    said(command, arguments, fine=(0, _REGRESSION))
    report: Mapping[str, Any] = msgspec.json.decode((folder / "report.json").read_bytes())
    return report


def figures_of(report: Mapping[str, Any], adapter_sha256: str) -> Evaluated:
    """Return what a report says of the adapter beside its base."""
    rows = {row["metric"]: row for one in report["comparisons"] for row in one["metrics"]}
    figures: dict[str, float] = {}
    for metric, row in rows.items():
        if metric not in _NO_FIGURES and not metric.startswith("prompt."):
            name = metric.removeprefix("answer.")
            figures[f"golden.{name}"] = round(row["candidate"], 6)
            figures[f"base.{name}"] = round(row["baseline"], 6)
    return Evaluated(
        adapter_sha256=adapter_sha256,
        golden=report["run"]["dataset"],
        version=report["run"]["dataset_version"],
        cases=max((row["cases"] for row in rows.values()), default=0),
        ok=not report["problems"],
        problems=list(report["problems"]),
        figures=figures,
    )


def said(command: Sequence[str], arguments: Sequence[str], fine: Sequence[int] = (0,)) -> str:
    """Run a `penstock` command of the main environment and return what it printed.

    Raises:
        GoldenError: it ended with a status that is none of ``fine``.
    """
    root = project_file("schemas").parent
    paths = [str(root / "shared"), str(root), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode not in fine:
        raise GoldenError(f"`penstock {' '.join(arguments[:2])}` failed: {run.stderr.strip().removeprefix('Error: ')}")
    return run.stdout
