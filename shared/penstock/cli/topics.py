"""``penstock topics``: the catalogue's topics on the cluster."""

from __future__ import annotations

import click
from rich.table import Table

from penstock.cli.cluster import cluster_settings, one_line_errors, table_console
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.provisioning import BROKER_DEFAULT, ProvisioningError, Topics, plan_topics

__all__ = ["topics"]


@click.group()
def topics() -> None:
    """The topics of schemas/topics on the cluster."""


@topics.command()
@click.option(
    "--replication",
    type=click.IntRange(1),
    envvar="KAFKA_REPLICATION",
    help="Replicas of a new topic.  [env: KAFKA_REPLICATION; default: the broker's]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--wait", "wait_s", type=float, default=30.0, show_default=True, help="Seconds to wait for Kafka.")
def apply(replication: int | None, dry_run: bool, wait_s: float) -> None:
    """Create missing topics, add missing partitions, set what differs. Deletes nothing; safe to repeat."""
    factor = replication or BROKER_DEFAULT
    with one_line_errors(ProvisioningError):
        catalogue = Catalogue.load()
        cluster = Topics(cluster_settings(registry=False), wait_s)
        changes = plan_topics(list(catalogue.topics.values()), cluster.existing(list(catalogue.topics)), factor)
        for change in changes:
            if change.create:
                click.echo(f"+ {change.topic.name}  {change.topic.partitions} partitions, {change.topic.cleanup}")
            elif change.partitions:
                click.echo(f"~ {change.topic.name}  to {change.partitions} partitions")
            if change.config and not change.create:
                click.echo(f"~ {change.topic.name}  " + ", ".join(f"{k}={v}" for k, v in change.config.items()))
            if change.note:
                click.echo(f"! {change.topic.name}  {change.note}")
        work = [change for change in changes if not change.idle]
        if not dry_run:
            cluster.apply(work, factor)
    done = "to do" if dry_run else "done"
    click.echo(f"{len(changes)} topics, {len(work)} {done}" if work else f"{len(changes)} topics, nothing to do")


@topics.command("list")
def list_() -> None:
    """Show every topic: record, owner, writers, readers, and whether the cluster has it."""
    with one_line_errors(ProvisioningError):
        catalogue = Catalogue.load()
        existing = Topics(cluster_settings(registry=False)).existing(list(catalogue.topics))
    table = Table("topic", "record", "partitions", "keeps", "writers", "readers", "on the cluster", box=None)
    for topic in catalogue.topics.values():
        state = existing.get(topic.name)
        keeps = f"{topic.retention_ms // 86_400_000} days" if topic.retention_ms else "newest of a key"
        there = "missing" if state is None else f"{state.partitions} x {state.replication}"
        table.add_row(
            topic.name + (" *" if topic.public else ""), topic.record.__name__, str(topic.partitions), keeps,
            ", ".join(topic.writers), ", ".join(topic.readers), there,
        )  # fmt: skip
    console = table_console()
    console.print(table)
    console.print("* public: written or read from outside. On the cluster: partitions x replicas.")
