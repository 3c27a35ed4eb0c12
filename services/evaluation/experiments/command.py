"""``penstock experiments``: how live comparisons stand."""

from __future__ import annotations

import os

# The matrices here are so small that threads only wait for each other. NumPy reads this when it is imported, which the
# sub-commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["experiments"]

experiments = LazyGroup(
    {
        "list": Subcommand(
            "services.evaluation.experiments.command_list:list_experiments", "Show every experiment and its units."
        ),
        "show": Subcommand(
            "services.evaluation.experiments.command_show:show", "Show what an experiment says, and what to do next."
        ),
        "report": Subcommand(
            "services.evaluation.experiments.command_report:report", "Write the same as a page to hand on."
        ),
    },
    name="experiments",
    help="Compare arms of running experiments: differences, confidence sequences, decisions.",
)
