"""Options that the commands of `penstock finetune` share, and what they need of the environment."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click
from penstock.cli.publishing import user

from services.inference.finetune.record import Options

__all__ = [
    "FOLDER", "base_option", "device_option", "golden_options", "need_engine", "options_of", "publishing_options",
    "route_options", "training_options",
]  # fmt: skip

FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_DEFAULTS = Options()
_NEEDED = ("torch", "transformers", "peft")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def need_engine(command: str) -> None:
    """Stop where what models run on is not installed.

    Raises:
        click.ClickException: says where it is.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise click.ClickException(
            f"`penstock finetune {command}` runs a model, and {', '.join(missing)} is not installed here: make the engine's "
            f"environment with `make vllm` and run `.venv-vllm/bin/penstock finetune {command}`"
        )


def _all(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _share(name: str, default: float, help: str) -> Callable[[Any], Any]:
    return click.option(
        name, type=click.FloatRange(0, 1, min_open=True, max_open=True), default=default, show_default=True, help=help
    )


def _count(name: str, default: int | None, help: str) -> Callable[[Any], Any]:
    return click.option(name, type=click.IntRange(1), default=default, show_default=default is not None, help=help)


base_option = click.option(
    "--base", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="Folder of the base model: config.json, *.safetensors, a tokenizer with a chat template.",
)  # fmt: skip
device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1; auto takes a GPU where there is one."
)

training_options = _all(
    click.option("--base-model", help="Name of the base, as routes ask for it.  [default: its folder's]"),
    _count("--rank", _DEFAULTS.rank, "Rank of the adapter."),
    _count("--alpha", _DEFAULTS.alpha, "The change is scaled by alpha / rank."),
    click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), default=_DEFAULTS.dropout, show_default=True,
                 help="Share of the adapter's inputs that is dropped in training."),
    click.option("--target-modules", default=_DEFAULTS.target_modules, show_default=True,
                 help="Layers that are adapted, by name, separated by commas."),
    click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=_DEFAULTS.learning_rate,
                 show_default=True, help="Highest rate."),
    _share("--warmup", _DEFAULTS.warmup, "Share of the steps in which the rate rises."),
    _count("--epochs", _DEFAULTS.epochs, "Most passes over the data."),
    _count("--batch-size", _DEFAULTS.batch_size, "Conversations on the device at once."),
    _count("--accumulate", _DEFAULTS.accumulate, "Batches that make a step."),
    _count("--max-tokens", _DEFAULTS.max_tokens, "Longer conversations are left out."),
    _count("--evaluate-steps", None, "Steps between two looks at the held-out loss.  [default: an epoch]"),
    _count("--patience", _DEFAULTS.patience, "Looks without a better loss after which training ends."),
    click.option("--min-rating", type=click.FloatRange(0, 1), default=_DEFAULTS.min_rating, show_default=True,
                 help="Mean rating from which an answer is learned from; corrections always are."),
    click.option("--weights", type=click.Choice(["rating", "equal"]), default=_DEFAULTS.weights, show_default=True,
                 help="How much an answer counts: as its rating, or all alike."),
    _share("--held-out", _DEFAULTS.held_out, "Share of the conversations that is held out."),
    click.option("--gradient-checkpointing", is_flag=True, help="Less memory, a third more time."),
    click.option("--seed", default=_DEFAULTS.seed, show_default=True, help="Of split, order, weights and dropout."),
    click.option("--keep-personal-data", "personal", is_flag=True,
                 help="Keep conversations with what looks like personal data."),
)  # fmt: skip

golden_options = _all(
    click.option("--max-answer-tokens", type=click.IntRange(1), default=256, show_default=True,
                 help="Most tokens of an answer, where its case says nothing."),
    click.option("--answer-batch", type=click.IntRange(1), default=8, show_default=True, help="Cases at once."),
    click.option("--evaluator", "evaluators", multiple=True, help="Only this evaluator; repeatable.  [default: all]"),
    click.option("--fail-if", "fail_if", multiple=True, metavar="RULE",
                 help="Regression, as of `penstock evaluate run`; repeatable."),
    click.option("--main-python", type=_FILE, help="Interpreter of the main environment, which judges."),
)  # fmt: skip

publishing_options = _all(
    click.option("--author", default=user, help="Who.  [default: the user of this machine]"),
    click.option("--reason", default="", help="Why, for the record."),
    click.option("--dry-run", is_flag=True, help="Show what would be published."),
)

route_options = _all(
    click.option("--share", type=click.FloatRange(0, 0.5, min_open=True), default=0.05, show_default=True,
                 help="Share of the route's traffic."),
    click.option("--sticky", type=click.Choice(["user", "conversation", "request"]), default="user", show_default=True,
                 help="What keeps its arm."),
    click.option("--max-error-rate", type=click.FloatRange(0, 1, max_open=True), default=0.02, show_default=True,
                 help="By how much more of its calls may fail before it is taken back."),
    click.option("--max-score-loss", "score_losses", multiple=True, metavar="SCORE=LOSS",
                 help="By how much a mean may be lower: answer.groundedness=0.05; repeatable."),
    click.option("--salt", help="Another one draws other users, and begins a trial anew.  [default: the adapter's name]"),
    click.option("--replace", is_flag=True, help="Take the place of another target on trial."),
)  # fmt: skip


def options_of(given: dict[str, Any]) -> Options:
    """Take the training options out of what a command was given."""
    return Options(**{name: given.pop(name) for name in Options.__struct_fields__})
