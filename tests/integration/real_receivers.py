"""Receivers that this project did not write, as processes: Prometheus Alertmanager, and Debian's webhook server, which
verifies each delivery with the Standard Webhooks library."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.integration.debian_program import program

__all__ = ["SECRET", "active", "alertmanager", "free_port", "verified", "webhook_server"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

# What the webhook server runs on a delivery; where it fails, the answer is 500.
_VERIFY = """
import json, os, sys
import standardwebhooks
folder = sys.argv[2]
assert not os.path.exists(f"{folder}/down")
headers = {name: os.environ["HOOK_" + name.replace("-", "_").upper()] for name in
           ("webhook-id", "webhook-timestamp", "webhook-signature")}
body = sys.argv[1].encode()
standardwebhooks.Webhook(os.environ["HOOK_SECRET"]).verify(body, headers)
with open(f"{folder}/verified.jsonl", "a") as log:
    log.write(json.dumps({"id": headers["webhook-id"], "body": json.loads(body)}) + "\\n")
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def alertmanager(folder: Path, port: int) -> AsyncIterator[str]:
    """A real Alertmanager from when it is ready; its address. Killed at the end: what it held is gone."""
    command = program("prometheus-alertmanager", "usr/bin/prometheus-alertmanager")
    config = folder / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    address = f"http://127.0.0.1:{port}"
    command += [
        f"--config.file={config}", f"--storage.path={folder / 'alertmanager'}", "--cluster.listen-address=",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    async with _process(command, lambda: _answers(f"{address}/-/ready"), folder / "alertmanager.log"):
        yield address


async def active(address: str) -> list[dict[str, Any]]:
    """The alerts that Alertmanager holds as firing."""
    async with httpx.AsyncClient(trust_env=False) as probe:
        answer = await probe.get(f"{address}/api/v2/alerts", params={"active": "true"})
        answer.raise_for_status()
        return list(answer.json())


@asynccontextmanager
async def webhook_server(folder: Path) -> AsyncIterator[str]:
    """Debian's webhook server; the hook's address. Answers 500 where the library refuses, and while ``folder/down``
    exists."""
    command = program("webhook", "usr/bin/webhook")
    script, hooks = folder / "verify.py", folder / "hooks.json"
    script.write_text(_VERIFY)
    headers = [
        {"source": "header", "name": name, "envname": "HOOK_" + name.replace("-", "_").upper()}
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    ]
    hook = {
        "id": "alerts",
        "execute-command": sys.executable,
        "pass-arguments-to-command": [
            {"source": "string", "name": str(script)},
            {"source": "raw-request-body"},
            {"source": "string", "name": str(folder)},
        ],
        "pass-environment-to-command": [*headers, {"source": "string", "name": SECRET, "envname": "HOOK_SECRET"}],
        # Without it the server answers before the script has ended.
        "include-command-output-in-response": True,
    }
    hooks.write_text(json.dumps([hook]))
    port = free_port()
    command += ["-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
    address = f"http://127.0.0.1:{port}"
    async with _process(command, lambda: _answers(address), folder / "webhook.log"):
        yield f"{address}/hooks/alerts"


def verified(folder: Path) -> list[dict[str, Any]]:
    """The deliveries that the library found right: ``id`` and ``body``."""
    log = folder / "verified.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@asynccontextmanager
async def _process(command: list[str], ready: Callable[[], Awaitable[bool]], log: Path) -> AsyncIterator[None]:
    """A program, from when it is ready."""
    output = os.open(log, os.O_CREAT | os.O_RDWR | os.O_APPEND)
    try:
        started = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        try:
            async with asyncio.timeout(60):
                while not await ready():
                    assert started.returncode is None, os.pread(output, 8000, 0).decode(errors="replace")
                    await asyncio.sleep(0.05)
            yield
        finally:
            if started.returncode is None:
                started.kill()
            await started.wait()
    finally:
        os.close(output)


async def _answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as probe:
        try:
            return (await probe.get(url)).status_code < 500
        except httpx.HTTPError:
            return False
