"""Options of the commands that change the configuration, the same wherever they stand."""

from __future__ import annotations

import click

__all__ = ["as_json", "author", "dry_run", "reason", "yes"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
reason = click.option("--reason", default="", help="Why, for the record.")
author = click.option("--author", default=None, help="Who.  [default: the user of this machine]")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, and publish nothing.")
yes = click.option("--yes", "-y", is_flag=True, help="Publish without asking.")
