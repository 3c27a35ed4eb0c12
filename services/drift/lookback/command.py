"""``penstock drift``: look back at what changed, and tell the detectors what is normal."""

from __future__ import annotations

import os

# The matrices here are so small that threads only wait for each other. NumPy reads this when it is imported, which the
# sub-commands do.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["drift"]

drift = LazyGroup(
    {
        "replay": Subcommand(
            "services.drift.lookback.command_replay:replay", "Run any detector over a file, a pipe or the log."
        ),
        "report": Subcommand(
            "services.drift.lookback.command_report:report", "Draw a segment's signals and changes as a page."
        ),
        "list": Subcommand(
            "services.drift.lookback.command_list:list_segments", "Show what changed last in every segment."
        ),
        "pin": Subcommand("services.drift.lookback.command_pin:pin", "Make a past period the reference of a segment."),
        "unpin": Subcommand("services.drift.lookback.command_pin:unpin", "Let the reference follow the segment again."),
        "rebase": Subcommand(
            "services.drift.lookback.command_pin:rebase", "Accept the present: it is the reference from now on."
        ),
    },
    name="drift",
    help="Look back at what changed, and tell the detectors what is normal.",
)
