"""``penstock alerts``: what fires, who was told, and what people do about it."""

from __future__ import annotations

import click

from penstock.cli.alerts.acting import ack, resolve, silence, unack, unsilence
from penstock.cli.alerts.showing import list_, show, silences
from penstock.cli.alerts.trial import test

__all__ = ["alerts"]


class _InOrder(click.Group):
    """Lists its commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder)
def alerts() -> None:
    """See what fires and who was told; acknowledge, silence, and test the way to on-call."""


for command in (list_, show, ack, unack, resolve, silence, silences, unsilence, test):
    alerts.add_command(command)
