"""``penstock finetune route``: an adapter's first traffic, as the canary of a route."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click
import yaml
from penstock.cli.cluster import one_line_errors
from penstock.cli.publishing import EntryRefused, publish_entry
from penstock.config.adapters import Adapter
from penstock.config.kinds import Canary, Route
from penstock.config.plane import ConfigPlane

from services.inference.finetune.options import publishing_options, route_options
from services.inference.finetune.registering import NotRegistered, canary_of, with_canary

__all__ = ["losses_of", "route", "routed", "trial_of"]


@click.command()
@click.argument("name")
@click.option("--route", "target", required=True, help="Route that gives it a share of its traffic.")
@route_options
@publishing_options
def route(
    name: str, target: str, share: float, sticky: str, max_error_rate: float, score_losses: Sequence[str],
    salt: str | None, replace: bool, author: str, reason: str, dry_run: bool,
) -> None:  # fmt: skip
    """Put the registered adapter NAME on trial on a route: a share of its traffic, taken back where it is worse.

    With --dry-run the canary is printed as the route's file would have it.
    """
    with one_line_errors(EntryRefused, NotRegistered):
        canary = trial_of(
            name, share=share, sticky=sticky, max_error_rate=max_error_rate, score_losses=score_losses, salt=salt
        )
        routed(target, canary, replace=replace, author=author, reason=reason, dry_run=dry_run)


def trial_of(
    name: str, *, share: float, sticky: str, max_error_rate: float, score_losses: Sequence[str], salt: str | None
) -> Canary:
    """Return what the options of a command say of the adapter ``name`` on trial.

    Raises:
        NotRegistered, click.UsageError: one of them cannot be.
    """
    losses = losses_of(score_losses)
    # Another salt draws other users than those who had an earlier version on trial.
    return canary_of(
        name,
        share,
        sticky=sticky,
        max_error_rate=max_error_rate,
        max_score_loss=losses,
        salt=name if salt is None else salt,
    )


def routed(
    target: str, canary: Canary, *, replace: bool, author: str, reason: str, dry_run: bool,
    unpublished: Adapter | None = None,
) -> None:  # fmt: skip
    """Publish a route with the adapter as its canary, and print it.

    Args:
        unpublished: the adapter, where a dry run has not registered it.

    Raises:
        NotRegistered: there is no such route or adapter, or another target is on trial.
        EntryRefused: something would be broken, such as the hard budget of a team that has no price for it.
    """

    def made(plane: ConfigPlane) -> Route:
        if unpublished is not None:
            plane.put(unpublished.key, unpublished)
        return with_canary(target, canary, plane, replace=replace)

    change = asyncio.run(publish_entry(made, author=author, reason=reason, dry_run=dry_run))
    if dry_run:
        shown = {"canary": canary.model_dump(mode="json", exclude_defaults=True)}
        click.echo(yaml.safe_dump(shown, sort_keys=False), nl=False)
        return
    done = "has it already" if change is None else f"is version {change.after.version if change.after else ''} now"
    click.echo(f"routes/{target} {done}: {canary.share:.1%} of its traffic for {canary.target.label}")


def losses_of(given: Sequence[str]) -> dict[str, float]:
    """Return how much lower means may be, by score, of ``SCORE=LOSS`` each.

    Raises:
        click.UsageError: one is none.
    """
    found: dict[str, float] = {}
    for one in given:
        score, _, loss = one.partition("=")
        try:
            found[score] = float(loss)
        except ValueError:
            loss = ""
        if not loss or "." not in score:
            raise click.UsageError(f"--max-score-loss {one!r}: write subject.name=loss, as answer.groundedness=0.05")
    return found
