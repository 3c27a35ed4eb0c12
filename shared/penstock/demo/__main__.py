"""python -m penstock.demo"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import uuid
from pathlib import Path

import click
from rich.console import Console

from penstock.bus import KafkaUnavailable
from penstock.cli.stack import clear_errors
from penstock.client import RequestNotSent
from penstock.contracts.registry import RegistryError
from penstock.demo import corpus, questions
from penstock.demo.corpus import CorpusError
from penstock.demo.questions import QuestionError
from penstock.demo.report import Report
from penstock.demo.run import Input, run
from penstock.demo.traffic import plan
from penstock.stack import Stack, StackError
from penstock.telemetry import configure_logging

_INTERRUPTED = 130
_WIDTH = 140
"""Columns where the output is no terminal."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--docs",
    type=click.Path(path_type=Path),
    help="Folder of documents (.txt, .rst, .md, .html).  [default: the documentation in Python's standard library]",
)
@click.option(
    "--questions",
    "question_file",
    type=click.Path(path_type=Path),
    help="File of questions.  [default: questions about Python's documentation; with --docs: one about each document]",
)
@click.option("--requests", type=click.IntRange(1), help="How many to send.  [default: each question once]")
@click.option("--rate", default=6.0, show_default=True, type=click.FloatRange(0.1, 1000), help="Requests a second.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there too."
)
@click.option("--name", default="demo", show_default=True, help="Name of the stack.")
@click.option("--keep", is_flag=True, help="Leave the servers up with everything on them.")
def main(
    docs: Path | None,
    question_file: Path | None,
    requests: int | None,
    rate: float,
    json_file: Path | None,
    name: str,
    keep: bool,
) -> None:
    """Run the whole of Penstock on this machine and report what happened.

    Starts servers of its own (or uses those given in KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL, REDIS_URL, QDRANT_URL) and every
    service, indexes the documents, sends the questions with personal data, a secret, injections and abuse among them, and
    ends with the answers beside their sources, costs, what guardrails did, toxicity, drift, and speed.

    Exits 0 when every request has exactly one result and became what it had to; 1 otherwise, with the reasons.

    A file of questions holds one a line. A blank line marks a shift of topic: what stands below it is sent afterwards, so
    that drift can be seen. Lines may be JSON: {"question": "...", "expected": "a word of the right answer"}. An alert about
    drift is demanded of the questions that are shipped; of yours it is reported if it comes.
    """
    configure_logging("demo", "error", json=False)
    console = Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=_WIDTH)
    try:
        given = _input(docs, question_file, requests, rate)
    except (CorpusError, QuestionError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    with clear_errors():
        stack = Stack.open(name)
        if (roster := stack.roster.read()) is not None and roster.supervisor.alive:
            raise StackError(
                f"services run on stack {name!r} already (pid {roster.supervisor.pid}); wait for them, or choose "
                "another --name"
            )
        stack.down(purge=True)  # what an earlier run left is no part of this one
        try:
            report = asyncio.run(_until_signalled(given, stack, console, keep))
        except (KafkaUnavailable, RegistryError, RequestNotSent) as error:
            raise click.ClickException(f"{error}\n  logs: {stack.folder.logs}") from error
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("interrupted; everything was stopped")
            sys.exit(_INTERRUPTED)
        report.show(console)
        if json_file is not None:
            json_file.write_text(json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
        _leave(stack, report, console, keep)
    sys.exit(1 if report.problems else 0)


def _input(docs: Path | None, question_file: Path | None, requests: int | None, rate: float) -> Input:
    documents = corpus.folder(docs) if docs is not None else corpus.standard_library()
    if question_file is not None:
        asked = questions.read(question_file)
    else:
        asked = questions.shipped() if docs is None else questions.from_documents(documents)
    planned = plan(asked, f"demo-{uuid.uuid4().hex[:6]}", requests)
    return Input(documents, planned, shift_is_marked=docs is None and question_file is None, rate=rate)


async def _until_signalled(given: Input, stack: Stack, console: Console, keep: bool) -> Report:
    """Run, and stop everything in order on SIGTERM as on Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(given, stack, console, keep=keep)


def _leave(stack: Stack, report: Report, console: Console, keep: bool) -> None:
    if keep:
        option = f"--name {stack.name}"
        console.print(
            f"the servers are up: `penstock run {option}` starts the services, "
            f"`penstock stack down {option} --purge` ends it"
        )
    elif not report.problems:
        stack.down(purge=True)


if __name__ == "__main__":
    main()
