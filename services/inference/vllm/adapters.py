"""What an adapter's folder holds, and the digest its weights are known by. Pure but for reading the folder; no vLLM here."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["WEIGHTS", "AdapterError", "digest_of"]

WEIGHTS = "adapter_model.safetensors"
"""The file that peft writes weights to (https://huggingface.co/docs/peft/developer_guides/checkpoint)."""


class AdapterError(Exception):
    """An adapter cannot be used; the message says which and why."""


def digest_of(folder: str | Path) -> str:
    """Return the SHA-256 of the weights in an adapter's ``folder``, 64 hexadecimal digits: :attr:`Adapter.sha256`.

    Raises:
        AdapterError: there are none that can be read.
    """
    weights = Path(folder) / WEIGHTS
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"{weights}: the adapter's weights cannot be read: {error.strerror or error}") from error
