"""``penstock evaluate``: how good answers and evaluators are."""

from __future__ import annotations

import os

# One batch's matrices are so small that threads only wait for each other. NumPy reads this when it is imported, which the
# sub-commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["evaluate"]

evaluate = LazyGroup(
    {
        "score": Subcommand("services.evaluation.command.score:score", "Run an evaluator over a file or a pipe."),
        "run": Subcommand(
            "services.evaluation.golden.command_run:run",
            "Send a golden set through the stream; compare; say what broke.",
        ),
        "cases": Subcommand(
            "services.evaluation.golden.command_offline:cases", "Print what a golden set asks, to answer it elsewhere."
        ),
        "compare": Subcommand(
            "services.evaluation.golden.command_offline:compare", "Compare answers that were given elsewhere."
        ),
        "promote": Subcommand(
            "services.evaluation.golden.command_promote:promote", "Make a request of production a case of a golden set."
        ),
        "models": Subcommand(
            "services.evaluation.command.models:models",
            "Show, promote and roll back the classifiers that learn online.",
        ),
        "agreement": Subcommand(
            "services.evaluation.judging.command_agreement:agreement_command",
            "Compare what models judged with what people said.",
        ),
    },
    name="evaluate",
    help="Score files, run golden sets, decide about the classifiers that learn.",
)
