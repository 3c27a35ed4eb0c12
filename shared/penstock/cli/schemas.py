"""``penstock schemas``: the Avro schemas, checked offline and registered at deploy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click
from rich.table import Table

from penstock.cli.cluster import cluster_settings, one_line_errors, table_console
from penstock.contracts import records
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.compatibility import check_catalogue
from penstock.contracts.draft import draft_schema, file_stem
from penstock.contracts.examples import ExampleInvalid, examples, to_avro
from penstock.contracts.registry import Registered, SchemaRegistry, register_topic

__all__ = ["schemas"]


@click.group()
def schemas() -> None:
    """The Avro schemas of schemas/avro."""


@schemas.command()
@click.option("--wait", "wait_s", type=float, default=30.0, show_default=True, help="Seconds to wait for the registry.")
def apply(wait_s: float) -> None:
    """Register every version that the registry lacks and have it hold each subject to its compatibility."""
    with one_line_errors():
        catalogue = _checked()
        done = asyncio.run(_apply(catalogue, cluster_settings().schema_registry_url, wait_s))
    for line in done:
        click.echo(f"+ {line}")
    click.echo(f"{len(catalogue.topics)} subjects, " + (f"{len(done)} changes" if done else "nothing to do"))


@schemas.command()
def check() -> None:
    """Check offline: every version against every other, the record classes, and every example. Needs no registry."""
    with one_line_errors():
        catalogue = _checked()
        count = 0
        try:
            for example in examples(catalogue):
                to_avro(example, catalogue.topics[example.topic].versions[example.version])
                count += 1
        except ExampleInvalid as error:
            raise click.ClickException(str(error)) from error
    versions = sum(len(topic.versions) for topic in catalogue.topics.values())
    click.echo(f"{len(catalogue.topics)} topics, {versions} versions, {count} examples: all compatible")


@schemas.command("list")
def list_() -> None:
    """Show every subject with its versions here and in the registry."""
    with one_line_errors():
        catalogue = Catalogue.load()
        registered = asyncio.run(_registered(catalogue, cluster_settings().schema_registry_url))
    table = Table("subject", "record", "versions", "compatibility", "registered (version: id)", box=None)
    for topic in catalogue.topics.values():
        there = ", ".join(f"{r.version}: {r.schema_id}" for r in registered[topic.subject]) or "missing"
        versions = ", ".join(f"v{number}" for number in topic.versions)
        table.add_row(topic.subject, topic.record.__name__, versions, topic.compatibility, there)
    table_console().print(table)


@schemas.command()
@click.argument("record")
@click.option("--write", is_flag=True, help="Write it as the next version under schemas/avro, if it differs.")
def draft(record: str, write: bool) -> None:
    """Print the Avro schema of a RECORD class (such as LlmRequest) as the class is now."""
    with one_line_errors():
        catalogue = Catalogue.load()
        topics = [topic for topic in catalogue.topics.values() if topic.record.__name__ == record]
        if not topics:
            names = sorted({topic.record.__name__ for topic in catalogue.topics.values()})
            raise click.BadParameter(f"no record {record!r}; there are {', '.join(names)}", param_hint="RECORD")
        cls = getattr(records, record)
        text = json.dumps(draft_schema(cls), indent=2, ensure_ascii=False) + "\n"
        if not write:
            click.echo(text, nl=False)
            return
        newest = topics[0].versions[topics[0].newest]
        if newest == draft_schema(cls):
            click.echo(f"version {topics[0].newest} already says the same")
            return
        path = Path(catalogue.root, "avro", f"{file_stem(cls)}.v{topics[0].newest + 1}.avsc")
        path.write_text(text, "utf-8")
    click.echo(f"wrote {path}; `penstock schemas check` says whether it is compatible")


def _checked() -> Catalogue:
    catalogue = Catalogue.load()
    if broken := check_catalogue(catalogue):
        raise click.ClickException("incompatible schemas:\n  " + "\n  ".join(map(str, broken)))
    return catalogue


async def _apply(catalogue: Catalogue, url: str, wait_s: float) -> list[str]:
    async with SchemaRegistry(url) as registry:
        await registry.wait(wait_s)
        lists = await asyncio.gather(*(register_topic(registry, topic) for topic in catalogue.topics.values()))
    return [line for lines in lists for line in lines]


async def _registered(catalogue: Catalogue, url: str) -> dict[str, list[Registered]]:
    async with SchemaRegistry(url) as registry:
        await registry.subjects()
        subjects = [topic.subject for topic in catalogue.topics.values()]
        return dict(zip(subjects, await asyncio.gather(*map(registry.versions, subjects)), strict=True))
