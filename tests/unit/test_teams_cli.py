"""The check that commands make before they do anything in a team's name."""

from __future__ import annotations

import click
import pytest
from penstock.cli.teams import require_team
from penstock.config.kinds import Team
from penstock.config.plane import ConfigPlane


def test_a_team_that_is_not_published_is_refused_with_those_that_are() -> None:
    plane = ConfigPlane.of([Team(name="support"), Team(name="acme")])
    assert require_team(plane, "acme").name == "acme"
    with pytest.raises(click.ClickException, match="no team 'suport' is configured; there are: acme, support"):
        require_team(plane, "suport")


def test_where_nothing_is_published_the_command_that_publishes_is_named() -> None:
    with pytest.raises(click.ClickException, match="there is none yet: type `penstock config apply`"):
        require_team(ConfigPlane(), "support")
