"""Fixtures of all tests: the contracts, and one local stack a run that integration and end-to-end tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

# Before numpy is imported: the matrices here are small, and on two cores its threads only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# An edge that a test runs takes a port that is free.
os.environ.setdefault("EDGE_PORT", "0")

import pytest
from hypothesis import HealthCheck, settings
from penstock.bus import KafkaBus
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.provisioning import Topics, plan_topics
from penstock.contracts.registry import SchemaRegistry, register_topic
from penstock.settings import KafkaSettings
from penstock.stack import Stack

PROJECT = Path(__file__).resolve().parents[1]
DATA = PROJECT.parent / "shared" / "data"

# The same examples wherever the tests run, and no verdict on how fast the machine is just now.
settings.register_profile(
    "penstock", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("penstock")

_FIRST_START_S = 600
"""The first start of a stack on a fresh machine fetches some 200 MB."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the stack; the test that starts it may wait for the downloads."""
    stacked = [item for item in items if "stack" in getattr(item, "fixturenames", ())]
    for item in stacked:
        item.add_marker(pytest.mark.stack)
    if stacked:
        stacked[0].add_marker(pytest.mark.timeout(_FIRST_START_S))


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root."""
    return PROJECT


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of training data beside the project; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no training data at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Every topic of the project."""
    return Catalogue.load(PROJECT / "schemas")


@pytest.fixture(scope="session")
def codec(catalogue: Catalogue) -> Codec:
    """A codec with ids of its own: no registry."""
    return Codec.offline(catalogue)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Kafka, a registry and Redis, fresh, for the whole run (for each of its processes one). A test that breaks a part
    mends it again."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    # Like any program: what KAFKA_BOOTSTRAP, SCHEMA_REGISTRY_URL and REDIS_URL give is used instead of started.
    opened = Stack.open(name, tmp_path_factory.mktemp("stack"))
    opened.up()
    yield opened
    opened.down(purge=True)


@pytest.fixture(scope="session")
def deployed(stack: Stack) -> Mapping[str, str]:
    """The stack with topics, schemas and the default configuration; the environment that leads a process to it."""
    environment = stack.environment()
    for command in (["topics", "apply"], ["schemas", "apply"], ["config", "apply", "--reason", "tests"]):
        run = penstock(command, environment)
        assert run.returncode == 0, f"penstock {' '.join(command)}: {run.stderr}{run.stdout}"
    return environment


@pytest.fixture(scope="session")
def kafka_settings(deployed: Mapping[str, str]) -> KafkaSettings:
    """Settings that lead a client to the deployed stack."""
    return KafkaSettings(
        kafka_bootstrap=deployed["KAFKA_BOOTSTRAP"], schema_registry_url=deployed["SCHEMA_REGISTRY_URL"]
    )


@pytest.fixture
def penstock_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``penstock_cli(arguments, environment)``: run the command line as a process."""
    return penstock


OwnTopics = Callable[..., Awaitable[tuple[Catalogue, Mapping[str, str]]]]


@pytest.fixture
def own_topics(catalogue: Catalogue, kafka_settings: KafkaSettings) -> OwnTopics:
    """``own, names = await own_topics("alerts", ...)``: copies of topics that no other test uses.

    ``own`` is a catalogue of the copies alone, created and registered; ``names`` leads from each topic to its copy.
    """

    async def make(*topics: str, partitions: int | None = None) -> tuple[Catalogue, Mapping[str, str]]:
        suffix = uuid.uuid4().hex[:8]
        names = {topic: f"{topic}-{suffix}" for topic in topics}
        copies = {
            copy: replace(
                catalogue.topics[topic], name=copy, partitions=partitions or catalogue.topics[topic].partitions
            )
            for topic, copy in names.items()
        }
        Topics(kafka_settings).apply(plan_topics(list(copies.values()), {}))
        async with SchemaRegistry(kafka_settings.schema_registry_url) as registry:
            for copy in copies.values():
                await register_topic(registry, copy)
        return Catalogue(topics=copies, root=catalogue.root), names

    return make


@pytest.fixture
async def bus(kafka_settings: KafkaSettings) -> AsyncIterator[KafkaBus]:
    """A started connection to the stack's Kafka."""
    async with KafkaBus(kafka_settings, client_id="penstock-tests") as started:
        yield started


def penstock(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``penstock`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from penstock.cli.main import main; main(prog_name='penstock')", *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "shared"), **environment},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
