"""``penstock finetune``: from what people think of answers to a model version on a share of the traffic."""

from __future__ import annotations

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["finetune"]

_PACKAGE = "services.inference.finetune"

finetune = LazyGroup(
    {
        "export": Subcommand(f"{_PACKAGE}.command_export:export", "Write rated conversations as a dataset."),
        "train": Subcommand(f"{_PACKAGE}.command_train:train", "Train an adapter of a base model on a dataset."),
        "evaluate": Subcommand(f"{_PACKAGE}.command_evaluate:evaluate", "Compare it with its base on a golden set."),
        "register": Subcommand(f"{_PACKAGE}.command_register:register", "Publish it as a model version."),
        "route": Subcommand(f"{_PACKAGE}.command_route:route", "Give it a share of a route's traffic."),
        "run": Subcommand(f"{_PACKAGE}.command_run:run", "All of it, one after another."),
    },
    name="finetune",
    help="Train adapters on feedback, evaluate, register and try them.",
)
