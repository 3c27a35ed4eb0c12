"""The stack that a bench runs on: one of its own, which is gone with its folder when the bench ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.contracts.catalogue import project_file
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.supervisor import Supervisor, service_specs

__all__ = ["BenchStack", "bench_stack", "deploy", "services"]

_START_S = 120.0


@dataclass(frozen=True)
class BenchStack:
    """A running stack. ``folder`` is the bench's to write in; ``environ`` leads a process to the stack."""

    stack: Stack
    folder: Path
    environ: dict[str, str]

    @property
    def settings(self) -> KafkaSettings:
        """What leads a client to it."""
        return KafkaSettings(
            kafka_bootstrap=self.environ["KAFKA_BOOTSTRAP"], schema_registry_url=self.environ["SCHEMA_REGISTRY_URL"]
        )


@contextmanager
def bench_stack(name: str = "bench") -> Iterator[BenchStack]:
    """Run a stack for as long as the block does."""
    with tempfile.TemporaryDirectory(prefix=f"penstock-{name}-", ignore_cleanup_errors=True) as folder:
        stack = Stack.open(name, folder)
        stack.up()
        try:
            environ = {**os.environ, **stack.secrets(), **stack.environment()}
            environ |= {"PENSTOCK_STACK": name, "PENSTOCK_STATE_DIR": folder}
            yield BenchStack(stack, Path(folder), environ)
        finally:
            stack.down(purge=True)


def deploy(environ: Mapping[str, str], config: Path | None = None) -> None:
    """Apply topics and schemas, and the configuration in the folder ``config`` where one is given.

    Raises:
        subprocess.CalledProcessError: a command failed; its messages are on stderr.
    """
    cli = Path(sys.executable).with_name("penstock")
    commands = [["topics", "apply"], ["schemas", "apply"], *([["config", "apply", str(config)]] if config else [])]
    for command in commands:
        subprocess.run([cli, *command], env=environ, check=True, stdout=subprocess.DEVNULL)


@asynccontextmanager
async def services(names: Sequence[str], stack: Stack, environ: Mapping[str, str]) -> AsyncIterator[Supervisor]:
    """Run services on ``stack`` for as long as the block does; it begins when they are ready."""
    project = project_file("services").parent
    async with Supervisor(service_specs(names, project), environ, stack.folder, cwd=project) as supervisor:
        await supervisor.wait_ready(timeout_s=_START_S)
        yield supervisor
