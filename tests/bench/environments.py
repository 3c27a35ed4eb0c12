"""Environments of what is measured beside Penstock, each made from its own pinned requirements when it is first needed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "environment"]

ROOT = Path(__file__).resolve().parents[2]


def environment(name: str) -> Path:
    """Return the folder of programs of ``.venv/<name>``, which is made from ``requirements/<name>.txt`` where it is older.

    Raises:
        OSError, subprocess.CalledProcessError: it cannot be made.
    """
    folder, wanted = ROOT / ".venv" / name, ROOT / f"requirements/{name}.txt"
    stamp = folder / ".made"
    if not stamp.exists() or stamp.stat().st_mtime < wanted.stat().st_mtime:
        uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else ["uv"]
        python = folder / "bin/python"
        for command in (
            [*uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
            [*uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(wanted)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        stamp.touch()
    return folder / "bin"
