"""docker-compose.yml against the Compose specification, and against the rest of the project."""

from __future__ import annotations

import importlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from penstock.settings import ServiceSettings
from penstock.stack.artifacts import load_bundles

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent.name for path in PROJECT.glob("services/*/__main__.py"))
_VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z_]+)(?P<default>:-[^}]*)?\}")
_DEFAULT = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
_OF_ROUTES = {"OPENAI_API_KEY"}
"""Read by name: a route says which variable holds its key."""
_VARIANTS = {"inference-gpu": ("inference", "Dockerfile.vllm")}
"""Other images of a service, behind a profile: whose it stands for, and its Dockerfile."""
_WITHOUT_PENSTOCK = {"kafka", "registry", "redis", "qdrant", "prometheus", "grafana"}

Compose = dict[str, Any]


@pytest.fixture(scope="module")
def text() -> str:
    return (PROJECT / "docker-compose.yml").read_text("utf-8")


@pytest.fixture(scope="module")
def compose(text: str) -> Compose:
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    lines = (PROJECT / ".env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _violations(compose: Compose) -> list[str]:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text("utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(compose)]


def test_the_file_is_valid_by_the_compose_specification(compose: Compose) -> None:
    assert _violations(compose) == []


def test_a_misspelt_key_would_be_found(compose: Compose) -> None:
    misspelt = {**compose, "services": {"kafka": {**compose["services"]["kafka"], "mem_limt": "1g"}}}
    assert any("mem_limt" in violation for violation in _violations(misspelt))


def test_env_defines_every_variable_without_a_default_and_no_other(text: str, pinned: dict[str, str]) -> None:
    used = {match["name"] for match in _VARIABLE.finditer(text) if match["default"] is None}
    assert used == set(pinned)


def test_images_are_pinned_to_a_release(pinned: dict[str, str]) -> None:
    images = {name: value for name, value in pinned.items() if name.endswith("_IMAGE")}
    loose = {
        name: value for name, value in images.items() if not re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+[a-z-]*", value)
    }
    assert images
    assert loose == {}


def test_kafka_and_the_registry_are_the_ones_of_the_local_stack(pinned: dict[str, str]) -> None:
    bundles = load_bundles()
    assert pinned["KAFKA_IMAGE"].endswith(f":{bundles['kafka'].version}")
    assert pinned["REGISTRY_IMAGE"].endswith(f":{bundles['registry'].version}")


def test_every_service_is_there_and_built_from_its_own_dockerfile(compose: Compose) -> None:
    ours = set(compose["services"]) - _WITHOUT_PENSTOCK - {"deploy"}
    assert ours == {*SERVICES, *_VARIANTS}
    for name in ours:
        service = compose["services"][name]
        of, dockerfile = _VARIANTS.get(name, (name, "Dockerfile"))
        assert service["build"]["dockerfile"] == f"services/{of}/{dockerfile}"
        assert ("profiles" in service) == (name in _VARIANTS)
        assert service["image"] == f"penstock-{name}"
        assert "command" not in service
        assert "entrypoint" not in service


def test_everything_has_a_memory_limit_and_no_privileges(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("user") not in ("root", "0", 0), name


def test_our_images_run_on_a_read_only_file_system(compose: Compose) -> None:
    for name in [*SERVICES, "deploy"]:
        assert compose["services"][name]["read_only"] is True, name


def test_only_loopback_is_published(compose: Compose) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT\}:\d+", port), (name, port)


def test_starts_wait_for_what_they_need(compose: Compose) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            once = services[other].get("restart") == "no"
            assert how["condition"] == ("service_completed_successfully" if once else "service_healthy"), (name, other)
            # Our own images bring their health check with them.
            assert once or other in SERVICES or "test" in services[other]["healthcheck"], (name, other)
    for name in SERVICES:
        assert "deploy" in services[name]["depends_on"], name


def test_volumes_that_are_mounted_exist(compose: Compose) -> None:
    volumes = [mount for one in compose["services"].values() for mount in one.get("volumes", [])]
    mounts = [_DEFAULT.sub(r"\1", mount).split(":")[0] for mount in volumes]
    named = {mount for mount in mounts if not mount.startswith(".")}
    assert named == set(compose["volumes"])
    for mount in set(mounts) - named:
        assert (PROJECT / mount).exists(), mount


def _variables(settings: type[ServiceSettings]) -> set[str]:
    return {(field.alias or name).upper() for name, field in settings.model_fields.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_every_variable_it_is_given(service: str, compose: Compose) -> None:
    given = set(compose["services"][service]["environment"])
    read = _variables(importlib.import_module(f"services.{service}.settings").Settings)
    assert given - read - _OF_ROUTES == set()


def test_prometheus_scrapes_every_service_at_the_port_of_its_image() -> None:
    loaded = yaml.safe_load((PROJECT / "infra/prometheus/prometheus.yml").read_text("utf-8"))
    (job,) = [job for job in loaded["scrape_configs"] if job["job_name"] == "penstock"]
    (names,) = job["dns_sd_configs"]
    assert sorted(names["names"]) == SERVICES
    for service in SERVICES:
        dockerfile = (PROJECT / "services" / service / "Dockerfile").read_text("utf-8")
        assert f"PENSTOCK_METRICS_PORT={names['port']} " in dockerfile
        assert f"\nEXPOSE {names['port']}\n" in dockerfile
