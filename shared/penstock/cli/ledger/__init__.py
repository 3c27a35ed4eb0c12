"""penstock ledger: what was spent, proven and told."""

from __future__ import annotations

import click

from penstock.cli.main import LazyGroup, Subcommand

__all__ = ["ledger"]

_COMMANDS = {
    "verify": Subcommand(
        "penstock.cli.ledger.verify:verify", "Prove the ledger against the live sums, Redis and calls."
    ),
    "report": Subcommand("penstock.cli.ledger.report:report", "Add up what was spent, by any dimension."),
    "statement": Subcommand("penstock.cli.ledger.statement:statement", "Write a team's statement for a month."),
    "reprice": Subcommand("penstock.cli.ledger.reprice:reprice", "Say what a period would have cost at other prices."),
    "energy": Subcommand("penstock.cli.ledger.energy:energy", "Add up the energy of model calls, as estimated."),
    "savings": Subcommand("penstock.cli.ledger.savings:savings", "Say what was saved, and what routing could save."),
}


@click.group(cls=LazyGroup, subcommands=_COMMANDS)
def ledger() -> None:
    """What was spent: rebuilt from the log, verified to the last digit, and told by any dimension."""
