"""Adapters that the engine may serve: registered ones whose weights are those that were registered. No vLLM here."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from penstock.config.kinds import Adapter

from services.inference.vllm.protocol import LoadedAdapter
from services.inference.vllm.settings import EngineSettings

__all__ = ["WEIGHTS", "AdapterError", "Adapters", "digest_of"]

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


class Adapters:
    """Finds adapters by name. Weights are read once, and again where their file has changed."""

    def __init__(self, find: Callable[[str], Adapter | None], settings: EngineSettings) -> None:
        self._find = find
        self._settings = settings
        self._verified: dict[tuple[str, str], tuple[tuple[int, int], LoadedAdapter]] = {}
        self._reading = asyncio.Lock()

    async def loaded(self, name: str) -> LoadedAdapter:
        """Return the adapter that targets ask for as ``name``.

        Raises:
            AdapterError: there is none, or the engine must not or cannot serve it.
        """
        settings, adapter = self._settings, self._find(name)
        if adapter is None:
            served = ", ".join(settings.names)
            raise AdapterError(
                f"the engine serves {served} and the adapters of it that are registered (config-adapters)"
            )
        if not settings.enable_lora:
            raise AdapterError("the engine serves no adapters: set enable_lora in INFERENCE_ENGINE")
        if adapter.base_model not in settings.names:
            served = ", ".join(settings.names)
            raise AdapterError(f"the adapter belongs to {adapter.base_model}; the engine runs {served}")
        if adapter.rank > settings.max_lora_rank:
            raise AdapterError(
                f"the adapter's rank is {adapter.rank}, the engine's largest {settings.max_lora_rank}: set max_lora_rank in "
                "INFERENCE_ENGINE"
            )
        place = (adapter.path, adapter.sha256)
        weights = Path(adapter.path) / WEIGHTS
        try:
            stat = await asyncio.to_thread(weights.stat)
        except OSError as error:
            raise AdapterError(f"{weights}: the adapter's weights cannot be read: {error.strerror or error}") from error
        mark = (stat.st_mtime_ns, stat.st_size)
        async with self._reading:
            known = self._verified.get(place)
            if known is not None and known[0] == mark:
                return known[1]
            found = await asyncio.to_thread(digest_of, adapter.path)
            if found != adapter.sha256:
                raise AdapterError(
                    f"{weights} has the digest {found}, registered is {adapter.sha256}: it is not loaded"
                )
            # Another number, and another name, for other weights: the engine keeps those it has loaded under theirs.
            number = 1 + max((each.number for _, each in self._verified.values()), default=0)
            loaded = LoadedAdapter(f"{name}@{found[:12]}-{number}", number, adapter.path)
            self._verified[place] = (mark, loaded)
            return loaded
