"""The published description of the edge against what it does, as schemathesis finds out over a socket."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from services.edge.server import ApiServer
from services.edge.settings import Settings
from tests.unit.edge_desk import KEY, MemoryDesk, app_of, front_of


async def test_every_operation_does_what_the_description_says(tmp_path: Path) -> None:
    server = ApiServer(app_of(front_of(MemoryDesk())), Settings(edge_port=0))
    stopping, listening = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(server.serve(stopping, listening.set))
    await listening.wait()
    command = [
        "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "all", "--phases", "coverage,fuzzing",
        "--max-examples", "4", "--seed", "1", "--no-color", "-H", f"Authorization: Bearer {KEY.text}",
    ]  # fmt: skip
    run = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"), *command,
        cwd=tmp_path, env={**os.environ, "NO_PROXY": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await run.communicate()
    stopping.set()
    await serving
    assert run.returncode == 0, said.decode()
    assert "Tested: 10" in said.decode()
