"""Programs of Debian packages as real counterparts of tests, unpacked into the user's cache: nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from penstock.stack.artifacts import default_cache_dir

__all__ = ["program"]

_FETCH_S = 120


# A program finds its data under /usr/share: the unpacked folder is laid over it, in a mount namespace of its own.
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
_OVERLAY = ["sh", "-c", 'mount --rbind "$0" /usr/share && exec "$@"']


def program(package: str, binary: str) -> list[str]:
    """Return the command of a program, of the machine or from Debian's repositories by its ordinary client; skips where
    it cannot be had.

    Args:
        package: name of the Debian package.
        binary: path of the program in it, such as ``usr/bin/prometheus-alertmanager``.
    """
    if installed := shutil.which(Path(binary).name):
        return [installed]
    kept = default_cache_dir(os.environ) / "debian" / package
    if not (kept / binary).is_file():
        _fetch(package, kept)
    if not (kept / binary).is_file():
        pytest.skip(f"the Debian package {package} holds no {binary}")
    overlay = [*_NAMESPACE, *_OVERLAY, str(kept / "usr" / "share")]
    problem = _run(kept, *overlay, "true") if shutil.which("unshare") else "there is no unshare"
    if problem:
        pytest.skip(
            f"{package} cannot be run without being installed: this machine allows no mount namespaces: {problem}"
        )
    return [*overlay, str(kept / binary)]


def _fetch(package: str, kept: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"{package} cannot be had: this machine has no {tool}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        scratch = Path(folder)
        problem = _run(scratch, "apt-get", "download", package)
        if problem:
            # No lists yet, or old ones: fetch them, into a folder of our own, which needs no root.
            lists = scratch / "lists"
            (lists / "partial").mkdir(parents=True)
            own = ("-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User=")
            problem = _run(scratch, "apt-get", *own, "update") or _run(scratch, "apt-get", *own, "download", package)
        found = next(scratch.glob("*.deb"), None)
        if problem or found is None:
            pytest.skip(f"{package} cannot be had from Debian's repositories: {problem or 'no package came'}")
        unpacked = scratch / "unpacked"
        if problem := _run(scratch, "dpkg-deb", "-x", str(found), str(unpacked)):
            pytest.skip(f"{package} cannot be unpacked: {problem}")
        # Another session may have been quicker.
        with suppress(OSError):
            unpacked.rename(kept)


def _run(folder: Path, *command: str) -> str:
    """Run a command; return why it failed, or nothing."""
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {_FETCH_S} s"
    lines = ran.stderr.strip().splitlines()
    return "" if ran.returncode == 0 else (lines[-1] if lines else f"{command[0]} ended with {ran.returncode}")
