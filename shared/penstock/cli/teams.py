"""Teams that commands are given, checked before anything is done in their name."""

from __future__ import annotations

import click

from penstock.config.kinds import Team
from penstock.config.plane import ConfigPlane

__all__ = ["require_team"]


def require_team(plane: ConfigPlane, name: str) -> Team:
    """Return the team ``name``.

    Raises:
        click.ClickException: it is not published; the message names those that are, or how they are.
    """
    team = plane.team(name)
    if team is None:
        teams = sorted(plane.entries(Team.KIND))
        remedy = f"there are: {', '.join(teams)}" if teams else "there is none yet: type `penstock config apply`"
        raise click.ClickException(f"no team {name!r} is configured; {remedy}")
    return team
